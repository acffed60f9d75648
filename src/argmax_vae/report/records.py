"""Statistics over seeds, tables and figures, computed from the csv files of record alone.

No module of this package imports torch, and matplotlib is loaded only to draw: tables answer at once.
This file holds what tables and figures share: the registry of what is reported, and reading files of record.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from argmax_vae.errors import UsageError
from argmax_vae.files import csv_rows

TEXT_COLUMNS = (
    *("table", "protocol", "run", "data", "binarization", "model", "estimator", "kl", "schedule", "status"),
    *("device", "torch", "version", "commit", "dirty", "config_hash", "metric", "source"),
    *("choices", "parameter", "target", "reference", "differences"),
)
"""Columns that stay text when they are read, since a hash such as 12e45678 or a version reads as a number."""


SEARCH = "_search"
"""The end of names of searches, whose rows are trials and no cells of a table."""


@dataclass(frozen=True)
class Table:
    """What a table shows: its words, the order of its rows, and the averaged columns of ``runs.csv``.

    ``metric`` is averaged with an interval and compared with the published values of that metric; ``means``
    are averaged only. ``sizes`` orders the rows by (n, k) as the paper does; other sizes follow. ``curves``
    says whether the figure of the same name also draws ``curves.csv``; ``equal_evaluations`` whether the table also
    compares at equal numbers of decoder evaluations, which it takes from there; ``published`` whether a paper has
    values for it, ``compared`` the columns that are set beside those, the first of them that has one, and ``source``
    their file where it has another name; ``further`` names the other configurations whose runs it shows; ``own``
    says that its configuration is a user's.
    """

    name: str
    title: str
    caption: str
    sizes: tuple[tuple[int, int], ...]
    curves: bool = False
    equal_evaluations: bool = False
    published: bool = True
    metric: str = "test_bound"
    means: tuple[str, ...] = ("test_kl", "test_codes_in_use")
    compared: tuple[str, ...] = ("test_bound",)
    source: str = ""
    further: tuple[str, ...] = ()
    own: bool = False

    @property
    def paper(self) -> str:
        """Path of the published values, relative to the results directory, which may override those shipped."""
        return f"paper/{self.source or self.name}.csv"

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands that regenerate the table from nothing, of which the last only writes it."""
        where = " --config-dir DIR" if self.own else ""
        trained = [f"argmax-vae reproduce {name}{where}" for name in (self.name, *self.further)]
        return *trained, f"argmax-vae report {self.name}"


TABLES = {
    table.name: table
    for table in (
        Table(
            name="figure2",
            title="Figure 2: test bounds of discrete variational auto-encoders",
            caption="Test bound (negative ELBO) in nats per image, lower is better, at the epoch with the "
            "best validation bound. In the protocol as written ε and τ are constant and were chosen on validation, for "
            "each n×k from four values by 20 epochs of one other seed (rows figure2_search of runs.csv), but for "
            "REBAR and RELAX, which learn their τ, and I-MLE, which adapts its λ and which the paper does not have. "
            "The published values are of one seed and 400 epochs, 600 for REBAR and RELAX.",
            sizes=((20, 10), (20, 2), (1, 40)),
            curves=True,
            further=("figure2_control_variates", "figure2_imle"),
        ),
        Table(
            name="section61",
            title="Section 6.1: product space against one joint variable",
            caption="Test bound (negative ELBO) in nats per image, lower is better, at the epoch with the "
            "best validation bound. One joint variable (1×8, 1×64) is followed by the product space of "
            "binary variables with as many codes (3×2, 6×2), whose perturbed arg max is approximated one "
            "variable at a time. In the protocol as written ε is that chosen for 1×40 (one variable) or 20×2 (binary "
            "variables) of Figure 2. The published values are of one seed and 400 epochs.",
            sizes=((1, 8), (3, 2), (1, 64), (6, 2)),
        ),
        Table(
            name="estimators",
            title="Every estimator at 20×2, at equal epochs and at equal decoder evaluations",
            caption="Test bound (negative ELBO) in nats per image, lower is better, at the epoch with the best "
            "validation bound, all epochs or those within the budget of decoder evaluations of the cheapest row. "
            "Decoder evaluations are the losses that an estimator asks for per image and step; with this linear "
            "decoder the candidate losses of direct optimization and local expectation need none. ε and τ were "
            "chosen on validation from four values by 20 epochs of one other seed (rows figure2_search and "
            "estimators_search of runs.csv); the other estimators have no such choice or keep their source's.",
            sizes=((20, 2),),
            curves=True,
            equal_evaluations=True,
            published=False,
        ),
        Table(
            name="figure6",
            title="Figure 6: deep networks, direct optimization against Gumbel-Softmax, n·k = 60",
            caption="Test bound, lower is better, at the epoch with the best validation bound: squared error of pixels "
            "scaled to [−1, 1], summed over the image, plus the KL divergence in nats (that is the negative ELBO of a "
            "Gaussian with variance 1/2, without its constant). ε and τ were chosen on validation at 20×3 from five "
            "values each by five epochs of one other seed (rows figure6_search of runs.csv). "
            "The paper has a figure of direct and Gumbel-Softmax without numbers.",
            sizes=((30, 2), (20, 3), (15, 4), (12, 5), (10, 6), (6, 10), (1, 60)),
            published=False,
            further=("figure6_others",),
        ),
        Table(
            name="benchmark",
            title="The settings of other papers, at equal epochs and at equal decoder evaluations",
            caption="Test bound (negative ELBO) in nats per image, lower is better, at the epoch with the best "
            "validation bound, all epochs or those within the budget of decoder evaluations of the cheapest row of the "
            "setting. Published values are bounds on validation images or means over the steps of the last epoch, on "
            "training images; ours of the same kind is set beside them. "
            "They were read second-hand, and best_known.csv says in what their training differs. Learning rates, ε and "
            "τ are those of the setting's file in conf/experiment, which says how they were chosen. Seconds are those "
            "of a run, all its seeds at once. The train bound is of the codes that an estimator trains with: "
            "Gumbel-Softmax in the linear settings has one of relaxed codes.",
            sizes=((20, 10), (200, 2), (4, 8), (24, 4), (16, 8), (12, 16), (8, 64), (30, 10)),
            curves=True,
            equal_evaluations=True,
            means=("train_bound", "validation_bound", "test_kl", "test_codes_in_use", "learning_rate", "seconds"),
            compared=("validation_bound", "train_bound"),
            source="best_known",
            further=("benchmark_two_layers", "benchmark_grey"),
        ),
    )
}


def definition(name: str) -> Table:
    """The table of that name, or for another name what is shown of a user's own table."""
    caption = (
        "Test bound (negative ELBO) in nats per image, lower is better, at the epoch with the best validation bound."
    )
    own = Table(name=name, title=f"Table {name}", caption=caption, sizes=(), published=False, own=True)
    return TABLES.get(name, own)


def read(path: Path, advice: str) -> pd.DataFrame:
    """A csv file of record as a frame; empty fields become NaN.

    Raises:
        UsageError: the file is missing or is no whole csv file; ``advice`` says what to do about it.
    """
    for _ in csv_rows(path, advice):
        pass
    return pd.read_csv(
        path,
        dtype=dict.fromkeys(TEXT_COLUMNS, "str"),
        keep_default_na=False,
        na_values=["", "nan", "NaN"],
        encoding="utf-8-sig",
    )


def published_values() -> Path:
    """The transcribed published values: inside the installed package, else in the repository."""
    packaged = Path(__file__).parent / "paper"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "results" / "paper"


def read_published(name: str, results: Path) -> pd.DataFrame:
    """The published values of a table, of the results directory or those shipped. Raises UsageError: a damaged file."""
    given = results / definition(name).paper
    path = given if given.exists() else published_values() / given.name
    return read(path, "restore the transcribed values from the repository")


def read_inputs(name: str, results: Path) -> dict[str, pd.DataFrame]:
    """The frames ``runs`` and ``paper``, and ``curves`` where the figure draws them.

    Raises:
        UsageError: an unknown table or a missing file.
    """
    table = definition(name)
    advice = f"make it with: {table.commands[0]}"
    frames = {"runs": read(results / "runs.csv", advice)}
    if table.published:
        frames["paper"] = read_published(name, results)
    else:
        frames["paper"] = pd.DataFrame(columns=["n", "k", "estimator", "metric", "value"])
    if table.curves:
        frames["curves"] = read(results / "curves.csv", advice)
    return frames


def require(frame: pd.DataFrame, columns: Iterable[str], file: str) -> None:
    """Check that a frame, read from ``file``, has these columns.

    Raises:
        UsageError: names the missing columns and those that were found.
    """
    if absent := [column for column in columns if column not in frame.columns]:
        raise UsageError(f"{file}: missing column {', '.join(absent)}; found: {', '.join(frame.columns)}")


def recorded(results: Path) -> set[str]:
    """The tables that ``runs.csv`` has rows of. Raises UsageError when it is no csv file or does not name tables."""
    path = results / "runs.csv"
    if not path.exists():
        return set()
    runs = read(path, "make it with: argmax-vae reproduce")
    require(runs, ["table"], path.name)
    return set(runs["table"].dropna())
