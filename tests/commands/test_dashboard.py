"""wandb's dashboard and sweep file: they name what is logged and what exists."""

import importlib.util
from pathlib import Path

import pytest
import yaml

from argmax_vae.cli import main
from argmax_vae.config import compose

SWEEP = Path(__file__).parents[2] / "scripts" / "wandb_sweep.yaml"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_ENTITY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)


def installed() -> None:
    """Skip a test without the extra."""
    if importlib.util.find_spec("wandb_workspaces") is None:
        pytest.skip("the extra argmax-vae[dashboard] is not installed")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_dashboard_shows_what_the_tracker_logs() -> None:
    installed()
    from argmax_vae.commands import dashboard

    view = dashboard.workspace("someone", "argmax-vae")
    curves, cost, images, tables = view.sections
    (cell,) = compose.cells("train", [])
    for grouped in view.runset_settings.groupby:
        section, _, key = grouped.name.partition(".")
        assert section in cell.config_dict and (not key or key in cell.config_dict[section])
    logged = {
        f"{split}_{what}" for split in ("validation", "test") for what in ("bound", "kl", "codes_in_use", "accuracy")
    }
    assert {panel.y[0].name if hasattr(panel.y[0], "name") else panel.y[0] for panel in curves.panels} <= logged
    assert all(panel.y.name == "final/test_bound" for panel in cost.panels)
    assert [panel.media_keys for panel in images.panels] == [["samples"], ["reconstructions"]]
    assert {"seeds", "figure2", "figure3"} <= {panel.table_name for panel in tables.panels}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_dashboard_is_listed_without_a_login_and_saved_with_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed()
    from argmax_vae.commands import dashboard

    assert main(["sync", "--dashboard", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "Curves: 5 panels"
    saved = []
    monkeypatch.setattr(dashboard, "online_problem", lambda: "")
    monkeypatch.setattr(dashboard.ws.Workspace, "save", lambda view: saved.append((view.entity, view.project)))
    monkeypatch.setattr(dashboard.ws.Workspace, "url", "https://somewhere")
    assert main(["sync", "--dashboard", "someone"]) == main(["sync", "--dashboard", "someone/mine"]) == 0
    assert capsys.readouterr().out == "https://somewhere\n" * 2
    monkeypatch.setenv("WANDB_ENTITY", "team")
    monkeypatch.setenv("WANDB_PROJECT", "ours")
    assert main(["sync", "--dashboard"]) == 0
    assert saved == [("someone", "argmax-vae"), ("someone", "mine"), ("team", "ours")]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_dashboard_that_cannot_be_saved_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed()
    from argmax_vae.commands import dashboard

    def refused(view: object) -> None:
        raise RuntimeError("no such entity\nand more")

    assert main(["sync", "runs/a", "--dashboard", "someone"]) == 2
    assert "name them in a command of their own" in capsys.readouterr().err
    for place in ("", "a/b/c"):
        assert main(["sync", "--dashboard", *filter(None, [place])]) == 2
        assert f"sync --dashboard={place} must be ENTITY or ENTITY/PROJECT" in capsys.readouterr().err
    monkeypatch.setattr(dashboard, "online_problem", lambda: "no server answers")
    assert main(["sync", "--dashboard", "someone"]) == 1
    assert capsys.readouterr().err == "argmax-vae: the dashboard is not saved: no server answers\n"
    monkeypatch.setattr(dashboard, "online_problem", lambda: "")
    monkeypatch.setattr(dashboard.ws.Workspace, "save", refused)
    assert main(["sync", "--dashboard", "someone"]) == 1
    assert capsys.readouterr().err == "argmax-vae: the dashboard is not saved: no such entity\n"


def test_without_the_extra_the_dashboard_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("argmax_vae.cli.sync.find_spec", lambda name: None)
    assert main(["sync", "--dashboard", "--dry-run"]) == 2
    line = "argmax-vae: sync --dashboard needs the extra: pip install 'argmax-vae[dashboard]'\n"
    assert capsys.readouterr().err == line


def test_the_sweep_file_calls_the_command_line_with_keys_that_exist() -> None:
    sweep = yaml.safe_load(SWEEP.read_text(encoding="utf-8"))
    assert sweep["command"][:3] == ["${env}", "argmax-vae", "train"]
    assert sweep["command"][-1] == "${args_no_hyphens}"
    proposed = [f"{key}={space['min']}" for key, space in sweep["parameters"].items()]
    (cell,) = compose.cells("train", [*sweep["command"][3:-1], *proposed])
    assert cell.config.tracker.name == "wandb"
    assert sweep["metric"] == {"name": "validation_bound", "goal": "minimize"}
