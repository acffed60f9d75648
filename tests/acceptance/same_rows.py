"""Compares a small sweep on another engine with the same sweep in one process, row by row of `results/runs.csv`.

python tests/acceptance/same_rows.py "Ray, two nodes" hydra/launcher=ray_cluster
Overrides choose the engine; the digits need no download. Exit code 0 when nothing differs, 1 otherwise.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

SWEEP = (
    *("section61", "data=digits", "model.latents=3x2,1x8", "experiment=released_direct,written_direct", "seeds=[0,1]"),
    *("trainer.epochs=2", "trainer.evaluate_every=1", "trainer.final_samples=2", "trainer.batch=200"),
    *("runtime.compile=false", "runtime.device=cpu", "tracker=none"),
)
KEY = ["run", "seed"]
MAY_DIFFER = ["seconds", "steps_per_second", "device", "threads", "path", "commit", "dirty"]
"""Columns that tell where and when a run was computed."""
SECONDS = 900
"""After which either sweep is stopped."""
HEADER = ("| engine | overrides | rows | columns compared | differences |", "|---|---|---|---|---|")


def differences(first: Path, second: Path) -> list[str]:
    """A line for every row that one of two csv files of record lacks, and for every value that differs."""
    one, other = (rows_of(path) for path in (first, second))
    lines = [f"only one of them has column {name}" for name in one.columns.symmetric_difference(other.columns)]
    lines += [f"only one of them has row {' seed '.join(key)}" for key in one.index.symmetric_difference(other.index)]
    for key in one.index.intersection(other.index):
        for name in one.columns.intersection(other.columns):
            before, after = one.loc[key, name], other.loc[key, name]
            if before != after:
                lines.append(f"{' seed '.join(key)}: {name} is {before} and {after}")
    return lines


def rows_of(path: Path) -> pd.DataFrame:
    """The rows of a file of record as text, by run and seed, without the columns that may differ."""
    frame = pd.read_csv(path, dtype=str, keep_default_na=False).set_index(KEY)
    return frame.drop(columns=MAY_DIFFER)


def sweep(directory: Path, overrides: list[str]) -> Path:
    """Run the sweep with `directory` as working directory; returns its file of record.

    Raises subprocess.SubprocessError when it fails or takes longer than `SECONDS`.
    """
    directory.mkdir()
    command = [sys.executable, "-m", "argmax_vae", "reproduce", *SWEEP, *overrides]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=directory, env=one_thread, check=True, timeout=SECONDS)
    return directory / "results" / "runs.csv"


def record(path: Path, row: str) -> None:
    """Put a row into a table of engines in place of that of the same engine."""
    before = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in before if line.startswith("|") and line not in HEADER]
    rows = [line for line in kept if line.split("|")[1] != row.split("|")[1]]
    title = "A sweep on other engines, compared with the same sweep in one process by `tests/acceptance/same_rows.py`."
    text = "\n".join([title, "", *HEADER, *sorted([*rows, row]), "", f"Not compared: {', '.join(MAY_DIFFER)}.", ""])
    path.write_text(text, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Run both sweeps, print the differences and a final line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", help="what to call it")
    parser.add_argument("overrides", nargs="+", help="that choose it")
    parser.add_argument("--output", type=Path, metavar="FILE.md", help="table to put the outcome into")
    given = parser.parse_args(arguments)
    with TemporaryDirectory() as temporary:
        try:
            first = sweep(Path(temporary) / "one_process", [])
            second = sweep(Path(temporary) / "engine", given.overrides)
        except subprocess.SubprocessError as error:
            print(f"FAILED: {given.engine}: {error}")
            return 1
        found = differences(first, second)
        rows, columns = rows_of(first).reset_index().shape
    for line in found:
        print(line)
    if given.output:
        words = f"`{' '.join(given.overrides)}`"
        record(given.output, f"| {given.engine} | {words} | {rows} | {columns} | {len(found) or 'none'} |")
    outcome = f"DIFFERENT in {len(found)} places" if found else "SAME"
    print(f"{outcome}: {given.engine}, {rows} rows, {columns} columns")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
