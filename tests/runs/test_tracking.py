"""Trackers: what they keep is read back from what they wrote."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from argmax_vae.errors import UsageError
from argmax_vae.runs import trackers
from argmax_vae.runs.directory import RunDirectory
from argmax_vae.runs.trackers import TRACKERS, Pictures, RunLabels, TrackerConfig, open_tracker, summarise
from helpers import cell, metrics, raise_after, seeds, train
from tracked import ROWS, labels
from wandb_records import wandb_of

FINAL = [{"seed": seed, "status": "done", "test_bound": 100.5 + seed} for seed in range(3)]
PICTURES = Pictures(np.linspace(0, 1, 64).reshape(8, 8), np.linspace(1, 0, 32).reshape(4, 8))


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


def test_pictures_are_large_enough_to_see() -> None:
    picture = np.arange(6).reshape(2, 3)
    large = trackers.enlarged(picture)
    assert large.shape == (320, 480)
    assert (large[::160, ::160] == picture).all()
    assert (large[:160, :160] == picture[0, 0]).all()
