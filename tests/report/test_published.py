"""The transcribed numbers: complete, unique, and those of the papers."""

from pathlib import Path

import pandas as pd
import pytest

from argmax_vae.config.compose import cells
from argmax_vae.report.records import TABLES, read

PAPER = Path(__file__).parents[2] / "results" / "paper"


@pytest.mark.parametrize("name", [name for name, table in TABLES.items() if table.published and not table.source])
def test_published_values_belong_to_the_sizes_of_the_table(name: str) -> None:
    paper = pd.read_csv(PAPER / f"{name}.csv")
    assert list(paper.columns) == ["n", "k", "estimator", "metric", "value", "source"]
    assert not paper.duplicated(["n", "k", "estimator", "metric"]).any()
    assert set(zip(paper["n"], paper["k"], strict=True)) == set(TABLES[name].sizes)
    assert (paper["metric"] == "test_bound").all()


def test_figure2_numbers() -> None:
    paper = pd.read_csv(PAPER / "figure2.csv").set_index(["n", "k", "estimator"])["value"]
    assert paper.to_dict() == {
        (20, 10, "direct"): 103.62,
        (20, 10, "gumbel_softmax"): 105.36,
        (20, 2, "direct"): 126.37,
        (20, 2, "gumbel_softmax"): 128.92,
        (20, 2, "rebar"): 127.07,
        (20, 2, "relax"): 126.66,
        (1, 40, "direct"): 145.64,
        (1, 40, "gumbel_softmax"): 145.67,
    }


def test_section61_numbers() -> None:
    paper = pd.read_csv(PAPER / "section61.csv").set_index(["n", "k"])["value"]
    assert paper.to_dict() == {(1, 8): 168.57, (3, 2): 177.9, (1, 64): 147.59, (6, 2): 161.09}


@pytest.mark.parametrize(("name", "settings"), [("figure3", 4), ("figure3_2019", 10)])
def test_semi_supervised_settings_have_both_estimators_and_metrics(name: str, settings: int) -> None:
    paper = pd.read_csv(PAPER / f"{name}.csv")
    assert (paper.groupby(["data", "labels"]).size() == 4).all()
    assert len(paper) == 4 * settings
    assert not paper.duplicated(["data", "labels", "estimator", "metric"]).any()
    assert paper.loc[paper["metric"] == "accuracy_percent", "value"].between(50, 100).all()


def test_best_known_values_are_of_the_settings_of_the_benchmark() -> None:
    """Each is of a cell that a configuration trains, on its data."""
    known = read(PAPER / "best_known.csv", "")
    assert not known.duplicated(["n", "k", "network", "estimator", "metric"]).any()
    assert known["source"].str.contains("second-hand").all() and known["differences"].notna().all()
    trained = {
        (config.model.n, config.model.k, config.data.name, config.data.binarization, config.protocol): config
        for name in ("benchmark", "benchmark_two_layers", "benchmark_grey")
        for config in (cell.config for cell in cells(name, ["estimator=reinmax"]))
    }
    assert {key[:2] for key in trained} == set(TABLES["benchmark"].sizes)
    for row in known.to_dict("records"):
        pixels = {"static": "none"}.get(row["binarization"], row["binarization"])
        model = trained[row["n"], row["k"], row["data"], pixels, row["protocol"]].model
        layers = {"layered": "two", "linear": "one"}.get(model.name)
        hidden = "-".join(map(str, [784, *model.hidden]))
        assert row["network"] == (f"linear, {layers} layer{'s' * (layers == 'two')}" if layers else hidden)
        assert (row["metric"] == "train_bound") == (row["estimator"] == "reinmax")


def test_best_known_numbers() -> None:
    known = read(PAPER / "best_known.csv", "")
    values = known.groupby(["network", "metric"])["value"].agg(list).to_dict()
    assert values == {
        ("784-512-256", "validation_bound"): [89.8, 91.2, 97.2],
        ("784-512-256", "train_bound"): [124.66, 99.77, 97.7, 98.06, 100.71, 98.37],
        ("linear, one layer", "validation_bound"): [113.62, 114.32],
        ("linear, two layers", "validation_bound"): [100.85, 101.2],
    }
