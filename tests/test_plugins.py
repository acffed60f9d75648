"""Options that other packages bring: the example under scripts/examples/outside, and packages that do not serve."""

import os
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from argmax_vae import Estimator, UsageError, plugins

EXAMPLE = Path(__file__).parents[1] / "scripts" / "examples" / "outside"
PROJECT = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SMALL = [
    *("data=bars", "model=convolutional", "model.latents=3x2", "model.channels=2", "estimator=ranked", "seeds=[0,1]"),
    *("trainer.epochs=1", "trainer.evaluate_every=1", "trainer.batch=500", "trainer.final_samples=2"),
    *("runtime.compile=false", "runtime.device=cpu"),
]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory of installed packages with the example in it."""
    site = tmp_path / "site"
    folder = site / f"{PROJECT['name'].replace('-', '_')}-{PROJECT['version']}.dist-info"
    folder.mkdir(parents=True)
    (site / "outside.py").write_bytes((EXAMPLE / "outside.py").read_bytes())
    lines = [f"Metadata-Version: 2.1\nName: {PROJECT['name']}\nVersion: {PROJECT['version']}\n"]
    (folder / "METADATA").write_text("".join(lines))
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in PROJECT["entry-points"].items()
    ]
    (folder / "entry_points.txt").write_text("".join(groups))
    return site


PROGRAM = """
import sys
from pathlib import Path
from argmax_vae.cli import main
for line in sys.argv[1:]:
    words = [word if word != "RUN" else str(next(Path("runs").glob("*/config.yaml")).parent) for word in line.split()]
    if code := main(words):
        sys.exit(code)
"""


def argmax_vae(lines: list[str], directory: Path, *path: Path) -> subprocess.CompletedProcess[str]:
    """Commands one after the other in a process of their own, until one fails; RUN is the run that is there."""
    source = Path(plugins.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (source, *path)))}
    command = [sys.executable, "-c", PROGRAM, *lines]
    return subprocess.run(command, check=False, cwd=directory, env=environment, capture_output=True, text=True)


def test_a_package_adds_options_and_its_runs_can_be_read_again_where_it_is_installed(
    site: Path, tmp_path: Path
) -> None:
    again = "evaluate RUN trainer.final_samples=3"
    done = argmax_vae([" ".join(["train", *SMALL]), again], tmp_path, site)
    assert done.returncode == 0, done.stderr
    (run,) = (path.parent for path in (tmp_path / "runs").glob("*/config.yaml"))
    assert run.name.startswith("bars-convolutional-3x2-ranked-")
    assert done.stdout.count("done") == 4
    alone = argmax_vae(["runs", again], tmp_path)
    assert alone.returncode == 2
    assert alone.stderr == (
        "argmax-vae: estimator=ranked was brought by the package argmax-vae-outside 0.1, which is not installed here\n"
    )
    assert "done" in alone.stdout


def registry(monkeypatch: pytest.MonkeyPatch, **points: str) -> plugins.Registry[type[Estimator]]:
    entries = tuple(EntryPoint(name, value, plugins.GROUPS["estimator"]) for name, value in points.items())
    monkeypatch.setattr(plugins, "installed", lambda: {"estimator": entries})
    monkeypatch.setattr(plugins, "BROUGHT", {})
    monkeypatch.setattr(plugins, "REFUSED", {})
    own: dict[str, type[Estimator]] = {"own": Estimator}
    return plugins.Registry("estimator", own, lambda kind: isinstance(kind, type), "a class")


def test_a_registry_lists_its_own_things_first(monkeypatch: pytest.MonkeyPatch) -> None:
    things = registry(monkeypatch, further="argmax_vae.estimators.direct:Direct")
    assert list(things) == ["own", "further"] and len(things) == 2
    assert "own" in things and "further" in things and "other" not in things
    assert things["own"] is Estimator
    assert things["further"].__name__ == "Direct"
    assert plugins.used({"estimator": "further", "data": "own"}) == {"estimator=further": "an unknown package"}
    with pytest.raises(KeyError):
        things["other"]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("own", "argmax_vae.estimators.direct:Direct", "has a name that is taken"),
        ("lost", "no_such_package:Thing", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("lost", "argmax_vae.estimators.direct:Missing", "has no attribute 'Missing'"),
        ("number", "math:pi", "must be a class, and math:pi is not"),
    ],
)
def test_an_entry_point_that_does_not_serve_is_left_out_and_its_reason_told(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    things = registry(monkeypatch, **{name: value})
    assert list(things) == ["own"] and things["own"] is Estimator
    assert reason in plugins.refused(f"estimator={name}")
    with pytest.raises(UsageError, match=f"estimator={name} was brought by the package p 1, which of the package"):
        plugins.require_used({"plugins": {f"estimator={name}": "p 1"}})


def test_a_run_without_outside_options_requires_nothing() -> None:
    plugins.require_used({})
    assert plugins.refused("estimator=direct") == ""
