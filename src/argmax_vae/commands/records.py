"""The files of record: what a finished run writes into them, how they are read, and which rows replace which.

`runs.csv` has a row per cell of a table and seed, `curves.csv` also one per evaluation, `searches.csv` one per trial.
They are read a row at a time, so that a file of any length needs little memory, and are only changed when every column
and row of them is understood.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from argmax_vae.errors import UsageError
from argmax_vae.files import RESTORE, csv_rows, csv_text, whole, write_atomic
from argmax_vae.report.records import SEARCH
from argmax_vae.runs.directory import RunDirectory, identity
from argmax_vae.runs.provenance import commits, origins

COLUMNS = {
    "runs.csv": ("table", "protocol", "run", "estimator", "data", "n", "k", "seed", "status", "epochs", "config_hash"),
    "curves.csv": ("table", "protocol", "run", "n", "k", "estimator", "seed", "epoch", "test_bound"),
    "searches.csv": ("search", "metric", "trial", "choices", "trials", "winner", "score", "run"),
}
"""What every file of record has; further columns may follow."""
WHOLE_NUMBERS = ("n", "k", "seed", "epochs", "epoch", "trial", "trials")
CELL_COLUMNS = ("table", "protocol", "estimator", "data", "n", "k", "labels")
"""What tells one cell of a table from another; in tables of searches, where any key may differ, also the run."""
RECORD_COLUMNS = {
    "data": ("data", "name"),
    "binarization": ("data", "binarization"),
    "model": ("model", "name"),
    "latents": ("model", "latents"),
    "estimator": ("estimator", "name"),
    "kl": ("objective", "kl"),
    "learning_rate": ("optim", "learning_rate"),
    "samples": ("trainer", "final_samples"),
}
DESCRIBING = (*RECORD_COLUMNS, "schedule", "labelled_weight", "training", "gaussian")
"""Columns of choices, by which configurations of the same cell are told apart."""


def record(run: RunDirectory, table: str, protocol: str) -> pd.DataFrame:
    """The rows of `runs.csv` for a finished run: a row per seed, choices beside numbers."""
    config_dict = run.config()
    seeds = run.seeds()
    before: dict[str, Any] = {"table": table, "protocol": protocol, "run": run.path.name}
    for column, (section, key) in RECORD_COLUMNS.items():
        before[column] = config_dict[section][key]
    if config_dict.get("supervision", {}).get("training", "none") != "none":
        before["labelled_weight"] = config_dict["supervision"]["labelled_weight"]
    from argmax_vae.config.stored import config_of_dict
    from argmax_vae.gradients.cost import decoder_evaluations

    origin = run.provenance()
    config = config_of_dict(config_dict, origin)
    n, k = config.model.n, config.model.k
    before["decoder_evaluations"] = decoder_evaluations(config.estimator, n, k, config.objective)
    after = {
        "torch": origin["packages"]["torch"],
        "version": origin["version"],
        "commit": commits(origin),
        "dirty": any(each["dirty"] for each in origins(origin)),
        "config_hash": identity(config_dict),
    }
    return pd.concat([pd.DataFrame([before] * len(seeds)), seeds, pd.DataFrame([after] * len(seeds))], axis=1)


def curves(run: RunDirectory, table: str, protocol: str) -> pd.DataFrame:
    """The rows of `curves.csv` for a run: validation and test bound of every evaluation and seed."""
    config_dict = run.config()
    metrics = run.metrics()
    latents = [int(part) for part in config_dict["model"]["latents"].split("x")]
    frame = metrics[["seed", "epoch", "validation_bound", "test_bound"]].round(4)
    labels: dict[str, Any] = {
        "table": table,
        "protocol": protocol,
        "run": run.path.name,
        "n": latents[0],
        "k": latents[1],
        "estimator": config_dict["estimator"]["name"],
        "kl": config_dict["objective"]["kl"],
    }
    if "validation_accuracy" in metrics:
        labels |= {"data": config_dict["data"]["name"], "labels": config_dict["supervision"]["labels"]}
        frame[["validation_accuracy", "test_accuracy"]] = metrics[["validation_accuracy", "test_accuracy"]]
    for position, (column, value) in enumerate(labels.items()):
        frame.insert(position, column, value)
    return frame


@dataclass(frozen=True)
class Entry:
    """A finished run's configuration, and its rows for `runs.csv` and `curves.csv`."""

    config_dict: Mapping[str, Any]
    rows: pd.DataFrame
    curves: pd.DataFrame

    @classmethod
    def of(cls, run: RunDirectory, table: str, protocol: str) -> "Entry":
        """Those of a run, as a part of a table."""
        return cls(run.config(), record(run, table, protocol), curves(run, table, protocol))


class Reader:
    """Understands the rows of a file of record by its header. Raises UsageError when a column is missing."""

    def __init__(self, path: Path, header: Sequence[str]) -> None:
        self.path = path
        self.place = {column: position for position, column in enumerate(header)}
        if absent := [column for column in COLUMNS[path.name] if column not in self.place]:
            found = ", ".join(header[:5]) + (", …" if len(header) > 5 else "")
            raise UsageError(f"{path}: missing column {', '.join(absent)}; found: {found}; {RESTORE}")
        self.numbers = [column for column in WHOLE_NUMBERS if column in self.place]
        self.of_numbers = itemgetter(*(self.place[column] for column in self.numbers))
        self.checked: set[tuple[str, ...]] = set()
        names = [column for column in (*CELL_COLUMNS, "protocol", "run") if column in self.place]
        self.of_names = itemgetter(*(self.place[column] for column in names))
        self.named: dict[tuple[str, ...], tuple[tuple[str, ...], tuple[str, str, str]]] = {}

    def field(self, row: Sequence[str], column: str) -> str:
        """A field as text without spaces around it, whole numbers without a fraction; empty for an unknown column."""
        place = self.place.get(column)
        text = "" if place is None else row[place].strip()
        return whole(text) if text and (column in WHOLE_NUMBERS or column == "labels") else text

    def check(self, row: Sequence[str]) -> None:
        """Raise UsageError unless the row has whole numbers where it must."""
        numbers = self.of_numbers(row)
        if numbers in self.checked:
            return
        self.checked.add(numbers)
        for column in self.numbers:
            try:
                whole(row[self.place[column]])
            except ValueError:
                told = f"{column}={row[self.place[column]]!r} is not a whole number in the row {','.join(row)[:60]}…"
                raise UsageError(f"{self.path}: {told}; {RESTORE}") from None

    def cell(self, row: Sequence[str]) -> tuple[str, ...]:
        """What tells the cell of a row from others."""
        return self.names(row)[0]

    def run(self, row: Sequence[str]) -> tuple[str, str, str]:
        """Table, protocol and run of a row."""
        return self.names(row)[1]

    def names(self, row: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, str, str]]:
        """Cell and run of a row, worked out once for all rows with the same fields."""
        key = self.of_names(row)
        if (found := self.named.get(key)) is None:
            cell = [self.field(row, column) for column in CELL_COLUMNS]
            run = self.field(row, "table"), self.field(row, "protocol"), self.field(row, "run")
            found = self.named[key] = (*cell, run[2] if run[0].endswith(SEARCH) else ""), run
        return found


def check(path: Path) -> None:
    """Raise UsageError when a file of record is there and cannot be merged into."""
    if path.exists():
        rows = csv_rows(path)
        reader = Reader(path, next(rows))
        for row in rows:
            reader.check(row)


def as_text(frame: pd.DataFrame) -> list[list[str]]:
    """Header and rows of a frame as a csv file has them."""
    return list(csv.reader(io.StringIO(csv_text(frame))))


class Recorded(NamedTuple):
    """What `runs.csv` has of a seed of a cell."""

    run: str
    seed: str
    status: str
    epochs: int
    config_hash: str
    choices: dict[str, str]


def merge(entries: Iterable[Entry], results: Path) -> list[str]:
    """Put the rows of runs into `runs.csv` and `curves.csv`, whose lock the caller holds; keep the rows of other cells.

    Of the same cell, rows with more epochs or seeds stay, and so do those of finished seeds that diverged in the new
    run. Else the new ones replace them, without a word if they are the same configuration with no fewer epochs and
    seeds.

    Returns:
        A line for every cell whose rows stay, or are replaced by those of another configuration.

    Raises:
        UsageError: a file is not understood, or cannot be written; then no file is changed.
    """
    path, lines = results / "runs.csv", results / "curves.csv"
    new = [(entry, Reader(path, as_text(entry.rows)[0])) for entry in entries]
    cells = {reader.cell(row) for entry, reader in new for row in as_text(entry.rows)[1:]}
    recorded, owners = read_cells(path, cells)
    check(lines)
    told: list[str] = []
    taken: dict[tuple[str, ...], Entry] = {}
    for entry, reader in new:
        rows = as_text(entry.rows)[1:]
        cell, group = reader.cell(rows[0]), [of_seed(reader, row) for row in rows]
        stays, said = decide(recorded.get(cell, []), group, entry.config_dict)
        if said:
            told.append(f"{path}: {' '.join(filter(None, cell))}: {said}")
        if not stays:
            recorded[cell], taken[cell] = group, entry
    if taken:
        replace_rows(path, taken, owners, [entry.rows for entry in taken.values()])
        replace_rows(lines, taken, owners, [entry.curves for entry in taken.values()])
    return told


def read_cells(
    path: Path, cells: set[tuple[str, ...]]
) -> tuple[dict[tuple[str, ...], list[Recorded]], dict[tuple[str, str, str], tuple[str, ...]]]:
    """What `runs.csv` has of these cells, and the cell of each of its runs. Raises UsageError when it is damaged."""
    recorded: dict[tuple[str, ...], list[Recorded]] = {}
    owners: dict[tuple[str, str, str], tuple[str, ...]] = {}
    if not path.exists():
        return recorded, owners
    rows = csv_rows(path)
    reader = Reader(path, next(rows))
    for row in rows:
        reader.check(row)
        cell = reader.cell(row)
        owners[reader.run(row)] = cell
        if cell in cells:
            recorded.setdefault(cell, []).append(of_seed(reader, row))
    return recorded, owners


def of_seed(reader: Reader, row: Sequence[str]) -> Recorded:
    run, seed, status, epochs, config_hash = (
        reader.field(row, column) for column in ("run", "seed", "status", "epochs", "config_hash")
    )
    choices = {column: reader.field(row, column) for column in DESCRIBING}
    return Recorded(run, seed, status, int(epochs), config_hash, choices)


def decide(before: Sequence[Recorded], now: Sequence[Recorded], config_dict: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether the rows that are recorded of a cell stay, and what to say of it, if anything."""
    if not before:
        return False, ""
    remove = "to replace them, remove their rows there"
    finished = {row.seed for row in before if row.status == "done"}
    lost = [row.seed for row in now if row.status == "diverged" and row.seed in finished]
    if lost:
        seeds = f"seed{'s' if len(lost) > 1 else ''} {', '.join(lost)}"
        return True, f"finished rows of {seeds} stay, not replaced by diverged ones of {now[0].run}; {remove}"
    asked = config_dict["trainer"]["epochs"]
    epochs, seeds_before = max(row.epochs for row in before), {row.seed for row in before}
    if epochs > asked or len(seeds_before) > len(now):
        counts = (
            f"{epochs} epochs of {len(seeds_before)} seeds stay, not replaced by {asked} epochs of {len(now)} seeds"
        )
        return True, f"{counts}; {remove}"
    shorter = {
        **config_dict,
        "seeds": [int(row.seed) for row in before],
        "trainer": {**config_dict["trainer"], "epochs": epochs},
    }
    same = {row.config_hash for row in before} <= {identity(shorter), identity(config_dict)}
    if same and seeds_before <= {row.seed for row in now}:
        return False, ""
    was, becomes = before[0].choices, now[0].choices
    changes = [f"{key} {was[key]} → {becomes[key]}" for key in DESCRIBING if was[key] != becomes[key]]
    how = ("other seeds" if same else "another configuration") + (f" ({', '.join(changes)})" if changes else "")
    old = ", ".join(dict.fromkeys(row.run for row in before))
    return False, f"the rows of {old} are replaced by those of {now[0].run}, {how}"


def replace_rows(
    path: Path,
    taken: Mapping[tuple[str, ...], Entry],
    owners: Mapping[tuple[str, str, str], tuple[str, ...]],
    frames: Sequence[pd.DataFrame],
) -> None:
    """Write a file of record with new rows behind those that are not of these cells.

    A row belongs to the cell of its run in `runs.csv`. One of a run that is not there belongs to every cell of which
    it says nothing else.
    """

    def is_kept(reader: Reader, row: Sequence[str]) -> bool:
        if (owner := owners.get(reader.run(row))) is not None:
            return owner not in taken
        own = reader.cell(row)
        return not any(all(part in ("", wanted) for part, wanted in zip(own, cell, strict=True)) for cell in taken)

    put_behind(path, pd.concat([frame.astype(object) for frame in frames], ignore_index=True), is_kept)


def record_search(path: Path, name: str, frame: pd.DataFrame) -> None:
    """Put the trials of a search into `searches.csv`, in the place of those that it had. Raises UsageError."""
    put_behind(path, frame, lambda reader, row: reader.field(row, "search") != name)


def put_behind(path: Path, frame: pd.DataFrame, is_kept: Callable[[Reader, Sequence[str]], bool]) -> None:
    """Write a file of record with the rows that are kept, as they are, and new ones behind them.

    Raises UsageError when the file is not understood.
    """
    header, *rows = as_text(frame)
    others = csv_rows(path) if path.exists() else iter([header])
    before = next(others)
    reader = Reader(path, before)
    columns = [*before, *(column for column in header if column not in before)]
    places = [header.index(column) if column in header else None for column in columns]
    padding = [""] * (len(columns) - len(before))

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows([*row, *padding] if padding else row for row in others if is_kept(reader, row))
            writer.writerows(["" if place is None else row[place] for place in places] for row in rows)

    write_atomic(path, write)
