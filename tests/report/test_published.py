"""The transcribed numbers: complete, unique, and those of the papers."""

from pathlib import Path

import pandas as pd
import pytest

from argmax_vae.report.records import TABLES

PAPER = Path(__file__).parents[2] / "results" / "paper"


@pytest.mark.parametrize("name", [name for name, table in TABLES.items() if table.published])
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
