"""A search over values by Optuna's tree-structured Parzen estimator (Bergstra et al. 2011), judged on validation.

Every trial is a run like any other, and what the sampler proposes follows from its seed and the trials before. So the
same command goes on where an interrupted search ended: finished trials are found by their identity, and replayed.
Hydra's own Optuna plugin is not used: it needs a version of Optuna that is years old.
"""

import itertools
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from argmax_vae.commands.records import check, record_search
from argmax_vae.config.compose import Cell, cells
from argmax_vae.config.spaces import LARGEST_RANGE, spaces
from argmax_vae.errors import UsageError
from argmax_vae.files import claimed, require_writable
from argmax_vae.models.mixture import GaussianMixtureConfig
from argmax_vae.runs.provenance import commit, commits
from argmax_vae.runs.wandb_access import publish_table

METRICS: dict[str, Literal["minimize", "maximize"]] = {
    "validation_bound": "minimize",
    "validation_accuracy": "maximize",
}
"""What can be searched for, never on test data, and which way is better."""
PROPOSALS = 100
"""How often the sampler may propose points that were tried."""


def check_space(config_name: str, fixed: list[str], space: Mapping[str, Any], metric: str) -> None:
    """Raise UsageError, before any trial, for a wrong configuration at the ends or inside of a space, or at any choice,
    and for a model without the metric.
    """
    numbers = {key: values for key, values in space.items() if hasattr(values, "low")}
    choices = {key: values.choices for key, values in space.items() if key not in numbers}
    first = {key: values[0] for key, values in choices.items()}
    probes = [{key: shown(value) for key, value in chosen.items()} for chosen in zip_points(numbers)]
    points = [{**probe, **first} for probe in probes]
    points += [{**probes[0], **first, key: value} for key, values in choices.items() for value in values[1:]]
    for point in points:
        (cell,) = cells(config_name, [*fixed, *(f"{key}={value}" for key, value in point.items())])
        if metric == "validation_accuracy" and not isinstance(cell.config.model, GaussianMixtureConfig):
            raise UsageError(
                f"--metric {metric}: needs model=mixture or attributes, which classify; "
                f"model={cell.config.model.name} does not"
            )


def zip_points(numbers: Mapping[str, Any]) -> list[dict[str, float]]:
    """Three points of a space of numbers: its lower ends, its upper ends, and one inside."""
    inside = {
        key: values.low + 0.38 * (values.high - values.low) if values.step is None else values.low
        for key, values in numbers.items()
    }
    ends = [{key: getattr(values, end) for key, values in numbers.items()} for end in ("low", "high")]
    return [*ends, inside] if numbers else [{}]


def shown(value: Any) -> str:
    """A proposed value as it is tried and recorded: numbers with three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def all_points(space: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """All points of a space that has at most LARGEST_RANGE, those that look alike once; None for any other space."""
    values = []
    for each in space.values():
        if hasattr(each, "choices"):
            values.append(list(each.choices))
        elif each.single():
            values.append([each.low])
        elif each.step is None:
            return None
        else:
            number = round((each.high - each.low) / each.step) + 1
            values.append([each.low + index * each.step for index in range(number)])
    if math.prod(map(len, values)) > LARGEST_RANGE:
        return None
    points = [dict(zip(space, point, strict=True)) for point in itertools.product(*values)]
    return list({tuple(map(shown, point.values())): point for point in points}.values())


def propose(study: Any, space: Mapping[str, Any], tried: Mapping[tuple[str, ...], float]) -> Any:
    """The next trial of a point that was not tried, or None; for others the sampler is told again what they gave.

    A finite space whose points it does not find by itself is gone through in order.
    """
    for _ in range(PROPOSALS):
        trial = study.ask(space)
        point = tuple(map(shown, trial.params.values()))
        if point not in tried:
            return trial
        tell(study, trial, tried[point])
    untried = (point for point in all_points(space) or [] if tuple(map(shown, point.values())) not in tried)
    for chosen in untried:
        study.enqueue_trial(chosen)
        return study.ask(space)
    return None


def tell(study: Any, trial: Any, score: float) -> None:
    """Tell the sampler what a trial gave; NaN where it failed."""
    from optuna.trial import TrialState

    if math.isfinite(score):
        study.tell(trial, score)
    else:
        study.tell(trial, state=TrialState.FAIL)


def search(
    config_name: str, overrides: list[str], name: str, trials: int, metric: str, seed: int, results: Path
) -> pd.DataFrame:
    """Run trials one after the other, write them to `searches.csv` under a name, and return their rows, best first.

    Raises UsageError when Optuna is missing, the metric or a space is unknown, or a configuration is wrong.
    """
    try:
        import optuna
    except ImportError:
        raise UsageError("a search needs Optuna: pip install 'argmax-vae[search]'") from None
    if metric not in METRICS:
        raise UsageError(f"--metric {metric}: unknown; allowed: {', '.join(METRICS)}")
    if trials < 1:
        raise UsageError(f"--trials {trials} must be at least 1")
    if not 0 <= seed < 2**32:
        raise UsageError(f"--sampler-seed {seed} must be from 0 to {2**32 - 1}")
    fixed, space = spaces(overrides)
    check_space(config_name, fixed, space, metric)
    require_writable(results)
    check(results / "searches.csv")
    if (points := all_points(space)) is not None and len(points) < trials:
        print(f"argmax-vae: the space has {len(points)} points, each is tried once", file=sys.stderr)
        trials = len(points)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=METRICS[metric], sampler=optuna.samplers.TPESampler(seed=seed))
    rows = []
    tried: dict[tuple[str, ...], float] = {}
    for number in range(trials):
        trial = propose(study, space, tried)
        if trial is None:
            print(f"argmax-vae: {number} points tried; the sampler finds no other of three digits", file=sys.stderr)
            break
        chosen = {key: shown(value) for key, value in trial.params.items()}
        (cell,) = cells(config_name, [*fixed, *(f"{key}={value}" for key, value in chosen.items())])
        rows.append({"trial": number, "choices": described(chosen), **outcome(cell, metric)})
        score = tried[tuple(chosen.values())] = rows[-1]["score"]
        tell(study, trial, score)
        print(f"trial {number + 1}/{trials}: {rows[-1]['choices']}: {metric} {score:.4f}", file=sys.stderr)
    best_first = METRICS[metric] == "minimize"
    frame = pd.DataFrame(rows).sort_values("score", ascending=best_first, kind="stable", ignore_index=True)
    frame.insert(0, "search", name)
    frame.insert(1, "metric", metric)
    frame.insert(4, "trials", len(rows))
    frame.insert(5, "winner", [index == 0 and math.isfinite(score) for index, score in enumerate(frame["score"])])
    with claimed(results / ".lock", -1):
        record_search(results / "searches.csv", name, frame)
    if cell.config.tracker.name == "wandb":
        publish_table(cell.config.tracker, "searches", Path(cell.config.paths.runs), [results / "searches.csv"])
    return frame


def described(chosen: Mapping[str, str]) -> str:
    """The chosen values of a trial in one line."""
    return " ".join(f"{key}={value}" for key, value in chosen.items())


def outcome(cell: Cell, metric: str) -> dict[str, Any]:
    """Train the cell unless it is done; the mean of the metric over its seeds, NaN when it failed or one diverged."""
    from argmax_vae.training.fit import train

    status = train(cell)
    run = cell.run
    if status == "running":
        raise UsageError(f"another process is training {run.path}: wait for it, then run the same command again")
    score = math.nan
    if run.has_ended:
        seeds = run.seeds()
        if metric not in seeds:
            raise UsageError(f"--metric {metric}: {run.path} has none")
        if (seeds["status"] == "done").all():
            score = float(seeds[metric].mean())
    return {
        "score": score,
        "seeds": len(cell.config.seeds),
        "epochs": cell.config.trainer.epochs,
        "run": run.path.name,
        "commit": commits(run.provenance()) if run.has_ended else commit()[0],
    }
