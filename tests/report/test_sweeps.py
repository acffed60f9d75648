"""The table of the runs of a directory: each is told by what it has other than the others."""

import csv
import io
import math

import pytest

from argmax_vae.errors import UsageError
from argmax_vae.markup import duration
from argmax_vae.report.sweeps import (
    FORMATS,
    cells,
    differing,
    in_words,
    rows_of_runs,
    sorted_rows,
    table,
    with_interval,
)
from argmax_vae.runs.directory import scan
from helpers import train


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    directory = tmp_path_factory.mktemp("sweep")
    for choices in (
        ("seeds=[0,1]", "estimator.epsilon.value=0.3"),
        ("seeds=[0]", "data.binarization=dynamic", "schedule@estimator.epsilon=exponential"),
        ("seeds=[0]", "estimator=gumbel_softmax", "trainer.epochs=1"),
    ):
        train(directory, *choices)
    return rows_of_runs(scan(directory))


def test_a_run_is_told_by_what_it_has_other_than_the_others(rows: list[dict]) -> None:
    told = {row["what differs"] for row in rows}
    assert told == {
        "direct, ε = 0.3, binarization threshold, epochs 2",
        "direct, ε exponential, start 1.0, rate 1e-05, every 1000, minimum 0.1, binarization dynamic, epochs 2",
        "Gumbel-Softmax, τ = 0.1, binarization threshold, epochs 1",
    }


def test_keys_that_all_share_or_one_alone_has_say_nothing() -> None:
    a = {"estimator": {"name": "direct", "samples": 1}, "seeds": [0], "runtime": {"chunk": 1}}
    b = {"estimator": {"name": "arm"}, "seeds": [0, 1], "runtime": {"chunk": 2}}
    assert differing([a, b]) == ["estimator.name"]
    assert in_words(a, ["estimator.name"]) == "direct"
    assert differing([a]) == differing([]) == []


def test_runs_that_differ_in_their_seeds_alone_are_told_by_them() -> None:
    one, other = ({"estimator": {"name": "direct"}, "seeds": seeds} for seeds in ([0, 1], [1, 2]))
    longer = {**one, "trainer": {"epochs": 9}}
    assert differing([one, other]) == ["seeds"]
    assert [in_words(config, ["seeds"]) for config in (one, other)] == ["seeds 0, 1", "seeds 1, 2"]
    assert "seeds" not in differing([one, one])
    assert "seeds" not in differing([one, {**other, "estimator": {"name": "exact"}}])
    assert "seeds" not in differing([one, longer])


def test_large_numbers_have_an_exponent() -> None:
    assert with_interval(1.7587443842442223e31, 2e30) == "1.76e+31 ± 2e+30"
    assert with_interval(123456.789, 0.126) == "123456.79 ± 0.13"


def test_sorting_puts_what_has_no_number_last(rows: list[dict]) -> None:
    unfinished = {**rows[0], "bound": (math.nan, math.nan)}
    found = [row["bound"][0] for row in sorted_rows([unfinished, *rows], "bound")]
    assert found[:-1] == sorted(found[:-1])
    assert math.isnan(found[-1])
    with pytest.raises(UsageError, match=r"^--sort luck: unknown; allowed: name, bound"):
        sorted_rows(rows, "luck")


def test_every_format_has_every_run_and_csv_all_digits(rows: list[dict]) -> None:
    for format in FORMATS:
        text = table(rows, format)
        assert all(row["run"] in text.replace("\\_", "_") for row in rows)
    read = list(csv.DictReader(io.StringIO(table(rows, "csv"))))
    assert [float(row["test_bound"]) for row in read] == [row["bound"][0] for row in rows]
    with pytest.raises(UsageError, match=r"^--format word: unknown; allowed: text, csv, md, tex"):
        table(rows, "word")


def test_one_seed_has_no_interval(rows: list[dict]) -> None:
    for row, cell in zip(rows, cells(rows), strict=True):
        assert ("±" in cell["test bound (nats)"]) == (row["seeds"] == "2")


@pytest.mark.parametrize(("seconds", "text"), [(59.4, "59 s"), (125.0, "2 min"), (7200.0, "2.0 h"), (math.nan, "")])
def test_durations_are_written_as_people_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text
