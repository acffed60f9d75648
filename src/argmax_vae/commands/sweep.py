"""From the command line to runs: checks all cells first, lets an engine train them, then writes the table."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import TypeAlias

from argmax_vae.commands.records import Entry, check, merge
from argmax_vae.config import launchers
from argmax_vae.config.compose import Cell, as_yaml, cells
from argmax_vae.config.options import primary_configs
from argmax_vae.errors import BAD_USAGE, DONE, SOME_FAILED, UsageError
from argmax_vae.files import claimed, remove_all_leftovers, require_writable
from argmax_vae.report import durations, records
from argmax_vae.report.labels import FIGURES, STATED
from argmax_vae.report.publish import publisher
from argmax_vae.runs.directory import ENDED, RunDirectory, identity
from argmax_vae.runs.wandb_access import publish_table
from argmax_vae.statistics import mean_interval

ALL = "all"
"""What stands for every table, in the order of `TABLES`."""
TABLES = (
    *(
        "figure2_search",
        "figure2_search_gumbel_softmax",
        "figure2",
        "figure2_control_variates",
        "figure2_imle",
        "section61",
    ),
    *("estimators_search", "estimators_search_gumbel_rao", "estimators", "figure1", "figure1_20x2"),
    *("figure3_search", "figure3_search_gumbel_softmax", "figure3", "figure3_2019"),
    *("figure6_search", "figure6_search_gumbel_softmax", "figure6", "figure6_others", "figure6_gradients"),
    *("figure4_search", "figure4_search_gumbel_softmax", "figure4"),
    *("figure4_component_bias_search", "figure4_component_bias"),
    *("benchmark_search", "benchmark_search_two_layers", "benchmark_search_epsilon", "benchmark_search_temperature"),
    *("benchmark", "benchmark_two_layers", "benchmark_grey"),
)
"""The configs of all tables, a search before the table that uses what it found."""


def composed_yaml(config_name: str, overrides: list[str]) -> str:
    """The configuration of one run as YAML, interpolations resolved. Raises UsageError."""
    (cell,) = single(cells(config_name, overrides))
    return as_yaml(cell.config_dict)


def single(found: list[Cell]) -> list[Cell]:
    """The list itself if it has one cell. Raises UsageError otherwise."""
    if len(found) != 1:
        raise UsageError(f"these overrides select {len(found)} runs; add -m to train all, or give one value per key")
    return found


def train_cell(found: Sequence[Cell], number: int) -> tuple[str, str]:
    """What an engine calls for every cell: train it; its status and, if it is refused, why.

    An error of one cell stops no other. Hydra composes a cell again where the engine runs it, but the environment may
    differ there: the cell that was checked is the one that is trained.
    """
    from argmax_vae.training.fit import train

    cell = found[number]
    try:
        return train(cell), ""
    except UsageError as error:
        return "refused", str(error)


def launch(config_name: str, overrides: list[str], multirun: bool, dry_run: bool = False) -> int:
    """Train what the overrides select, or only list it; the exit code. All is checked before the first starts."""
    found = cells(config_name, overrides)
    if not multirun:
        single(found)
    if dry_run:
        print(*listed(found), sep="\n")
        tell_time(found)
        return DONE
    code = launch_cells(overrides, found)
    for cell in found:
        if not cell.run.has_ended:
            continue
        try:
            print(summary(cell.run))
        except UsageError as error:
            print(f"argmax-vae: {error}", file=sys.stderr)
            code = BAD_USAGE if len(found) == 1 else SOME_FAILED
    return code


def summary(run: RunDirectory) -> str:
    """A line for a finished run: its directory, and its mean test bounds (nats) and accuracy with 95 % intervals.

    Raises UsageError when its configuration or its numbers are damaged.
    """
    run.config()
    seeds = run.seeds()
    done = seeds[seeds["status"] == "done"]
    if done.empty:
        return f"{run.path}: no seed finished, {len(seeds)} diverged"
    parts = []
    for column, name, factor, unit in (
        ("test_bound", "test bound", 1, "nats"),
        ("test_importance_weighted", "importance-weighted", 1, "nats"),
        ("test_accuracy", "test accuracy", 100, "%"),
    ):
        if column in done and done[column].notna().all():
            interval = mean_interval(factor * done[column])
            width = f" ± {interval.half_width:.2f}" if len(done) > 1 else ""
            parts.append(f"{name} {interval.mean:.2f}{width} {unit}")
    return f"{run.path}: {', '.join(parts)} ({len(done)} of {len(seeds)} seeds, {done['epochs'].iloc[0]:g} epochs)"


def launch_cells(overrides: list[str], found: list[Cell]) -> int:
    check_prerequisites(found, launchers.chosen(overrides) in launchers.ON_THIS_MACHINE)
    refused: list[str] = []
    for cell in found:
        cell.run.tidy()
    if len(found) > 1:
        found = [replace(cell, place=f"run {number} of {len(found)}") for number, cell in enumerate(found, 1)]
    pending = [cell for cell in found if not cell.run.has_ended]
    if launchers.chosen(overrides) == "basic":
        pending = [replace(cell, behind=len(pending) - number) for number, cell in enumerate(pending, 1)]
    while pending:
        jobs = [cell.job for cell in pending]
        answers, problem = launchers.launch(found[0].home, found[0].config_name, jobs, partial(train_cell, pending))
        if problem:
            print(f"argmax-vae: {problem}", file=sys.stderr)
        refused += [reason for status, reason in answers if status == "refused"]
        elsewhere = [cell for cell, (status, _) in zip(pending, answers, strict=False) if status == "running"]
        pending = [cell for cell in elsewhere if cell.run.status not in (*ENDED, "running")]
    for reason in dict.fromkeys(refused):
        print(f"argmax-vae: {reason}", file=sys.stderr)
    statuses = [(run, run.status) for run in (cell.run for cell in found)]
    unfinished = [run for run, status in statuses if status not in ("done", "running")]
    for run, status in statuses:
        if status == "running":
            print(f"argmax-vae: another process is training {run.path}", file=sys.stderr)
    if unfinished and len(refused) == len(found):
        return BAD_USAGE
    for run in unfinished:
        reason = "no seed finished, all diverged" if run.status == "diverged" else run.reason
        print(f"argmax-vae: {run.status}: {run.path}: {reason}".rstrip(": "), file=sys.stderr)
    return SOME_FAILED if unfinished else DONE


def check_prerequisites(found: list[Cell], on_this_machine: bool = True) -> None:
    """Raise UsageError when a cell that is not done lacks its device, data or directory, before any cell starts.

    So it is when a cell that is done was trained on other data. Devices of other machines are for their jobs to check.
    """
    from argmax_vae.training.prerequisites import prerequisites, require_same_data

    checked = set()
    for cell in found:
        config = cell.config
        if cell.run.has_ended:
            require_same_data(cell.run, config)
            continue
        needs = (
            config.runtime.device,
            config.runtime.processes,
            config.runtime.precision,
            config.paths.runs,
            config.paths.data,
            str(config.data),
            str(config.model),
            str(config.supervision),
            str(config.seeds),
            config.trainer.batch,
            config.trainer.epochs,
        )
        if needs not in checked:
            here = config.runtime if on_this_machine else replace(config.runtime, device="cpu", precision="float32")
            prerequisites(replace(config, runtime=here))
        checked.add(needs)


def listed(found: Sequence[Cell]) -> list[str]:
    """A line for each cell, in columns: its state, what it is, and the name of its run."""
    rows = [described(cell) for cell in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def described(cell: Cell) -> tuple[str, ...]:
    """The columns of a cell's line."""
    config, run = cell.config, cell.run
    weight = config.supervision.labelled_weight
    labels = f"{config.supervision.labels} labels" + (f" of weight {weight:g}, " if weight != 1 else ", ")
    budget = f"{len(config.seeds)} seeds, {config.trainer.epochs} epochs"
    return (
        run.status,
        config.protocol,
        config.model.latents,
        config.estimator.name,
        f"KL {config.objective.kl}",
        config.estimator.describe_schedule(),
        (labels if config.supervision.labels else "") + budget,
        run.path.name,
    )


def require_table(name: str, found: list[Cell]) -> None:
    """Raise UsageError when cells of a config belong to no table, or are other than what a table says of them."""
    if not all(cell.config.table for cell in found):
        raise UsageError(f"config {name} names no table; use `argmax-vae train --config-name {name}`")
    for cell in found:
        for (section, key), only in STATED.get(cell.config.table, {}).items():
            value = cell.config_dict[section].get(key)
            if value != only:
                raise UsageError(
                    f"{section}.{key}={value} does not fit table={cell.config.table}, which is of {only}; "
                    "name another table: table=NAME"
                )


def require_one_run(found: list[Cell]) -> None:
    """Raise UsageError when several runs would have the same cell of a table, which has the rows of one alone."""
    chosen: dict[tuple[object, ...], Cell] = {}
    for cell in found:
        config = cell.config
        if config.table.endswith(records.SEARCH):
            continue
        names = (config.table, config.protocol, config.estimator.name, config.data.name)
        key = (*names, config.model.latents, config.supervision.labels)
        other = chosen.setdefault(key, cell)
        if other is not cell:
            what = " and ".join(
                " ".join(sorted({*a} - {*b})) for a, b in permutations((other.overrides, cell.overrides))
            )
            raise UsageError(
                f"{what}: two runs for one cell of table={config.table}; give one value, "
                f"or keep the rows of all: table={config.table}_search"
            )


def require_records(results: Path) -> None:
    """Raise UsageError when a file of record is there and could not be merged into, before anything is trained."""
    for name in ("runs.csv", "curves.csv"):
        check(results / name)


def lines_of(table: str, overrides: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The configs and overrides that a name selects: of one table, of `all`, or of a list of cells (`NAME.txt`).

    A line of a list is what would stand behind `reproduce`: a config and overrides; `#` starts a comment. Lines are
    trained in their order, so the first is what matters most. `overrides` come behind those of every line.
    Raises UsageError for a list that is missing, or has no lines.
    """
    if table == ALL:
        return [(name, list(overrides)) for name in TABLES]
    path = Path(table)
    if path.suffix != ".txt":
        return [(table, list(overrides))]
    try:
        lines = [shlex.split(line, comments=True) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as a list of cells: {error}") from None
    found = [(name, [*words, *overrides]) for name, *words in filter(None, lines)]
    if not found:
        raise UsageError(f"{path} lists no cell: write a config and overrides in each line, such as figure2 seeds=[0]")
    return found


Selection: TypeAlias = tuple[str, list[str], list[Cell]]


def selected(table: str, overrides: Sequence[str]) -> list[Selection]:
    """Config, overrides and cells of every line, all checked. Raises UsageError, also for cells of no table."""
    found = [(name, words, cells(name, words)) for name, words in lines_of(table, overrides)]
    for name, _, each in found:
        require_table(name, each)
        require_one_run(each)
    return found


def reproduce(
    table: str, overrides: list[str], dry_run: bool, train_only: bool = False, unrecorded: bool = False
) -> int:
    """Train the cells of a table or list that are not done, and write their rows and tables, unless they are to be
    trained only; returns the exit code. With `unrecorded` those whose rows are on record, from elsewhere, are left out.
    """
    lines = selected(table, overrides)
    if unrecorded:
        lines = [(name, words, without_recorded(each)) for name, words, each in lines]
        lines = [line for line in lines if line[2]]
        if not lines:
            print(f"argmax-vae: nothing to train: all cells of {table} are on record", file=sys.stderr)
            return DONE
    if not dry_run:
        return reproduce_selected(lines, overrides, train_only)
    found = [cell for _, _, each in lines for cell in each]
    print(*listed(found), sep="\n")
    tell_time(found)
    return DONE


def without_recorded(found: list[Cell]) -> list[Cell]:
    """The cells of which a seed has no row in the results. Raises UsageError when `runs.csv` is damaged."""
    path = Path(found[0].config.paths.results) / "runs.csv"
    if not path.exists():
        return found
    rows = records.read(path, "")
    seeds = {name: set(each["seed"]) for name, each in rows.groupby("config_hash")}
    return [cell for cell in found if not set(cell.config.seeds) <= seeds.get(identity(cell.config_dict), set())]


def tell_time(found: list[Cell]) -> None:
    """Say how long the cells that have not ended will take, as far as rows of record tell."""
    cells = [
        durations.Ahead(
            (cell.config.data.name, cell.config.model.name, cell.config.model.latents, cell.config.estimator.name),
            cell.config.trainer.epochs,
        )
        for cell in found
        if not cell.run.has_ended
    ]
    for line in durations.expected(cells, Path(found[0].config.paths.results)):
        print(f"argmax-vae: {line}", file=sys.stderr)


def reproduce_selected(lines: list[Selection], overrides: list[str], train_only: bool) -> int:
    """What `reproduce` does with the cells that were selected, `overrides` being those of all lines."""
    found = [cell for _, _, each in lines for cell in each]
    print(*listed(found), sep="\n", flush=True)
    results = Path(found[0].config.paths.results)
    if not train_only:
        require_writable(results)
        require_records(results)
    if len(lines) > 1:
        check_prerequisites(found, launchers.chosen(overrides) in launchers.ON_THIS_MACHINE)
    code = max(launch_cells(words, each) for _, words, each in lines)
    if train_only:
        return code
    with claimed(results / ".lock", -1):
        remove_all_leftovers(results)
        collected, damaged = collect(found, results)
        written = write_tables({cell.config.table for cell in found}, results) if collected else {}
    tracker = found[0].config.tracker
    for name, paths in written.items():
        for path in paths:
            print(path)
        if tracker.name == "wandb":
            publish_table(tracker, name, Path(found[0].config.paths.runs), paths)
    for name in {cell.config.table for cell in found} - {*written, *primary_configs()}:
        runs = " ".join(str(cell.run.path) for cell in found if cell.config.table == name and cell.run.has_ended)
        if runs:
            what = f"{results / 'runs.csv'} has the rows of table={name}, which make no table"
            print(f"argmax-vae: {what}; compare its runs: argmax-vae compare {runs}", file=sys.stderr)
    return max(code, SOME_FAILED) if damaged else code


def write_tables(names: set[str], results: Path) -> dict[str, list[Path]]:
    """Regenerate those of these tables that are made of rows of runs; returns the files of each.

    A user's own table that its rows do not make is left out, with a word of why.
    """
    written, made_of_runs = {}, {*records.TABLES, *FIGURES}
    own = {name for name in names - {"", *primary_configs()} if not name.endswith(records.SEARCH)}
    for name in sorted(names & made_of_runs | own):
        try:
            written[name] = publisher(name, results).write(name, results)
        except UsageError as error:
            if name in made_of_runs:
                raise
            print(f"argmax-vae: {error}", file=sys.stderr)
    return written


def collect(found: list[Cell], results: Path) -> tuple[int, int]:
    """Put the finished cells' rows into the files of record, whose lock the caller holds.

    Says which rows stay there, which are replaced by those of another configuration, and which runs are left out since
    their files are damaged. Returns how many runs were understood, and how many were left out.
    """
    entries, damaged = [], 0
    for cell in found:
        run = cell.run
        if not run.has_ended:
            continue
        try:
            entries.append(Entry.of(run, cell.config.table, cell.config.protocol))
        except UsageError as error:
            damaged += 1
            print(f"argmax-vae: {error}", file=sys.stderr)
    for line in merge(entries, results):
        print(f"argmax-vae: {line}", file=sys.stderr)
    return len(entries), damaged


def cells_in(table: str, overrides: Sequence[str], directory: Path) -> list[Cell]:
    """The cells of a table or list, their runs looked for in this directory. Raises UsageError as `selected` does."""
    for override in overrides:
        if override.startswith(("paths.runs=", "paths.results=")):
            raise UsageError(f"{override}: give --runs and --results instead")
    return [
        replace(cell, config_dict={**cell.config_dict, "paths": {**cell.config_dict["paths"], "runs": str(directory)}})
        for name, words in lines_of(table, overrides)
        for cell in cells(name, words)
    ]


def missing(table: str, overrides: Sequence[str], directory: Path) -> list[str]:
    """Lines for the cells of a table or list that are not done in this directory of runs."""
    return listed([cell for cell in cells_in(table, overrides, directory) if not cell.run.has_ended])


def collect_finished(table: str, overrides: Sequence[str], directory: Path, results: Path) -> list[str]:
    """Put the finished cells of a table or list into the files of record; returns a line for each.

    Raises UsageError when none is finished, or a config is of no table.
    """
    found = [cell for cell in cells_in(table, overrides, directory) if cell.run.has_ended]
    require_table(table, found)
    with claimed(results / ".lock", -1):
        collected, _ = collect(found, results)
    if not collected:
        again = " ".join(["argmax-vae reproduce", table, *map(shlex.quote, overrides)])
        raise UsageError(f"no cell of {table} is finished in {directory}; train it: {again}")
    return listed(found)
