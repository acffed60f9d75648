"""Trackers mirror a run while it goes on: one line per evaluation with mean and interval over the seeds.

The files of record are written elsewhere; losing a tracker loses no result. A tracker is shown all evaluations of the
run so far, whoever made them, and logs those that it lacks; then it is told the end. `open_tracker` chooses it by
configuration.
"""

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from argmax_vae.errors import require_one_of, require_text
from argmax_vae.files import write_atomic
from argmax_vae.markup import markdown
from argmax_vae.runs import wandb_access
from argmax_vae.runs.directory import flat
from argmax_vae.statistics import mean_interval

Row = Mapping[str, float]
NOT_AVERAGED = ("epoch", "seed")


@dataclass
class TrackerConfig:
    """`name`: of TRACKERS; `pictures`: shown at every evaluation, or at the end alone. What follows concerns wandb.

    `mode`: offline or online; `per_seed`: a curve for every seed; `group`: by default the table; `tags`: beside data,
    protocol and commit; `notes`, `entity`: as wandb has them. Where one is left at its default, the environment
    variable of wandb, such as WANDB_PROJECT, counts.
    """

    name: str = "csv"
    pictures: str = "evaluations"
    project: str = "argmax-vae"
    mode: str = "offline"
    per_seed: bool = False
    entity: str = ""
    group: str = ""
    notes: str = ""
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        require_one_of("tracker.name", self.name, TRACKERS)
        require_one_of("tracker.pictures", self.pictures, ("evaluations", "end"))
        require_one_of("tracker.mode", self.mode, ("offline", "online"))
        require_text("tracker.project", self.project)
        for name in ("entity", "group", "notes"):
            if getattr(self, name) != "":
                require_text(f"tracker.{name}", getattr(self, name))


@dataclass(frozen=True)
class RunLabels:
    """How a run is named and grouped in a tracker."""

    name: str
    group: str
    tags: tuple[str, ...]
    config: Mapping[str, Any]
    directory: Path


@dataclass(frozen=True)
class Pictures:
    """Grids of the first seed: prior samples; images above reconstructions.

    Grey (height, width) or coloured (height, width, 3), values in [0, 1].
    """

    samples: np.ndarray
    reconstructions: np.ndarray


Draw = Callable[[], Pictures]


class Tracker(Protocol):
    """Where curves go while a run is going on."""

    def log(self, history: Sequence[Row], epochs: Sequence[Row] = (), draw: Draw | None = None) -> None:
        """All evaluations so far, in their order: a row per seed with `epoch`, `seed` and metrics in nats.

        `epochs`: for every epoch of training a row with `epoch`, `train_bound`, ε or τ, and `steps_per_second`.
        `draw` makes the pictures of the last evaluation: of the networks that are the best so far.
        """
        ...

    def finish(self, rows: Sequence[Mapping[str, Any]], pictures: Pictures | None) -> None:
        """The end of a run that succeeded: a row of final numbers per seed, and pictures."""
        ...

    def close(self, outcome: str) -> None:
        """Called in any case, last: `outcome` is a key of EXIT_CODES."""
        ...


EXIT_CODES = {"done": 0, "diverged": 1, "failed": 1, "interrupted": 130}
"""How a process may leave a run, and the exit codes by which trackers know."""


def evaluations(history: Sequence[Row]) -> list[list[Row]]:
    """The rows of each evaluation."""
    return [list(rows) for _, rows in groupby(history, key=lambda row: row["epoch"])]


def summarise(rows: Sequence[Row]) -> dict[str, float]:
    """Mean and the ends of the 95 % Student-t interval of every metric over the seeds whose value is finite."""
    summary: dict[str, float] = {"epoch": rows[0]["epoch"]} if rows else {}
    for name in rows[0] if rows else ():
        if name in NOT_AVERAGED:
            continue
        values = [row[name] for row in rows if math.isfinite(row[name])]
        if not values:
            continue
        interval = mean_interval(values)
        summary[name] = interval.mean
        if interval.number > 1:
            summary[f"{name}_low"], summary[f"{name}_high"] = interval.low, interval.high
    return summary


def is_end(name: str) -> bool:
    """Whether `summarise` names the end of an interval so."""
    return name.endswith(("_low", "_high"))


def seed_curves(history: Sequence[Row], metric: str) -> dict[str, tuple[list[float], list[float]]]:
    """Epochs and values of a metric for every seed with finite ones; of several, their mean and its interval too."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for rows in evaluations(history):
        found = {f"seed {int(row['seed'])}": row[metric] for row in rows if math.isfinite(row.get(metric, math.nan))}
        if len(found) > 1:
            interval = mean_interval(list(found.values()))
            found = {"mean": interval.mean, "low": interval.low, "high": interval.high, **found}
        for name, value in found.items():
            epochs, values = curves.setdefault(name, ([], []))
            epochs.append(rows[0]["epoch"])
            values.append(value)
    return curves


class NoTracker:
    """Tracks nothing."""

    def __init__(self, config: TrackerConfig, labels: RunLabels) -> None:
        pass

    def log(self, history: Sequence[Row], epochs: Sequence[Row] = (), draw: Draw | None = None) -> None:
        pass

    def finish(self, rows: Sequence[Mapping[str, Any]], pictures: Pictures | None) -> None:
        pass

    def close(self, outcome: str) -> None:
        pass


class CsvTracker(NoTracker):
    """Keeps mean and interval curves in `tracker.csv` in the run's directory, one line per evaluation.

    How the run ended its directory says.
    """

    def __init__(self, config: TrackerConfig, labels: RunLabels) -> None:
        self.path = labels.directory / "tracker.csv"

    def log(self, history: Sequence[Row], epochs: Sequence[Row] = (), draw: Draw | None = None) -> None:
        if history:
            curves = pd.DataFrame([summarise(rows) for rows in evaluations(history)])
            write_atomic(self.path, lambda temporary: curves.to_csv(temporary, index=False))


class GrowingTracker(NoTracker):
    """A tracker to whose record epochs are only added, up to the last evaluation: `epoch` is the last that it has.

    Pictures are drawn for the evaluation that is shown when it is made: an earlier one has none in another process.
    """

    epoch: float = 0

    def __init__(self, config: TrackerConfig, labels: RunLabels) -> None:
        self.draws = config.pictures == "evaluations"

    def log(self, history: Sequence[Row], epochs: Sequence[Row] = (), draw: Draw | None = None) -> None:
        evaluated = {rows[0]["epoch"]: rows for rows in evaluations(history)}
        trained = {row["epoch"]: row for row in epochs}
        last = max(evaluated, default=0)
        for epoch in sorted({*evaluated, *trained}):
            if self.epoch < epoch <= last:
                pictures = draw() if draw and self.draws and epoch == last else None
                self.add(int(epoch), trained.get(epoch, {}), evaluated.get(epoch, []), pictures)
                self.epoch = epoch

    def add(self, epoch: int, trained: Row, rows: Sequence[Row], pictures: Pictures | None) -> None:
        """An epoch later than all before: what training gave, and what its evaluation gave, if it has one."""
        raise NotImplementedError


def final_summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means of the final numbers over the seeds that are done, half widths of their 95 % intervals, and counts."""
    done = [row for row in rows if row["status"] == "done"]
    summary: dict[str, float] = {"seeds": len(done), "diverged": len(rows) - len(done)}
    for name, value in (done[0] if done else {}).items():
        values = [row[name] for row in done]
        if name == "seed" or isinstance(value, str) or not all(map(math.isfinite, values)):
            continue
        interval = mean_interval(values)
        summary[name] = interval.mean
        if name.startswith(("test_", "validation_")) and interval.number > 1:
            summary[f"{name}_half_width"] = interval.half_width
    return summary


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same columns as a table that TensorBoard shows."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join("|" + "|".join(markdown(str(cell)) for cell in line) + "|" for line in lines)


class TensorBoardTracker(GrowingTracker):
    """Writes configuration, mean and interval curves, then final means, a table of the seeds, and pictures.

    Every process that goes on with a run writes all of it, in place of the events of the one before.
    """

    def __init__(self, config: TrackerConfig, labels: RunLabels) -> None:
        from torch.utils.tensorboard import SummaryWriter

        super().__init__(config, labels)
        directory = labels.directory / "tensorboard"
        for before in directory.glob("events.out.tfevents.*"):
            before.unlink()
        self.writer = SummaryWriter(str(directory))
        self.writer.add_text("config", markdown_table([{"key": k, "value": v} for k, v in flat(labels.config)]))

    def add(self, epoch: int, trained: Row, rows: Sequence[Row], pictures: Pictures | None) -> None:
        for name, value in {**trained, **summarise(rows)}.items():
            if name != "epoch":
                self.writer.add_scalar(name, value, epoch)
        self.show(pictures, epoch)

    def show(self, pictures: Pictures | None, epoch: int) -> None:
        for name, picture in named(pictures):
            self.writer.add_image(name, picture, epoch, dataformats="HWC"[: picture.ndim])

    def finish(self, rows: Sequence[Mapping[str, Any]], pictures: Pictures | None) -> None:
        self.show(pictures, int(self.epoch))
        self.writer.add_text("seeds", markdown_table(rows))
        for name, value in final_summary(rows).items():
            self.writer.add_scalar(f"final/{name}", value)

    def close(self, outcome: str) -> None:
        self.writer.add_text("outcome", outcome)
        self.writer.close()


LEAST_WIDTH = 480
"""Pixels that a picture is wide in a dashboard, at least."""


def named(pictures: Pictures | None) -> list[tuple[str, np.ndarray]]:
    """Pictures with their names, every pixel a square that can be seen."""
    found = [("samples", pictures.samples), ("reconstructions", pictures.reconstructions)] if pictures else []
    return [(name, enlarged(picture)) for name, picture in found]


def enlarged(picture: np.ndarray) -> np.ndarray:
    """A picture with every pixel repeated until it is `LEAST_WIDTH` wide."""
    factor = math.ceil(LEAST_WIDTH / picture.shape[1])
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


BEST = {
    "validation_bound": "min",
    **{f"validation_{name}": "max" for name in ("accuracy", "perturbed_accuracy", "clustering_accuracy")},
}
"""What wandb keeps of a curve as its summary: the direction in which it is better. Nothing is chosen on test."""
NOT_SHOWN = ("laboratory", "chosen", "tracker", "paths")
"""Sections of the configuration that say nothing of a run."""


CHARTS = ("validation_bound", "test_bound", "validation_accuracy", "test_accuracy")
"""Metrics that wandb shows as one chart of all seeds, their mean and the interval of it."""


class WandbTracker(GrowingTracker):
    """One wandb run per cell: mean curves, pictures, charts and a table of the seeds; offline by default.

    Ends of intervals are `interval/…` without charts of their own; `per_seed` adds a curve for every seed while the run
    goes on. The summary has the final numbers as `final/…`. Its steps are epochs: online a run goes on behind the last
    that the server has; offline, where every process has a directory of its own, each of these holds the run from its
    start.
    """

    def __init__(self, config: TrackerConfig, labels: RunLabels) -> None:
        import wandb

        super().__init__(config, labels)
        self.per_seed, self.name = config.per_seed, labels.name
        self.wandb = wandb
        self.history: Sequence[Row] = ()
        self.run = wandb_access.start(
            wandb_access.usable_mode(config),
            **wandb_access.naming(config, os.environ, name=labels.name, group=labels.group),
            dir=str(labels.directory),
            id=labels.directory.name.rsplit("-", 1)[-1],
            job_type="train",
            tags=[*labels.tags, *config.tags],
            config={key: value for key, value in labels.config.items() if key not in NOT_SHOWN},
        )
        if self.run.resumed:
            self.epoch = self.run.step - 1
        self.run.define_metric("epoch")
        self.run.define_metric("*", step_metric="epoch")
        for name, best in BEST.items():
            self.run.define_metric(name, step_metric="epoch", summary=best)
        self.run.define_metric("test_*", step_metric="epoch", summary="none")
        self.run.define_metric("interval/*", step_metric="epoch", hidden=True)

    def log(self, history: Sequence[Row], epochs: Sequence[Row] = (), draw: Draw | None = None) -> None:
        self.history = history
        super().log(history, epochs, draw)

    def images(self, pictures: Pictures | None) -> dict[str, Any]:
        """Pictures as wandb takes them."""
        return {
            name: self.wandb.Image((picture * 255).round().astype(np.uint8), mode="L" if picture.ndim == 2 else "RGB")
            for name, picture in named(pictures)
        }

    def add(self, epoch: int, trained: Row, rows: Sequence[Row], pictures: Pictures | None) -> None:
        found = {f"interval/{key}" if is_end(key) else key: value for key, value in summarise(rows).items()}
        values: dict[str, Any] = {**trained, **found, **self.images(pictures), "epoch": epoch}
        if self.per_seed:
            for row in rows:
                seed = int(row["seed"])
                values |= {f"seed {seed}/{name}": row[name] for name in row if name not in NOT_AVERAGED}
        self.run.log(values, step=epoch, commit=True)

    def finish(self, rows: Sequence[Mapping[str, Any]], pictures: Pictures | None) -> None:
        columns: list[str | int] = list(rows[0])
        table = self.wandb.Table(columns=columns, data=[list(row.values()) for row in rows])
        charts = {
            f"seed_curves/{metric}": self.wandb.plot.line_series(
                [x for x, _ in lines.values()], [y for _, y in lines.values()], list(lines), metric, "epoch"
            )
            for metric in CHARTS
            if (lines := seed_curves(self.history, metric))
        }
        self.run.log({"epoch": self.epoch, "seeds": table, **self.images(pictures), **charts})
        self.run.summary.update({f"final/{name}": value for name, value in final_summary(rows).items()})

    def close(self, outcome: str) -> None:
        self.run.summary["outcome"] = outcome
        if outcome == "diverged":
            self.run.alert("every seed has diverged", f"{self.name}: {self.run.dir}", level="ERROR")
        self.run.finish(exit_code=EXIT_CODES[outcome])


TRACKERS = {"none": NoTracker, "csv": CsvTracker, "tensorboard": TensorBoardTracker, "wandb": WandbTracker}


class ForgivingTracker:
    """Passes everything on to a tracker until that fails; then says so once and goes on without it."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker: Tracker | None = tracker

    def attempt(self, method: str, *arguments: Any) -> None:
        if self.tracker is None:
            return
        try:
            getattr(self.tracker, method)(*arguments)
        except Exception as error:
            reason = wandb_access.first_line(error)
            print(f"argmax-vae: tracker stopped, the run goes on without it: {reason}", file=sys.stderr)
            self.tracker = None

    def log(self, history: Sequence[Row], epochs: Sequence[Row] = (), draw: Draw | None = None) -> None:
        self.attempt("log", history, epochs, draw)

    def finish(self, rows: Sequence[Mapping[str, Any]], pictures: Pictures | None) -> None:
        self.attempt("finish", rows, pictures)

    def close(self, outcome: str) -> None:
        self.attempt("close", outcome)


def check_tracker(config: TrackerConfig) -> None:
    """Find out, before anything is trained, how wandb can be used. Raises UsageError when WANDB_MODE is no mode."""
    if config.name == "wandb":
        wandb_access.usable_mode(config)


def open_tracker(config: TrackerConfig, labels: RunLabels) -> Tracker:
    """The tracker that the configuration names, unable to fail a run: one that cannot start is told and left out."""
    disabled = config.name == "wandb" and wandb_access.usable_mode(config) == "disabled"
    try:
        return ForgivingTracker(TRACKERS["none" if disabled else config.name](config, labels))
    except Exception as error:
        reason = wandb_access.first_line(error)
        print(f"argmax-vae: tracker={config.name} cannot start, the run goes on without it: {reason}", file=sys.stderr)
        return NoTracker(config, labels)
