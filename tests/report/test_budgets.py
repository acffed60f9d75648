"""Bounds at equal decoder evaluations, from small synthetic runs against hand-computed ones."""

import pandas as pd
import pytest
from scipy import stats
from test_tables import cell

from argmax_vae.errors import UsageError
from argmax_vae.report.tables import build, render

PAPER = pd.DataFrame(columns=["n", "k", "estimator", "metric", "value"])
CHOSEN = {"table": "estimators", "protocol": "as written", "epochs": 20, "dirty": False}


def runs() -> pd.DataFrame:
    """One evaluation per image against three, two seeds and 20 epochs each."""
    rows = cell(20, 2, "gumbel_softmax", [130.0, 131.0], decoder_evaluations=1, **CHOSEN)
    rows += cell(20, 2, "rebar", [127.0, 128.0], decoder_evaluations=3, **CHOSEN)
    return pd.DataFrame([row | {"run": f"r-{row['estimator']}", "config_hash": row["estimator"]} for row in rows])


def curves() -> pd.DataFrame:
    """Test bounds of 200 less the epoch, 190 for REBAR, one more for seed 1; the last epoch validates worst."""
    return pd.DataFrame(
        {
            "table": "estimators",
            **{"protocol": "as written", "n": 20, "k": 2, "estimator": name, "run": f"r-{name}", "seed": seed},
            "epoch": epoch,
            "validation_bound": 300.0 if epoch == 20 else 200.0 - epoch,
            "test_bound": start + seed - epoch,
        }
        for name, start in (("gumbel_softmax", 200.0), ("rebar", 190.0))
        for seed in (0, 1)
        for epoch in (2, 4, 6, 8, 20)
    )


def test_the_budget_is_that_of_the_cheapest_and_the_best_validation_bound_within_it_counts() -> None:
    table = build("estimators", runs(), PAPER, curves()).set_index("estimator")
    cheap, dear = table.loc["gumbel_softmax"], table.loc["rebar"]
    assert (cheap["budget"], dear["budget"]) == (20, 20)
    assert (cheap["budget_epochs"], dear["budget_epochs"]) == (20, 6)
    assert cheap["budget_bound"] == pytest.approx(200.5 - 8)
    assert dear["budget_bound"] == pytest.approx(190.5 - 6)
    assert cheap["budget_behind"] == pytest.approx(8)
    assert bool(dear["budget_best"]) and not cheap["budget_best"]
    assert bool(dear["best"])


def test_comparisons_at_equal_epochs_and_at_equal_evaluations_are_corrected_together() -> None:
    """Differences 3 and 2.8 at equal epochs have t = 29, 8 and 7.9 within the budget t = 159, which is doubled."""
    given, followed = runs(), curves()
    given.loc[3, "test_bound"] = 128.2
    followed.loc[(followed["estimator"] == "rebar") & (followed["seed"] == 1), "test_bound"] += 0.1
    frame = build("estimators", given, PAPER, followed)
    cheap = frame.set_index("estimator").loc["gumbel_softmax"]
    assert cheap["budget_behind_p"] == pytest.approx(2 * 2 * stats.t.sf(159, 1))
    assert cheap["behind_p"] == pytest.approx(2 * stats.t.sf(29, 1))
    assert "correction for all comparisons of the table, 2 in number" in render("estimators", frame, "md")


def test_settings_have_budgets_of_their_own() -> None:
    """A second protocol in which three evaluations are the fewest."""
    given, followed = runs(), curves()
    other = {"protocol": "dear", "run": "r-dear", "config_hash": "dear"}
    given = pd.concat([given, given[given["estimator"] == "rebar"].assign(**other)])
    followed = pd.concat([followed, followed[followed["estimator"] == "rebar"].assign(protocol="dear", run="r-dear")])
    table = build("estimators", given, PAPER, followed).set_index(["protocol", "estimator"])
    assert table.loc[("as written", "rebar"), "budget_epochs"] == 6
    assert (table.loc[("dear", "rebar"), "budget"], table.loc[("dear", "rebar"), "budget_epochs"]) == (60, 20)


KNOWN = pd.DataFrame(
    [
        (20, 2, "as written", "gumbel_softmax", "mnist", "validation_bound", 90.0),
        (20, 2, "as written", "gumbel_softmax", "mnist", "train_bound", 80.0),
        (20, 2, "another", "gumbel_softmax", "mnist", "validation_bound", 91.0),
        (20, 2, None, "rebar", "mnist", "validation_bound", 92.0),
        (20, 2, "as written", "rebar", "binarized_mnist", "validation_bound", 93.0),
    ],
    columns=["n", "k", "protocol", "estimator", "data", "metric", "value"],
)


def test_validation_bounds_stand_beside_published_ones_of_the_same_setting_and_data() -> None:
    given, followed = runs().assign(table="benchmark"), curves().assign(table="benchmark")
    given["validation_bound"], given["train_bound"] = given["test_bound"] + 0.5, given["test_bound"] - 2.0
    frame = build("benchmark", given, KNOWN, followed)
    table = frame.set_index(["protocol", "estimator"])
    ours = table.loc[("as written", "gumbel_softmax")]
    assert (ours["paper"], ours["difference"]) == (90.0, pytest.approx(131.0 - 90.0))
    assert pd.isna(table.loc[("as written", "rebar"), "paper"])
    missing = table.loc[("another", "gumbel_softmax")]
    assert (missing["seeds"], missing["paper"]) == (0, 91.0)
    assert list(frame["protocol"]) == ["another", "as written", "as written"]
    text = render("benchmark", frame, "md")
    assert "| test bound (nats) | paper | difference |" in text
    assert "| 90.00 (validation) | +41.00 |" in text
    assert ours["train_bound"] == pytest.approx(given.loc[given["estimator"] == "gumbel_softmax", "train_bound"].mean())
    given.loc[given["seed"] == 0, "train_bound"] = float("nan")
    without = build("benchmark", given, KNOWN, followed).set_index(["protocol", "estimator"])
    assert pd.isna(without.loc[("as written", "gumbel_softmax"), "train_bound"])
    assert "| validation bound (nats) |" in text and "| learning rate | seconds |" in text
    assert "| 131.00 |" in text and "| 0.001 | 60 |" in text


def test_a_first_evaluation_beyond_the_budget_counts_all_the_same() -> None:
    dear = runs()
    dear.loc[dear["estimator"] == "rebar", "decoder_evaluations"] = 21
    table = build("estimators", dear, PAPER, curves()).set_index("estimator")
    assert table.loc["rebar", "budget_epochs"] == 2


def test_rendered_without_published_values() -> None:
    text = render("estimators", build("estimators", runs(), PAPER, curves()), "md")
    header = text.splitlines()[4]
    assert "paper" not in header and "difference" not in header
    assert "| decoder evaluations | budget epochs | budget test bound (nats) | budget behind the best |" in header


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (lambda runs, curves: (runs.assign(decoder_evaluations=float("nan")), curves), "lacks decoder_evaluations"),
        (lambda runs, curves: (runs.drop(columns="decoder_evaluations"), curves), "missing column decoder_evaluations"),
        (lambda runs, curves: (runs, curves[curves["estimator"] != "rebar"]), "curves.csv: no row of r-rebar"),
        (lambda runs, curves: (runs, curves.drop(columns="run")), "curves.csv: missing column run"),
    ],
)
def test_what_is_missing_is_named(changed, problem: str) -> None:
    given = changed(runs(), curves())
    with pytest.raises(UsageError, match=problem):
        build("estimators", given[0], PAPER, given[1])
