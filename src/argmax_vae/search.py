"""A search over values by Optuna's tree-structured Parzen estimator (Bergstra et al. 2011), judged on validation.

Every trial is a run like any other, and what the sampler proposes follows from its seed and the trials before. So the
same command goes on where an interrupted search ended: finished trials are found by their identity, and replayed.
Hydra's own Optuna plugin is not used: it needs a version of Optuna that is years old.
"""

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from argmax_vae import records, runs
from argmax_vae.config import Cell, cells, check_syntax
from argmax_vae.errors import UsageError
from argmax_vae.files import claimed, require_writable
from argmax_vae.runs import RunDirectory

METRICS: dict[str, Literal["minimize", "maximize"]] = {
    "validation_bound": "minimize",
    "validation_accuracy": "maximize",
}
"""What can be searched for, never on test data, and which way is better."""
SPACES = "KEY=interval(LOW,HIGH), KEY=tag(log,interval(LOW,HIGH)), KEY=range(FROM,TO,STEP) or KEY=A,B,C"


def split(overrides: list[str]) -> tuple[list[str], dict[str, Override]]:
    """Overrides with one value, and those that span a space by their key. Raises UsageError when none does."""
    parser = OverridesParser.create()
    check_syntax(parser, overrides)
    parsed = [(override, parser.parse_override(override)) for override in overrides]
    fixed = [text for text, override in parsed if not override.is_sweep_override()]
    spaces = {override.get_key_element(): override for _, override in parsed if override.is_sweep_override()}
    if not spaces:
        raise UsageError(f"nothing to search over: give at least one key a space, {SPACES}")
    return fixed, spaces


def distribution(override: Override) -> Any:
    """The space of a key as Optuna's distribution. Raises UsageError for bounds that span none."""
    from optuna import distributions

    value = override.value()
    try:
        if isinstance(value, IntervalSweep):
            low, high = float(value.start or 0.0), float(value.end or 0.0)
            return distributions.FloatDistribution(low, high, log="log" in value.tags)
        if isinstance(value, RangeSweep):
            numbers = list(value.range())
            if all(isinstance(number, int) for number in numbers):
                return distributions.IntDistribution(int(numbers[0]), int(numbers[-1]), step=int(value.step))
            return distributions.FloatDistribution(numbers[0], numbers[-1], step=value.step)
        if isinstance(value, ChoiceSweep):
            return distributions.CategoricalDistribution(list(override.sweep_string_iterator()))
    except (ValueError, IndexError) as error:
        raise UsageError(f"{override.input_line}: {error}") from None
    raise UsageError(f"{override.input_line}: no space to search; allowed are {SPACES}")


def check_space(config_name: str, fixed: list[str], space: Mapping[str, Any]) -> None:
    """Raise UsageError when a configuration at the lower or upper ends of a space is wrong, before any trial."""
    for end in ("low", "high"):
        ends = [f"{key}={getattr(values, end)}" for key, values in space.items() if hasattr(values, end)]
        first = [f"{key}={values.choices[0]}" for key, values in space.items() if not hasattr(values, end)]
        cells(config_name, [*fixed, *ends, *first])


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
    fixed, spaces = split(overrides)
    space = {key: distribution(override) for key, override in spaces.items()}
    check_space(config_name, fixed, space)
    require_writable(results)
    records.check(results / "searches.csv")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=METRICS[metric], sampler=optuna.samplers.TPESampler(seed=seed))
    rows = []
    for number in range(trials):
        trial = study.ask(space)
        chosen = {
            key: f"{value:.3g}" if isinstance(value, float) else str(value) for key, value in trial.params.items()
        }
        (cell,) = cells(config_name, [*fixed, *(f"{key}={value}" for key, value in chosen.items())])
        rows.append({"trial": number, "choices": described(chosen), **outcome(cell, metric)})
        score = rows[-1]["score"]
        if math.isfinite(score):
            study.tell(trial, score)
        else:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        print(f"trial {number + 1}/{trials}: {rows[-1]['choices']}: {metric} {score:.4f}", file=sys.stderr)
    best_first = METRICS[metric] == "minimize"
    frame = pd.DataFrame(rows).sort_values("score", ascending=best_first, kind="stable", ignore_index=True)
    frame.insert(0, "search", name)
    frame.insert(1, "metric", metric)
    frame.insert(4, "trials", trials)
    frame.insert(5, "winner", [index == 0 and math.isfinite(score) for index, score in enumerate(frame["score"])])
    with claimed(results / ".lock", -1):
        records.record_search(results / "searches.csv", name, frame)
    return frame


def described(chosen: Mapping[str, str]) -> str:
    """The chosen values of a trial in one line."""
    return " ".join(f"{key}={value}" for key, value in chosen.items())


def outcome(cell: Cell, metric: str) -> dict[str, Any]:
    """Train the cell unless it is done; the mean of the metric over its seeds, NaN when it failed or one diverged."""
    from argmax_vae.training import train

    status = train(cell.config, cell.plain)
    run = RunDirectory.of(cell.plain)
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
        "commit": runs.commits(run.provenance()) if run.has_ended else runs.commit()[0],
    }
