"""wandb: what it keeps of runs is read back from its files, and what it lacks is recorded and told."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from argmax_vae.cli import main
from argmax_vae.errors import UsageError
from argmax_vae.runs import trackers, wandb_access
from argmax_vae.runs.directory import RunDirectory
from argmax_vae.runs.trackers import TrackerConfig, open_tracker
from helpers import cell, metrics, seeds, train
from tracked import ROWS, labels
from wandb_records import items_of, records_of, wandb_of


def charted(history: list[dict[str, Any]], log: Path) -> list[float]:
    """The means in the chart of the test bound, which has curves of two seeds too."""
    (line,) = [line for line in history if "seed_curves/test_bound_table/path" in line]
    chart = json.loads((log.parent / "files" / line["seed_curves/test_bound_table/path"]).read_text())
    assert {name for _, name, _ in chart["data"]} == {"seed 4", "seed 6", "mean", "low", "high"}
    return sorted(value for _, name, value in chart["data"] if name == "mean")


@pytest.mark.usefixtures("quiet_wandb")
def test_wandb_mirrors_a_run_offline(tmp_path: Path) -> None:
    import wandb

    run = train(
        tmp_path / "runs",
        "tracker=wandb",
        "tracker.per_seed=true",
        "tracker.project=mine",
        "tracker.notes=a word",
        "tracker.tags=[mine too]",
        "seeds=[4,6]",
        "table=figure2",
    )
    assert run.status == "done", (run.path / "error.txt").read_text()
    wandb.teardown()
    (log,) = run.path.glob("wandb/offline-run-*/*.wandb")
    records = records_of(log)

    (start,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert (start.project, start.run_group, start.job_type) == ("mine", "figure2", "train")
    assert start.run_id == run.path.name.rsplit("-", 1)[1]
    assert "digits" in start.tags
    config = {item.key: json.loads(item.value_json) for item in start.config.update}
    config_dict = run.config()
    assert config["model"] == config_dict["model"]
    assert config["seeds"] == [4, 6]
    assert not {"laboratory", "paths", "tracker"} & set(config)
    assert start.display_name == "3x4 direct, ε = 0.1, KL analytic"
    assert (start.notes, "mine too" in start.tags) == ("a word", True)

    history = [items_of(record.history.item) for record in records if record.WhichOneof("record_type") == "history"]
    curves = metrics(run)
    logged = [line for line in history if "validation_bound" in line]
    assert [line["epoch"] for line in logged] == [1, 2]
    for line in logged:
        values = curves[curves["epoch"] == line["epoch"]].set_index("seed")["validation_bound"]
        assert line["validation_bound"] == pytest.approx(values.mean(), rel=1e-9)
        assert line["interval/validation_bound_low"] < values.min()
        assert line["interval/validation_bound_high"] > values.max()
        assert not any(name.startswith("validation_bound_") for name in line)
        assert line["seed 4/validation_bound"] == pytest.approx(values[4], rel=1e-9)
        assert line["seed 6/validation_bound"] == pytest.approx(values[6], rel=1e-9)

    (last,) = [line for line in history if line.get("seeds/_type") == "table-file"]
    table = json.loads((log.parent / "files" / last["seeds/path"]).read_text())
    frame = pd.DataFrame(table["data"], columns=table["columns"])
    assert list(frame["seed"]) == [4, 6]
    assert list(frame["test_bound"]) == pytest.approx(list(seeds(run)["test_bound"]), rel=1e-9)
    assert charted(history, log) == pytest.approx(sorted(curves.groupby("epoch")["test_bound"].mean()), rel=1e-9)
    for name, shape in (("samples", (6 * 46, 6 * 91)), ("reconstructions", (6 * 19, 6 * 91))):
        assert (last[f"{name}/height"], last[f"{name}/width"]) == shape
        assert all((log.parent / "files" / line[f"{name}/path"]).is_file() for line in [*logged, last])

    defined = {record.metric.name: record.metric for record in records if record.WhichOneof("record_type") == "metric"}
    bound, accuracy = defined["validation_bound"], defined["validation_accuracy"]
    assert {bound.step_metric, accuracy.step_metric} == {"epoch"}
    assert bound.summary.min
    assert accuracy.summary.max
    assert not any(name.startswith("test_") for name in defined)
    globs = {record.metric.glob_name: record.metric for record in records if record.metric.glob_name}
    assert globs["test_*"].summary.none
    assert globs["interval/*"].options.hidden
    summaries = [items_of(record.summary.update) for record in records if record.WhichOneof("record_type") == "summary"]
    final = {name: value for summary in summaries for name, value in summary.items() if name.startswith("final/")}
    assert final["final/test_bound"] == pytest.approx(seeds(run)["test_bound"].mean(), rel=1e-9)
    assert (final["final/seeds"], final["final/diverged"]) == (2, 0)
    assert any(record.WhichOneof("record_type") == "exit" for record in records)


@pytest.mark.usefixtures("quiet_wandb")
def test_a_table_is_an_artifact_and_what_is_not_uploaded_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    csv = tmp_path / "figure2.csv"
    csv.write_text("n,test_bound\n20,126.5\n")
    wandb_access.publish_table(TrackerConfig("wandb"), "figure2", tmp_path, [csv])
    wandb.teardown()
    (log,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    records = records_of(log)
    (start,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert (start.run_group, start.job_type) == ("figure2", "report")
    artifacts = [record.request.log_artifact.artifact for record in records if record.request.HasField("log_artifact")]
    artifacts += [record.artifact for record in records if record.WhichOneof("record_type") == "artifact"]
    (table,) = [artifact for artifact in artifacts if artifact.type == "table"]
    assert table.name == "figure2"
    history = [items_of(record.history.item) for record in records if record.WhichOneof("record_type") == "history"]
    (shown,) = [line for line in history if "figure2/_type" in line]
    content = json.loads((log.parent / "files" / shown["figure2/path"]).read_text())
    assert content["columns"] == ["n", "test_bound"]
    assert content["data"] == [["20", "126.5"]]
    capsys.readouterr()
    assert main(["sync", "--runs", str(tmp_path), "--dry-run"]) == 0
    assert capsys.readouterr().out == f"{log.parent}\n"
    log.with_name(f"{log.name}.synced").touch()
    assert wandb_access.offline_runs(tmp_path) == []
    assert main(["sync", "--runs", str(tmp_path)]) == 0
    assert "nothing of wandb's to upload" in capsys.readouterr().err


@pytest.mark.usefixtures("quiet_wandb")
def test_wandb_alerts_when_every_seed_has_diverged(tmp_path: Path) -> None:
    import wandb

    tracker = trackers.WandbTracker(TrackerConfig("wandb"), labels(tmp_path))
    tracker.log(ROWS)
    tracker.close("diverged")
    wandb.teardown()
    (log,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    alerts = [record.alert for record in records_of(log) if record.WhichOneof("record_type") == "alert"]
    alerts += [record.request.alert for record in records_of(log) if record.WhichOneof("record_type") == "request"]
    assert "every seed has diverged" in {alert.title for alert in alerts}


@pytest.mark.usefixtures("quiet_wandb")
def test_a_finished_run_is_recorded_for_wandb_from_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it would have been from the start: the same id, curves and final numbers. A dry run only lists it."""
    monkeypatch.setattr(wandb_access, "online_problem", lambda: "no network")
    overrides = ("trainer.epochs=3", "seeds=[0,1]")
    run = train(tmp_path / "later", *overrides)
    at_once = train(tmp_path / "at_once", *overrides, "tracker=wandb")
    assert main(["sync", str(run.path), "--dry-run"]) == 0
    assert (capsys.readouterr().out, (run.path / "wandb").exists()) == (f"{run.path}\n", False)
    assert main(["sync", str(run.path)]) == 1
    (directory,) = run.path.glob("wandb/offline-run-*")
    assert capsys.readouterr().out == f"{directory}\n"
    (log,), (other,) = directory.glob("*.wandb"), at_once.path.glob("wandb/offline-run-*/*.wandb")
    assert log.stem == other.stem == f"run-{run.path.name.rsplit('-', 1)[1]}"
    epochs, code, final = wandb_of(run)
    *same, expected = wandb_of(at_once)
    assert [epochs, code] == same == [[1, 2, 3], 0]
    assert final["outcome"] == expected["outcome"] == "done"
    for name in ("final/test_bound", "final/test_kl", "final/test_bound_half_width"):
        assert final[name] == pytest.approx(expected[name])
    assert main(["sync", str(run.path), "--dry-run"]) == 0
    assert "wandb has its record already" in capsys.readouterr().err
    assert len(list(run.path.glob("wandb/offline-run-*"))) == 1


def test_a_run_that_is_not_finished_is_not_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunDirectory.of(cell(tmp_path).config_dict)
    run.start(cell(tmp_path).config_dict)
    assert main(["sync", str(run.path), "--dry-run"]) == 2
    assert f"{run.path} is interrupted, not done" in capsys.readouterr().err
    assert not (run.path / "wandb").exists()


def test_the_last_of_wandbs_directories_is_found_within_a_second_too(tmp_path: Path) -> None:
    """wandb numbers the directories of a run that starts more than once in a second."""
    folder = tmp_path / "digits-direct-0123abcdef" / "wandb"
    for name in ("144745-0123abcdef", "144746-0123abcdef", *(f"144746-0123abcdef-{n}" for n in (1, 2, 10))):
        made = folder / f"offline-run-20261126_{name}"
        made.mkdir(parents=True)
        (made / "run-0123abcdef.wandb").touch()
    assert [path.name for path in wandb_access.offline_runs(tmp_path)] == ["offline-run-20261126_144746-0123abcdef-10"]


@pytest.mark.parametrize(
    ("configured", "environment", "expected"),
    [
        ("offline", {}, "offline"),
        ("online", {}, "online"),
        ("online", {"WANDB_MODE": "offline"}, "offline"),
        ("online", {"WANDB_MODE": "dryrun"}, "offline"),
        ("offline", {"WANDB_MODE": "online"}, "online"),
        ("offline", {"WANDB_MODE": "disabled"}, "disabled"),
        ("online", {"WANDB_MODE": "online", "WANDB_DISABLED": "true"}, "disabled"),
        ("online", {"WANDB_DISABLED": "false"}, "online"),
    ],
)
def test_variables_of_wandb_come_first(configured: str, environment: dict[str, str], expected: str) -> None:
    assert wandb_access.chosen_mode(configured, environment) == expected


def test_a_mode_that_wandb_does_not_have_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "cloud")
    with pytest.raises(UsageError, match="WANDB_MODE=cloud must be one of online, offline, disabled"):
        trackers.check_tracker(TrackerConfig("wandb"))
    trackers.check_tracker(TrackerConfig("csv"))


def test_where_wandb_is_disabled_nothing_is_tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DISABLED", "true")
    tracker = open_tracker(TrackerConfig("wandb"), labels(tmp_path))
    tracker.log(ROWS)
    tracker.close("done")
    wandb_access.publish_table(TrackerConfig("wandb"), "figure2", tmp_path, [])
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def closed_server(quiet_wandb: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a server that nobody is, which wandb is told to use online."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{found.getsockname()[1]}"
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", url)
    return url


def test_without_a_network_runs_are_recorded_offline_and_that_is_said_once(
    closed_server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(tmp_path, "tracker=wandb", "tracker.mode=online", "trainer.epochs=1")
    train(tmp_path, "tracker=wandb", "tracker.mode=online", "trainer.epochs=1", "seeds=[7]")
    lines = [line for line in capsys.readouterr().err.splitlines() if "argmax-vae:" in line]
    told = f"argmax-vae: wandb records offline: {closed_server} does not answer; `argmax-vae sync` uploads it later"
    assert lines == [told]
    assert wandb_of(run)[:2] == ([1], 0)
    os.environ["WANDB_MODE"] = "online"
    assert main(["sync", "--runs", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"argmax-vae: nothing is uploaded: {closed_server} does not answer\n"


def test_a_server_that_answers_without_an_account_is_not_used(
    closed_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wandb_access, "answers", lambda url: True)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    trackers.check_tracker(TrackerConfig("wandb", mode="online"))
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("argmax-vae: wandb records offline: ")
    assert "API key" in line
    assert os.environ["WANDB_MODE"] == "offline"


def test_a_server_that_fails_later_is_left_for_offline(
    closed_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    real = wandb.init

    def init(mode: str, **choices: Any) -> Any:
        if mode == "online":
            raise TimeoutError("no answer within 30 s\nand more")
        return real(mode=mode, **choices)

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb_access, "online_problem", str)
    tracker = open_tracker(TrackerConfig("wandb", mode="online"), labels(tmp_path))
    tracker.close("failed")
    told = "argmax-vae: wandb records offline: no answer within 30 s; `argmax-vae sync` uploads it later\n"
    assert told in capsys.readouterr().err
    assert list(tmp_path.glob("wandb/offline-run-*"))


def test_wandb_is_named_by_the_configuration_then_the_environment_then_us() -> None:
    ours = {"name": "20x2 direct", "group": "figure2"}
    config_dict = trackers.TrackerConfig(name="wandb")
    assert wandb_access.naming(config_dict, {}, **ours) == {"project": "argmax-vae", **ours}
    environment = {"WANDB_PROJECT": "theirs", "WANDB_RUN_GROUP": "group", "WANDB_NAME": "name", "WANDB_ENTITY": "lab"}
    assert wandb_access.naming(config_dict, environment, **ours) == {}
    chosen = trackers.TrackerConfig(name="wandb", project="mine", entity="us", group="all", notes="why")
    assert wandb_access.naming(chosen, environment, **ours) == {
        "project": "mine",
        "entity": "us",
        "group": "all",
        "notes": "why",
    }
