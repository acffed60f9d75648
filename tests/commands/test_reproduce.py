"""`reproduce all` and `reproduce demo`: every table in its order, and the comparison that a newcomer sees first."""

from pathlib import Path

import pytest
from PIL import Image

from argmax_vae.cli import main
from argmax_vae.commands import all_tables, demo, sweep
from argmax_vae.config.options import primary_configs
from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS

pytestmark = pytest.mark.usefixtures("empty_directory")

SMALL = ("trainer.epochs=2", "trainer.evaluate_every=1", "seeds=[0,1]", "trainer.final_samples=2", "trainer.batch=200")

ONE = ("estimator=direct", "paths.results=results")
"""Leaves one cell of each table."""


def test_all_has_every_config_of_a_table_and_searches_first() -> None:
    assert sorted(sweep.TABLES) == sorted(set(primary_configs()) - {"train", "demo"})
    assert [name for name, _ in sweep.lines_of("all", [])] == list(sweep.TABLES)
    for place, name in enumerate(sweep.TABLES):
        table, search, _ = name.partition("_search")
        assert not search or sweep.TABLES.index(table) > place


@pytest.fixture
def reproduced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tables that `reproduce all` comes to, three of them composed and none trained."""
    names: list[str] = []

    def train(lines: list[sweep.Selection], overrides: list[str], train_only: bool) -> int:
        ((name, words, found),) = lines
        assert words == overrides and [cell.run for cell in found]
        names.append(name)
        if name == "figure4":
            raise UsageError("no faces here")
        return 0

    def measure(name: str, overrides: list[str]) -> int:
        names.append(f"gradients {name}")
        return 0

    monkeypatch.setattr(sweep, "TABLES", ("demo", "figure1", "figure4"))
    monkeypatch.setattr(sweep, "reproduce_selected", train)
    monkeypatch.setattr(all_tables, "measure_gradients", measure)
    return names


def test_a_table_that_cannot_be_trained_stops_no_other(
    reproduced: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", "all", *ONE]) == 1
    assert reproduced == ["demo", "gradients figure1", "figure4"]
    assert capsys.readouterr().err == "argmax-vae: figure4: no faces here\n"
    assert main(["reproduce", "all", *ONE, "--train-only"]) == 1
    assert reproduced[3:] == ["demo", "figure1", "figure4"]
    monkeypatch.setattr(sweep, "TABLES", ("figure4",))
    assert main(["reproduce", "all", *ONE]) == 2


def test_all_is_checked_before_anything_is_trained(reproduced: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "all", "trainer.epochs=0"]) == 2
    assert "trainer.epochs=0" in capsys.readouterr().err
    Path("results").mkdir()
    Path("results/runs.csv").write_text("no,record\n1,2\n")
    assert main(["reproduce", "all", *ONE]) == 2
    assert "runs.csv" in capsys.readouterr().err
    assert reproduced == []


def test_all_is_listed_and_ends_with_the_pages(reproduced: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "all", *ONE, "--dry-run"]) == 0
    listed = capsys.readouterr().out.splitlines()
    names = ("digits-linear-8x2-direct", "mnist-one_hidden-1x10-direct", "celeba-attributes-1x8-direct")
    assert [name in line for name, line in zip(names, listed, strict=True)] == [True] * 3
    assert reproduced == []
    block = "<!-- one: written by argmax-vae report readme -->\n{}<!-- end -->\n"
    Path("README.md").write_text(block.format(""))
    Path("results").mkdir()
    Path("results/README.md").touch()
    Path("results/one.md").write_text("| a |\n|---|\n")
    main(["reproduce", "all", *ONE])
    assert Path("README.md").read_text() == block.format("| a |\n|---|\n")
    assert capsys.readouterr().out == "README.md\n"


def test_the_demo_prints_and_draws_the_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    some = "estimator=gumbel_softmax,disarm"
    assert main(["reproduce", "demo", "--train-only", some, *SMALL]) == 0
    assert not Path("demo/demo.png").exists()
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["reproduce", "demo", some, *SMALL]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].startswith("demo/runs/digits-linear-8x2-") for line in lines[:2]] == [True, True]
    assert lines[2].split() == ["estimator", "test", "bound", "(nats)", "KL", "codes", "in", "use", "seeds", "seconds"]
    assert [line.split()[0] for line in lines[3:5]] == ["Gumbel-Softmax", "DisARM"]
    assert lines[-1] == "curves and samples: demo/demo.png"
    with Image.open("demo/demo.png") as picture:
        assert picture.format == "PNG"
    assert {path.name for path in Path("demo").iterdir()} == {"runs", "demo.png"}


def test_the_demo_has_every_estimator_that_fits() -> None:
    (chosen,) = demo.with_estimators([])
    names = chosen.removeprefix("estimator=").split(",")
    assert set(ESTIMATORS) - set(names) == set(demo.LEFT_OUT)
    (chosen, _) = demo.with_estimators(["model.latents=3x4"])
    assert "disarm" not in chosen.removeprefix("estimator=").split(",")


def test_a_demo_of_several_runs_of_an_estimator_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "demo", "estimator=direct", "model.latents=3x2,4x2"]) == 2
    assert "one run of each estimator" in capsys.readouterr().err
    assert list(Path().iterdir()) == []
