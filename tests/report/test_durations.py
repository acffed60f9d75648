"""How long cells take, from rows of record."""

from pathlib import Path

import pandas as pd

from argmax_vae.report.durations import Ahead, expected

DIRECT, EXACT = ("mnist", "linear", "20x2", "direct"), ("mnist", "linear", "20x2", "exact")


def write(results: Path) -> None:
    """Two runs of two seeds on a CPU, which took 10 and 30 s an epoch, and one on a GPU that took 1 s."""
    rows = []
    for run, like, device, seconds, epochs in (
        ("a", DIRECT, "CPU", 100.0, 10),
        ("b", DIRECT, "CPU", 600.0, 20),
        ("c", EXACT, "CPU", 50.0, 10),
        ("d", DIRECT, "GPU", 10.0, 10),
    ):
        named = dict(zip(("data", "model", "latents", "estimator"), like, strict=True))
        rows += [
            {**named, "run": run, "seed": s, "device": device, "seconds": seconds, "epochs": epochs} for s in (0, 1)
        ]
    results.mkdir()
    pd.DataFrame(rows).to_csv(results / "runs.csv", index=False)


def test_time_is_the_median_of_like_runs_times_epochs(tmp_path: Path) -> None:
    write(tmp_path / "results")
    found = expected([Ahead(DIRECT, 6), Ahead(EXACT, 60)], tmp_path / "results")
    path = tmp_path / "results" / "runs.csv"
    assert found == [
        f"2 cells ahead: all in about 7 min on CPU, as {path} tells",
        f"2 cells ahead: 1 of them in about 6 s on GPU, as {path} tells",
    ]


def test_without_rows_or_cells_nothing_is_told(tmp_path: Path) -> None:
    assert expected([Ahead(DIRECT, 6)], tmp_path) == []
    write(tmp_path / "results")
    assert expected([], tmp_path / "results") == []
    assert expected([Ahead(("mnist", "linear", "20x2", "arm"), 6)], tmp_path / "results") == []
