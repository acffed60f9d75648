"""Trackers: what they keep is read back from what they wrote."""

import json
import math
import os
import socket
import struct
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from argmax_vae.cli import main
from argmax_vae.errors import UsageError
from argmax_vae.runs import trackers, wandb_access
from argmax_vae.runs.directory import RunDirectory
from argmax_vae.runs.trackers import TRACKERS, Pictures, RunLabels, TrackerConfig, open_tracker, summarise
from helpers import cell, metrics, raise_after, seeds, train

ROWS = [
    {"epoch": 5, "seed": 0, "validation_bound": 100.0, "epsilon": 0.5},
    {"epoch": 5, "seed": 1, "validation_bound": 104.0, "epsilon": 0.5},
    {"epoch": 5, "seed": 2, "validation_bound": 102.0, "epsilon": 0.5},
]
FINAL = [{"seed": seed, "status": "done", "test_bound": 100.5 + seed} for seed in range(3)]
PICTURES = Pictures(np.linspace(0, 1, 64).reshape(8, 8), np.linspace(1, 0, 32).reshape(4, 8))


def labels(directory: Path) -> RunLabels:
    config = {"seeds": [0, 1, 2], "model": {"latents": "20x2"}}
    return RunLabels("20x2 direct", "figure2", ("mnist", "as written"), config, directory)


def later(rows: list[dict[str, Any]], epoch: int, **values: float) -> list[dict[str, Any]]:
    return [{**row, "epoch": epoch, **values} for row in rows]


def test_the_summary_is_mean_and_student_interval() -> None:
    summary = summarise(ROWS)
    half = stats.t.ppf(0.975, 2) * 2 / math.sqrt(3)
    assert summary["epoch"] == 5
    assert summary["validation_bound"] == pytest.approx(102, abs=1e-12)
    assert summary["validation_bound_low"] == pytest.approx(102 - half, abs=1e-9)
    assert summary["validation_bound_high"] == pytest.approx(102 + half, abs=1e-9)
    assert "seed" not in summary


def test_the_summary_leaves_out_what_is_not_finite() -> None:
    rows = [{**ROWS[0], "validation_bound": math.nan}, *ROWS[1:]]
    assert summarise(rows)["validation_bound"] == pytest.approx(103, abs=1e-12)
    assert "validation_bound" not in summarise(later(ROWS, 5, validation_bound=math.inf))
    assert "validation_bound_low" not in summarise(ROWS[:1])


@pytest.mark.parametrize("name", ["none", "csv", "tensorboard"])
def test_every_local_tracker_takes_a_whole_run(name: str, tmp_path: Path) -> None:
    tracker = open_tracker(TrackerConfig(name), labels(tmp_path))
    tracker.log(ROWS)
    tracker.finish(FINAL, PICTURES)
    tracker.close("done")
    assert bool(list(tmp_path.iterdir())) == (name != "none")


def test_no_tracker_runs_beside_the_files_of_record(tmp_path: Path) -> None:
    run = train(tmp_path, "tracker=none")
    assert not {"tracker.csv", "wandb", "tensorboard"} & {entry.name for entry in run.path.iterdir()}


def test_csv_keeps_columns_when_metrics_come_and_go(tmp_path: Path) -> None:
    tracker = open_tracker(TrackerConfig("csv"), labels(tmp_path))
    second = [{**ROWS[0], "epoch": 10}, *later(ROWS[1:], 10, validation_bound=math.nan)]
    tracker.log([*ROWS, *second])
    tracker.log([*ROWS, *second, *later(ROWS, 15, validation_kl=3.0)])
    frame = pd.read_csv(tmp_path / "tracker.csv").set_index("epoch")
    assert list(frame["validation_bound"]) == pytest.approx([102, 100, 102])
    assert list(frame["validation_bound_low"].isna()) == [False, True, False]
    assert list(frame["epsilon"]) == [0.5, 0.5, 0.5]
    assert list(frame["validation_kl"].isna()) == [True, True, False]


def test_csv_of_a_run_that_goes_on_has_every_epoch_once(tmp_path: Path) -> None:
    first = open_tracker(TrackerConfig("csv"), labels(tmp_path))
    before = [row for epoch in (5, 10, 15) for row in later(ROWS, epoch, epsilon=0.1)]
    first.log(before)
    second = open_tracker(TrackerConfig("csv"), labels(tmp_path))
    second.log([*before[:3], *later(ROWS, 10, epsilon=0.2)])
    frame = pd.read_csv(tmp_path / "tracker.csv")
    assert list(frame["epoch"]) == [5, 10]
    assert list(frame["epsilon"]) == pytest.approx([0.1, 0.2])


def events_of(run: RunDirectory) -> Any:
    """What TensorBoard reads of a run, in the order of its files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(run.path / "tensorboard"))
        events.Reload()
    return events


def text_of(events: Any, name: str) -> list[str]:
    """All texts of this name."""
    return [event.tensor_proto.string_val[0].decode() for event in events.Tensors(f"{name}/text_summary")]


def test_tensorboard_events_hold_curves_and_pictures(tmp_path: Path) -> None:
    run = train(tmp_path, "tracker=tensorboard", "seeds=[0,1]")
    assert run.status == "done", run.reason
    events = events_of(run)
    expected = metrics(run).groupby("epoch")["validation_bound"].mean()
    found = events.Scalars("validation_bound")
    assert [point.step for point in found] == list(expected.index)
    assert [point.value for point in found] == pytest.approx(list(expected), rel=1e-6)
    assert {"validation_bound_low", "validation_bound_high", "test_kl", "epsilon"} <= set(events.Tags()["scalars"])
    assert set(events.Tags()["images"]) == {"samples", "reconstructions"}
    assert [picture.step for picture in events.Images("samples")] == [1, 2, 2]
    (final,) = events.Scalars("final/test_bound")
    assert final.value == pytest.approx(seeds(run)["test_bound"].mean(), rel=1e-6)
    assert "|estimator.name|direct|" in text_of(events, "config")[0]
    assert text_of(events, "seeds")[0].count("|done|") == 2


def test_tensorboard_shows_a_run_whose_process_was_killed_once(tmp_path: Path) -> None:
    """The killed one had logged an epoch behind the checkpoint from which the run goes on."""
    killed = trackers.TensorBoardTracker(TrackerConfig("tensorboard"), labels(tmp_path))
    killed.log([*ROWS, *later(ROWS, 10)])
    killed.writer.flush()
    goes_on = open_tracker(TrackerConfig("tensorboard"), labels(tmp_path))
    goes_on.log(ROWS)
    goes_on.log([*ROWS, *later(ROWS, 10)])
    goes_on.close("done")
    assert [point.step for point in events_of(RunDirectory(tmp_path)).Scalars("validation_bound")] == [5, 10]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match=r"tracker\.name=mlflow must be one of none, csv"):
        TrackerConfig("mlflow")
    with pytest.raises(UsageError, match=r"tracker\.mode=cloud"):
        TrackerConfig(mode="cloud")


def test_a_tracker_that_cannot_start_is_told_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(config: TrackerConfig, run: RunLabels) -> Any:
        raise RuntimeError("disk quota exceeded\nsecond line")

    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", broken)
    tracker = open_tracker(TrackerConfig("tensorboard"), labels(tmp_path))
    tracker.log(ROWS)
    tracker.close("done")
    told = "argmax-vae: tracker=tensorboard cannot start, the run goes on without it: disk quota exceeded\n"
    assert capsys.readouterr().err == told


def test_every_tracker_is_tested() -> None:
    assert set(TRACKERS) == {"none", "csv", "tensorboard", "wandb"}


@pytest.fixture
def quiet_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """wandb as a user without account and network has it, writing nothing outside the test's directory."""
    for name, value in {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_CONSOLE": "off",
        "WANDB_DISABLE_GIT": "true",
        "WANDB_DISABLE_CODE": "true",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_X_DISABLE_STATS": "true",
        "WANDB_CACHE_DIR": str(tmp_path / "cache"),
        "WANDB_CONFIG_DIR": str(tmp_path / "config"),
        "WANDB_DATA_DIR": str(tmp_path / "data"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    yield
    import wandb

    wandb.teardown()


def records_of(log: Path) -> list[Any]:
    """The records of an offline run: protocol buffers in a LevelDB log (32 KiB blocks) after 7 bytes of header.

    Each piece has a checksum (4 bytes), a length (2) and a type (1): whole, first, middle or last.
    """
    from wandb.proto import wandb_internal_pb2

    content, position, pieces, records = log.read_bytes(), 7, b"", []
    assert content[:4] == b":W&B"
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack("<HB", content[position + 4 : position + 7])
        pieces += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(pieces)
            records.append(record)
            pieces = b""
    return records


def items_of(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


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


def test_curves_of_seeds_leave_out_what_is_not_finite() -> None:
    rows = [{"epoch": 1, "seed": seed, "test_bound": value} for seed, value in ((0, 2.0), (1, 4.0))]
    rows += [{"epoch": 2, "seed": 0, "test_bound": 1.0}, {"epoch": 2, "seed": 1, "test_bound": math.nan}]
    found = trackers.seed_curves(rows, "test_bound")
    assert found["seed 0"] == ([1, 2], [2.0, 1.0])
    assert found["seed 1"] == ([1], [4.0])
    assert found["mean"] == ([1], [3.0])
    assert found["high"][1][0] == pytest.approx(3 + 12.706204736)
    assert trackers.seed_curves(rows, "test_accuracy") == {}


def test_final_summary_counts_diverged_seeds_and_averages_the_others() -> None:
    rows = [{"seed": 0, "status": "done", "test_bound": 2.0, "seconds": 5.0, "path": "compiled"}]
    rows += [
        rows[0] | {"seed": 1, "test_bound": 4.0},
        rows[0] | {"seed": 2, "status": "diverged", "test_bound": math.nan},
    ]
    found = trackers.final_summary(rows)
    assert found == {
        **{"seeds": 2, "diverged": 1, "test_bound": 3.0, "seconds": 5.0},
        "test_bound_half_width": pytest.approx(12.706204736),
    }


class BrokenTracker:
    """Starts, then fails at everything."""

    def log(self, history: object, epochs: object = (), draw: object = None) -> None:
        raise OSError("disk full\nand more")

    def finish(self, rows: object, pictures: object) -> None:
        raise AssertionError("called after it failed")

    def close(self, outcome: str) -> None:
        raise AssertionError("called after it failed")


def test_a_tracker_that_fails_is_left_behind_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    tracker = trackers.ForgivingTracker(BrokenTracker())
    tracker.log([{"epoch": 1, "seed": 0}])
    tracker.finish([], trackers.Pictures(np.zeros((1, 1)), np.zeros((1, 1))))
    tracker.close("done")
    assert capsys.readouterr().err.splitlines() == [
        "argmax-vae: tracker stopped, the run goes on without it: disk full"
    ]


def wandb_of(run: RunDirectory) -> tuple[list[int], int, dict[str, Any]]:
    """Steps of the curves, exit code and summary of the directory that `sync` uploads."""
    import wandb

    wandb.teardown()
    (last,) = [path for path in wandb_access.offline_runs(run.path.parent) if path.parents[1] == run.path]
    (log,) = last.glob("*.wandb")
    records = records_of(log)
    lines = [items_of(record.history.item) for record in records if record.WhichOneof("record_type") == "history"]
    (code,) = [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"]
    summary = [items_of(record.summary.update) for record in records if record.WhichOneof("record_type") == "summary"]
    logged = [line for line in lines if "validation_bound" in line]
    assert [line["epoch"] for line in logged] == [line["_step"] for line in logged]
    final = {name: value for each in summary for name, value in each.items() if name.startswith(("final/", "outcome"))}
    return [line["epoch"] for line in logged], code, final


def mirrored(run: RunDirectory, name: str) -> tuple[list[int], str, bool]:
    """Epochs in a tracker's record of a run, the outcome that it says, and whether it has the final numbers."""
    if name == "csv":
        frame = pd.read_csv(run.path / "tracker.csv")
        return list(frame["epoch"]), run.status, run.has_ended
    if name == "tensorboard":
        events = events_of(run)
        (outcome,) = text_of(events, "outcome")
        finished = "final/test_bound" in events.Tags()["scalars"]
        return [point.step for point in events.Scalars("validation_bound")], outcome, finished
    epochs, code, summary = wandb_of(run)
    assert trackers.EXIT_CODES[summary["outcome"]] == code
    return epochs, summary["outcome"], "final/test_bound" in summary


@pytest.mark.usefixtures("quiet_wandb")
@pytest.mark.parametrize("name", sorted(set(TRACKERS) - {"none"}))
def test_on_every_path_the_whole_history_is_tracked_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failed, interrupted between checkpoints, finished, continued with more epochs, joined with more seeds."""
    overrides = (f"tracker={name}", "trainer.epochs=3", "seeds=[0]", "runtime.checkpoint_every=2")
    run = RunDirectory.of(cell(tmp_path, *overrides).config_dict)
    with monkeypatch.context() as broken:
        raise_after(broken, 1, RuntimeError("node lost"))
        train(tmp_path, *overrides)
    assert mirrored(run, name) == ([1], "failed", False)
    with monkeypatch.context() as interrupted:
        raise_after(interrupted, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, *overrides)
    assert mirrored(run, name) == ([1, 2], "interrupted", False)
    train(tmp_path, *overrides)
    assert mirrored(run, name) == ([1, 2, 3], "done", True)
    longer = train(tmp_path, *overrides, "trainer.epochs=4")
    assert mirrored(longer, name) == ([1, 2, 3, 4], "done", True)
    joined = train(tmp_path, *overrides, "seeds=[0,1]")
    assert "joins" in joined.provenance()
    assert mirrored(joined, name) == ([1, 2, 3], "done", True)


class Kept(trackers.GrowingTracker):
    """Keeps what is added, and the epochs that have pictures."""

    def __init__(self, config: TrackerConfig, labels: RunLabels) -> None:
        super().__init__(config, labels)
        self.lines: list[tuple[int, float, int]] = []
        self.drawn: list[int] = []

    def add(self, epoch: int, trained: trackers.Row, rows: Sequence[trackers.Row], pictures: Pictures | None) -> None:
        self.lines.append((epoch, trained.get("train_bound", math.nan), len(rows)))
        if pictures is not None:
            self.drawn.append(epoch)


def test_every_epoch_up_to_the_last_evaluation_is_added_once() -> None:
    tracker = Kept(TrackerConfig(), labels(Path()))
    epochs = [{"epoch": epoch, "train_bound": 100.0 - epoch} for epoch in range(1, 13)]
    tracker.log(ROWS, epochs[:5])
    tracker.log([*ROWS, *later(ROWS, 10)], epochs)
    expected = [(epoch, 100.0 - epoch, 3 if epoch in (5, 10) else 0) for epoch in range(1, 11)]
    assert tracker.lines == expected
    tracker.log([*ROWS, *later(ROWS, 10)], epochs)
    assert tracker.lines == expected
    assert tracker.drawn == []


@pytest.mark.parametrize(("when", "drawn"), [("evaluations", [5, 15]), ("end", [])])
def test_pictures_are_drawn_for_the_last_evaluation_where_it_is_new(when: str, drawn: list[int]) -> None:
    tracker = Kept(TrackerConfig(pictures=when), labels(Path()))
    tracker.log(ROWS, draw=lambda: PICTURES)
    tracker.log(ROWS, draw=lambda: PICTURES)
    tracker.log([*ROWS, *later(ROWS, 10), *later(ROWS, 15)], draw=lambda: PICTURES)
    assert tracker.drawn == drawn


def test_epochs_of_training_are_tracked_also_behind_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ("tracker=tensorboard", "trainer.epochs=4", "trainer.evaluate_every=2", "runtime.checkpoint_every=1")
    with monkeypatch.context() as interrupted:
        raise_after(interrupted, 3, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, *overrides)
    run = train(tmp_path, *overrides)
    events = events_of(run)
    assert [point.step for point in events.Scalars("train_bound")] == [1, 2, 3, 4]
    assert [point.step for point in events.Scalars("validation_bound")] == [2, 4]
    assert min(point.value for point in events.Scalars("steps_per_second")) > 0
    bounds = [point.value for point in events.Scalars("train_bound")]
    assert bounds[-1] < bounds[0]


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


def test_pictures_are_large_enough_to_see() -> None:
    picture = np.arange(6).reshape(2, 3)
    large = trackers.enlarged(picture)
    assert large.shape == (320, 480)
    assert (large[::160, ::160] == picture).all()
    assert (large[:160, :160] == picture[0, 0]).all()


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
