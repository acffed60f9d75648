"""What is committed in results/ follows from its files of record; what a config calls chosen is what was found."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from argmax_vae.config.compose import cells
from argmax_vae.objective.labels import SupervisionConfig
from argmax_vae.report import gradients, labels, records, tables
from argmax_vae.statistics import mean_interval

TOP = Path(__file__).parents[2]
RESULTS = TOP / "results"
SEARCHES = {
    "direct": "figure2_search",
    "gumbel_softmax": "figure2_search",
    "direct_rao_blackwell": "estimators_search",
    "gumbel_rao": "estimators_search",
}


RECORDED = set(records.read(RESULTS / "runs.csv", "")["table"])
"""Tables of which anything was trained yet."""


@pytest.mark.parametrize("name", sorted(RECORDED & set(records.TABLES)))
def test_committed_table_equals_regenerated_one(name: str) -> None:
    assert tables.check(name, RESULTS) == []


@pytest.mark.parametrize("name", sorted(RECORDED & set(labels.FIGURES)))
def test_committed_semi_supervised_table_equals_regenerated_one(name: str) -> None:
    assert labels.check(name, RESULTS) == []


@pytest.mark.parametrize("name", gradients.FIGURES)
def test_committed_gradients_equal_regenerated_ones(name: str) -> None:
    assert gradients.check(name, RESULTS) == []


@pytest.mark.parametrize("name", gradients.FIGURES)
def test_mean_squared_errors_of_record_have_the_parts_that_their_caption_says(name: str) -> None:
    """Numbers of record have six digits."""
    frame = gradients.load(RESULTS / f"{name}.csv")
    rest = frame["mean_squared_error"] - frame["squared_bias"] - frame["variance"]
    rounding = 1e-5 * frame["mean_squared_error"].clip(lower=1e-3)
    assert ((rest - frame["reference_error"] ** 2).abs() <= rounding).all()
    keeps = bool((rest.abs() > rounding).any())
    assert ("which the mean-squared error keeps" in gradients.caption(frame)) == keeps


def one_config(override: str) -> Any:
    (cell,) = cells("train", [override])
    return cell.config


@pytest.mark.parametrize("estimator", SEARCHES)
def test_chosen_values_have_the_best_validation_bound_of_their_search(estimator: str) -> None:
    chosen = yaml.safe_load((TOP / "conf" / "experiment" / "written.yaml").read_text(encoding="utf-8"))["chosen"][
        estimator
    ]
    runs = records.read(RESULTS / "runs.csv", "")
    runs = runs[(runs["table"] == SEARCHES[estimator]) & (runs["estimator"] == estimator)]
    means = runs.groupby(["latents", "schedule"])["validation_bound"].mean()
    assert set(runs["latents"]) == set(chosen)
    for latents, value in chosen.items():
        best = str(means[latents].idxmin())
        assert float(best.split("=")[1].split(",", maxsplit=1)[0]) == value, f"{latents}: {means[latents].to_dict()}"


@pytest.mark.parametrize("estimator", ["direct", "gumbel_softmax"])
@pytest.mark.skipif("figure3_search" not in RECORDED, reason="not searched yet")
def test_chosen_values_have_the_best_validation_accuracy_of_their_search(estimator: str) -> None:
    config = one_config(f"experiment=joint_mixture_{estimator}")
    runs = records.read(RESULTS / "runs.csv", "")
    runs = runs[(runs["table"] == "figure3_search") & (runs["estimator"] == estimator)]
    best = runs.loc[runs["validation_accuracy"].astype(float).idxmax()]
    parameter = {"direct": "epsilon", "gumbel_softmax": "temperature"}[estimator]
    assert str(best["schedule"]).split("=")[1].strip() == str(getattr(config.estimator, parameter).value)
    assert float(best["labelled_weight"]) == config.supervision.labelled_weight


@pytest.mark.skipif("figure3_search" not in RECORDED, reason="not searched yet")
def test_what_captions_say_about_the_search_before_figure3_is_what_was_found() -> None:
    runs = records.read(RESULTS / "runs.csv", "")
    search = runs[runs["table"] == "figure3_search"]
    ((data, number, gaussian, epochs),) = search[["data", "labels", "gaussian", "epochs"]].drop_duplicates().to_numpy()
    assert (number, epochs) == (100, 10)
    assert f"{data.upper()} with {gaussian:g} Gaussian latents" == labels.SEARCHED_ON
    assert not set(search["seed"]) & set(runs.loc[runs["table"] == "figure3", "seed"])
    found = {}
    for estimator, rows in search.groupby("estimator"):
        assert len(rows) == len(rows[["schedule", "labelled_weight"]].drop_duplicates()) == 16
        assert rows["seed"].nunique() == 1
        values = rows["schedule"].str.split(" = ").str[1].astype(float)
        best = rows["validation_accuracy"].idxmax()
        chosen = [(values[best], values), (rows.loc[best, "labelled_weight"], rows["labelled_weight"])]
        assert all(grid.min() < value < grid.max() for value, grid in chosen)
        found[estimator] = f"{rows.loc[best, 'schedule']} with weight {rows.loc[best, 'labelled_weight']:g}"
    assert set(found) == {"direct", "gumbel_softmax"}
    best_pairs = f"{found['gumbel_softmax']} for Gumbel-Softmax and {found['direct']} for direct"
    assert f"the best are {best_pairs}, inside their grids" == labels.CHOSEN


@pytest.mark.parametrize("name", sorted(RECORDED & set(labels.FIGURES)))
def test_direct_has_the_higher_mean_accuracy_in_every_pair_as_readme_says(name: str) -> None:
    frame = pd.read_csv(RESULTS / f"{name}.csv")
    for _, rows in frame.groupby(list(labels.COMPARABLE)):
        means = rows.set_index("estimator")["accuracy_percent"]
        assert len(means) == 1 or means["direct"] > means["gumbel_softmax"]


def test_what_readme_says_of_the_accuracies_published_in_2019() -> None:
    frame = pd.read_csv(RESULTS / "figure3_2019.csv")
    direct = frame[frame["estimator"] == "direct"]
    short = direct["accuracy_percent_paper"] - direct["accuracy_percent"]
    fashion = direct["data"] == "fashion_mnist"
    assert (short[fashion] <= direct.loc[fashion, "accuracy_percent_half_width"]).all()
    assert short[~fashion].between(1, 5).all()


@pytest.mark.parametrize(
    ("estimator", "labels", "certain"),
    [("direct", 50, True), ("direct", 100, False), ("gumbel_softmax", 50, True), ("gumbel_softmax", 100, True)],
)
def test_what_readme_says_of_seeing_few_labels_first(estimator: str, labels: int, certain: bool) -> None:
    runs = records.read(RESULTS / "runs.csv", "")
    runs = runs[(runs["table"] == "figure3") & (runs["estimator"] == estimator) & (runs["labels"] == labels)]
    joint, labels_first = (
        runs[runs["protocol"] == protocol].set_index("seed") for protocol in ("joint", "labels first, then joint")
    )
    assert set(joint["epochs"]) == set(labels_first["epochs"])
    gain = mean_interval(labels_first["test_perturbed_accuracy"] - joint["test_perturbed_accuracy"])
    assert 0.035 < gain.mean < 0.09
    assert (gain.mean > gain.half_width) == certain


@pytest.mark.parametrize("estimator", ["direct", "gumbel_softmax"])
@pytest.mark.parametrize("number", [300, 600])
def test_what_readme_says_of_seeing_many_labels_first(estimator: str, number: int) -> None:
    frame = pd.read_csv(RESULTS / "figure3.csv")
    frame = frame[(frame["estimator"] == estimator) & (frame["labels"] == number)].set_index("protocol")
    labels_first, joint = (frame.loc[protocol] for protocol in ("labels first, then joint", "joint"))
    assert abs(labels_first["accuracy_percent"] - joint["accuracy_percent"]) < joint["accuracy_percent_half_width"]


def test_what_readme_says_of_the_published_values_with_labels_first() -> None:
    frame = pd.read_csv(RESULTS / "figure3.csv")
    frame = frame[frame["protocol"] == "labels first, then joint"]
    assert set(frame["epochs"]) == {100} and set(frame["labels"]) == {50, 100, 300, 600}
    for estimator, bound, perturbed, arg_max in (
        ("direct", (-3.9, -0.4), (0.8, 1.6), (0.0, 0.7)),
        ("gumbel_softmax", (-4.0, 1.0), (0.9, 3.1), (0.9, 3.1)),
    ):
        rows = frame[frame["estimator"] == estimator]
        published = rows["accuracy_percent_paper"]
        for found, (least, most) in (
            (rows["test_bound"] - rows["test_bound_paper"], bound),
            (published - rows["accuracy_percent"], perturbed),
            (published - rows["argmax_accuracy_percent"], arg_max),
        ):
            assert (round(found.min(), 1), round(found.max(), 1)) == (least, most)


def test_what_readme_says_of_the_last_epochs_of_joint_mixtures() -> None:
    curves = pd.read_csv(RESULTS / "curves.csv")
    curves = curves[(curves["table"] == "figure3") & curves["protocol"].isin(["joint", "labels first, then joint"])]
    values = ["validation_accuracy", "validation_bound"]
    cells = curves.pivot_table(values, ["protocol", "labels", "estimator"], "epoch")
    rise = cells["validation_accuracy"][100] - cells["validation_accuracy"][80]
    fall = cells["validation_bound"][80] - cells["validation_bound"][100]
    assert len(cells) == 16
    assert rise.max() < 0.007 and fall.max() < 1


def test_what_readme_says_of_labels_that_are_forgotten() -> None:
    """As released, with 100 labels, Gumbel-Softmax loses accuracy from epoch 20 on, and gains bound."""
    curves = pd.read_csv(RESULTS / "curves.csv")
    curves = curves[(curves["table"] == "figure3") & (curves["protocol"] == labels.RELEASED)]
    curves = curves[(curves["estimator"] == "gumbel_softmax") & (curves["labels"] == 100)]
    means = curves.groupby("epoch")[["validation_accuracy", "validation_bound"]].mean()
    assert means["validation_accuracy"].idxmax() == 20
    assert means["validation_accuracy"].round(2).loc[[20, 105]].tolist() == [0.77, 0.65]
    assert means["validation_bound"][105] < means["validation_bound"][20] - 1
    frame = pd.read_csv(RESULTS / "figure3.csv")
    rows = frame[frame["protocol"] == labels.RELEASED].set_index("estimator")
    row = rows.loc["gumbel_softmax"]
    assert row["accuracy_percent_paper"] - row["accuracy_percent"] == pytest.approx(17.4, abs=0.1)
    assert abs(row["accuracy_percent"] - row["argmax_accuracy_percent"]) < 0.1
    assert abs(row["test_bound"] - row["test_bound_paper"]) < row["test_bound_half_width"]


def test_what_readme_says_of_direct_as_released() -> None:
    frame = pd.read_csv(RESULTS / "figure3.csv").set_index(["protocol", "labels", "estimator"])
    row = frame.loc[(labels.RELEASED, 100, "direct")]
    assert round(row["accuracy_percent"], 1) == 95.6 and round(row["accuracy_percent_half_width"], 1) == 0.5
    assert round(row["accuracy_percent_paper"], 1) == 95.7
    assert abs(row["accuracy_percent"] - row["accuracy_percent_paper"]) < row["accuracy_percent_half_width"]
    assert (round(row["test_bound"], 1), round(row["test_bound_half_width"], 1)) == (92.6, 1.5)
    assert row["test_bound_paper"] - row["test_bound"] == pytest.approx(7.2, abs=0.1)
    for training in ("joint", "labels first, then joint"):
        other = frame.loc[(training, 100, "direct")]
        assert other["accuracy_percent"] < row["accuracy_percent"] and other["test_bound"] > row["test_bound"]
    curves = pd.read_csv(RESULTS / "curves.csv")
    curves = curves[(curves["table"] == "figure3") & (curves["protocol"] == labels.RELEASED)]
    curves = curves[(curves["estimator"] == "direct") & (curves["labels"] == 100) & (curves["epoch"] >= 55)]
    means = curves.groupby("epoch")[["validation_accuracy", "validation_bound"]].mean()
    assert 0 < means["validation_accuracy"][105] - means["validation_accuracy"][55] < 0.01
    assert 0 < means["validation_bound"][55] - means["validation_bound"][105] < 2


def test_what_readme_says_of_a_temperature_that_falls_from_the_labels_on() -> None:
    curves = pd.read_csv(RESULTS / "curves.csv")
    curves = curves[(curves["table"] == "figure3") & (curves["labels"] == 100)]
    means = curves.groupby(["protocol", "estimator", "epoch"])[["validation_accuracy", "validation_bound"]].mean()
    slow = means.loc["sequential, τ from the labels on", "gumbel_softmax"]
    released = means.loc[labels.RELEASED, "gumbel_softmax"]
    assert slow["validation_accuracy"].idxmin() == 30
    assert slow["validation_accuracy"].round(2).loc[[30, 105]].tolist() == [0.77, 0.86]
    assert slow["validation_bound"][105] == pytest.approx(92.8, abs=0.05)
    direct = means.loc[labels.RELEASED, "direct"]
    assert direct["validation_bound"][105] == pytest.approx(92.7, abs=0.05)
    gained = slow.loc[105] - released.loc[105]
    assert gained["validation_accuracy"] == pytest.approx(0.215, abs=0.005)
    assert gained["validation_bound"] == pytest.approx(-7.1, abs=0.05)
    runs = pd.read_csv(RESULTS / "runs.csv", low_memory=False)
    kept = runs[(runs["table"] == "figure3") & (runs["protocol"] == "sequential, τ from the labels on")]
    assert sorted(kept["best_epoch"]) == [5, 80, 105]
    assert kept.loc[kept["best_epoch"] == 5, "test_bound"].round().tolist() == [130]


def test_what_captions_say_about_the_released_training_is_its_configuration() -> None:
    config = one_config("experiment=released_mixture_direct")
    supervision = config.supervision
    assert config.protocol == labels.RELEASED
    assert supervision.source == "train_and_validation"
    assert f"ε of direct is {supervision.labelled_value} while" in labels.SEQUENTIAL
    assert supervision.sampling == "without_replacement"
    assert f"in {supervision.labelled_visits:,} passes" in labels.WITHOUT_REPLACEMENT


@pytest.mark.parametrize("training", labels.VISITS)
def test_epochs_of_labelled_images_alone_are_those_of_the_configuration(training: str) -> None:
    """With 500 steps an epoch. As released a pass is one visit less, which is as many epochs."""
    text = (TOP / "conf" / "supervision" / f"{training}.yaml").read_text(encoding="utf-8")
    chosen = yaml.safe_load(text)
    for number in (50, 100, 300, 600, 1200):
        found = labels.labelled_epochs(pd.DataFrame({"training": [training], "labels": [number]}))
        assert found == SupervisionConfig(**{**chosen, "labels": number}).labelled_epochs(500)
        released = SupervisionConfig(training="sequential", labels=number, labelled_visits=1499)
        assert training != "sequential" or found == released.labelled_epochs(500)


@pytest.mark.parametrize("estimator", ["direct", "gumbel_softmax"])
@pytest.mark.skipif("figure6_search" not in RECORDED, reason="not searched yet")
def test_chosen_values_of_deep_networks_have_the_best_validation_bound_of_their_search(estimator: str) -> None:
    config = one_config(f"experiment=deep_{estimator}")
    runs = records.read(RESULTS / "runs.csv", "")
    runs = runs[(runs["table"] == "figure6_search") & (runs["estimator"] == estimator)]
    best = runs.loc[runs["validation_bound"].astype(float).idxmin()]
    parameter = {"direct": "epsilon", "gumbel_softmax": "temperature"}[estimator]
    assert float(str(best["schedule"]).split("=")[1]) == getattr(config.estimator, parameter).value


@pytest.mark.skipif("benchmark_search" not in RECORDED, reason="not searched yet")
def test_chosen_values_of_the_benchmark_have_the_best_validation_bound_of_their_search() -> None:
    runs = records.read(RESULTS / "runs.csv", "")
    runs = runs[runs["table"] == "benchmark_search"]
    chosen = {
        (cell.config.protocol, cell.config.estimator.name): cell.config
        for name in ("benchmark", "benchmark_two_layers")
        for cell in cells(name, [])
    }
    for key, rows in runs.groupby(["protocol", "estimator"]):
        best = rows.loc[rows["validation_bound"].astype(float).idxmin()]
        config = chosen[key]
        assert float(best["learning_rate"]) == config.optim.learning_rate, key
        assert pd.isna(best["schedule"]) or best["schedule"] == config.estimator.describe_schedule(), key


@pytest.mark.parametrize("estimator", ["direct", "gumbel_softmax"])
@pytest.mark.skipif("figure4_search" not in RECORDED, reason="not searched yet")
def test_chosen_weights_of_attributes_have_the_best_validation_accuracy_of_their_search(estimator: str) -> None:
    config = one_config(f"experiment=attributes_{estimator}")
    runs = records.read(RESULTS / "runs.csv", "")
    runs = runs[(runs["table"] == "figure4_search") & (runs["estimator"] == estimator)]
    assert sorted(runs["labelled_weight"].astype(float)) == [10, 100, 1000]
    best = runs.loc[runs["validation_accuracy"].astype(float).idxmax()]
    assert float(best["labelled_weight"]) == config.supervision.labelled_weight


def test_the_weight_of_labels_with_a_component_bias_has_the_best_validation_accuracy_of_its_search() -> None:
    """The best of 10, 100, 1,000 and 10,000 lies inside the grid, and is that of the cells."""
    runs = records.read(RESULTS / "runs.csv", "")
    runs = runs[runs["table"] == "figure4_component_bias_search"].astype({"validation_accuracy": float})
    assert sorted(runs["labelled_weight"].astype(float)) == [10, 100, 1000, 10_000]
    best = float(runs.loc[runs["validation_accuracy"].idxmax(), "labelled_weight"])
    weights = {cell.config.supervision.labelled_weight for cell in cells("figure4_component_bias", [])}
    assert weights == {best} == {1000}


def test_what_readme_says_of_generated_faces() -> None:
    """A component's mean has what its faces share, a bias mends it, and labels in their shares find glasses."""
    frame = pd.read_csv(RESULTS / "figure4.csv")
    alike = frame[(frame["gaussian"] == 8) & frame["component_bias"]].pivot(index="attribute", columns="estimator")
    shown = alike["generated_with_attribute"].round(2)
    assert list(shown) == ["direct", "exact", "gumbel_softmax"]
    for attribute, low, high in (("Smiling", 0.95, 0.96), ("Male", 0.78, 0.80), ("Eyeglasses", 0.62, 0.65)):
        assert (shown.loc[attribute].min(), shown.loc[attribute].max()) == (low, high)
    assert list(alike["test_bound"].loc["Male"].sort_values().index) == ["exact", "gumbel_softmax", "direct"]
    assert (alike["test_accuracy"]["direct"] == alike["test_accuracy"].max(axis=1)).all()
    frame = frame[frame["estimator"] == "gumbel_softmax"]
    cells = frame.set_index(["labels", "gaussian", "component_bias", "attribute"]).sort_index()
    few = cells.loc[800, 32, False]
    for column, smiles in (("generated", 0.62), ("centred", 0.92)):
        assert few.loc["Smiling", f"{column}_with_attribute"] == pytest.approx(smiles, abs=0.006)
    assert (cells["reconstructed_with_attribute"] > 0.94).all()
    shown = cells["generated_with_attribute"].round(2)
    for gaussian, attribute, without, with_bias in (
        *((32, "Smiling", 0.62, 0.80), (32, "Male", 0.61, 0.75)),
        *((8, "Smiling", 0.80, 0.95), (8, "Male", 0.64, 0.79)),
    ):
        assert shown.loc[4000, gaussian, False, attribute] == without
        assert shown.loc[4000, gaussian, True, attribute] == with_bias
    bounds = cells.xs("Male", level="attribute")["test_bound"]
    assert sorted((bounds.loc[4000, 8] - bounds.loc[4000, 32]).round(-1)) == [190, 250]
    assert bounds.loc[4000, 32, False] > bounds.loc[800, 32, False] + 100
    glasses = cells.xs("Eyeglasses", level="attribute")
    assert glasses.loc[800, "test_accuracy"].item() < glasses["more_frequent_value"].iloc[0]
    assert (glasses.loc[4000, "test_accuracy"] > glasses["more_frequent_value"].iloc[0]).all()


def test_every_run_of_record_has_its_origin() -> None:
    runs = records.read(RESULTS / "runs.csv", "")
    for column in ("run", "config_hash", "commit", "device", "torch", "epochs", "seconds"):
        assert runs[column].notna().all(), column
    assert isinstance(runs, pd.DataFrame)
    assert not runs["dirty"].astype(str).str.lower().eq("true").any()


def test_what_readme_says_of_which_estimator_to_take() -> None:
    """DisARM leads at equal epochs and at equal evaluations, of which NVIL and Gumbel-Softmax need one a step."""
    frame = pd.read_csv(RESULTS / "estimators.csv").set_index("estimator")
    assert frame["test_bound"].idxmin() == frame["budget_bound"].idxmin() == "disarm"
    for name in ("nvil", "gumbel_softmax"):
        assert frame.loc[name, "decoder_evaluations"] == 1
        assert frame.loc[name, "budget_bound"] - frame.loc["disarm", "budget_bound"] < 0.5
    assert abs(frame.loc["nvil", "test_bound"] - frame.loc[["direct", "gumbel_softmax"], "test_bound"].mean()) < 0.5
    assert frame.loc["imle", "behind_p"] < 0.05
    errors = pd.read_csv(RESULTS / "figure1_20x2.csv").query("target == 'logits' and estimator != 'exact'")
    settings = errors.groupby(["estimator", "value"], dropna=False)["mean_squared_error"].mean()
    best = settings.groupby("estimator").min().sort_values()
    assert list(best.index[:2]) == ["direct_control_variate", "local_expectation"]
    four = errors[errors["decoder_evaluations"] == 4].groupby("estimator")["cosine"].mean()
    assert four.idxmax() == "unordered_set"
    assert len(four) == 6


def test_what_readme_says_of_the_benchmark() -> None:
    frame = pd.read_csv(RESULTS / "benchmark.csv").query("protocol == 'one linear layer, static' and seeds > 0")
    rows = frame.set_index("estimator")
    assert rows["test_bound"].idxmin() == rows["budget_bound"].idxmin() == "reinmax"
    assert (rows["epochs"] == 8).all() and len(rows) == 17
    told = {"reinforce": (1.2, 0.5), "gumbel_softmax": (3.6, 0.5), "direct": (6.6, 0.7), "imle": (13.1, 0.8)}
    told |= {"sum_and_sample": (7.7, 1.8), "arsm": (8.6, 0.3)}
    told |= {"gumbel_rao": (1.6, 0.5), "straight_through": (8.9, 0.2), "nvil": (9.0, 2.0)}
    for name, (behind, half_width) in told.items():
        assert (round(rows.loc[name, "behind"], 1), round(rows.loc[name, "behind_half_width"], 1)) == (
            behind,
            half_width,
        )
    assert (rows.loc[["rebar", "relax"], "behind"] - 2.5).abs().max() < 0.1
    with_four = ["unordered_set", "carms", "double_control_variates"]
    assert rows.loc[with_four, "behind"].round(1).agg(["min", "max"]).tolist() == [1.3, 1.8]
    unbiased = ["reinforce", "disarm_categorical", "rebar", "relax", *with_four]
    assert (rows.loc[unbiased, "budget_behind"] > 10).all()
    assert (rows.loc[["nvil", "arsm", "sum_and_sample"], "budget_behind"] > 8.9).all()
    deep = pd.read_csv(RESULTS / "benchmark.csv").query("protocol == '784-512-256, thresholded' and seeds > 0")
    rows = deep.set_index("estimator")
    assert rows["test_bound"].idxmin() == rows["budget_bound"].idxmin() == "gumbel_rao"
    assert (rows["epochs"] == 10).all() and len(rows) == 12
    assert rows.loc[["unordered_set", "carms", "reinforce"], "behind"].round(1).tolist() == [1.2, 1.4, 1.8]
    told = {
        "reinmax": (0.3, 0.9),
        "gumbel_softmax": (4.5, 1.5),
        "rebar": (4.9, 1.0),
        "relax": (5.0, 1.2),
        "straight_through": (10.7, 1.6),
    }
    told |= {"disarm_categorical": (11.7, 1.2), "imle": (22.7, 2.4), "nvil": (28.9, 4.3)}
    for name, (behind, half_width) in told.items():
        assert (round(rows.loc[name, "behind"], 1), round(rows.loc[name, "behind_half_width"], 1)) == (
            behind,
            half_width,
        )
    assert rows["behind"].nlargest(2).index.tolist() == ["nvil", "imle"]
    unbiased = ["unordered_set", "carms", "reinforce", "nvil", "disarm_categorical", "rebar"]
    assert (rows.loc[unbiased, "budget_behind"] > 10).all()
    small = pd.read_csv(RESULTS / "estimators.csv").set_index("estimator").loc["reinmax"]
    assert (round(small["behind"], 1), round(small["behind_half_width"], 1)) == (2.3, 0.5)


def test_what_readme_says_of_errors_and_directions_at_20x2() -> None:
    frame = pd.read_csv(RESULTS / "figure1_20x2.csv").query("target == 'logits'").fillna({"choices": ""})
    by_seed = frame.set_index("seed").groupby("estimator")["mean_squared_error"]
    ours = frame[(frame["estimator"] == "direct_control_variate") & (frame["value"] == 0.01)].set_index("seed")
    ratio = mean_interval(by_seed.get_group("local_expectation") / ours["mean_squared_error"])
    assert (round(ratio.mean, 1), round(ratio.half_width, 1)) == (1.9, 0.5)
    deep = pd.read_csv(RESULTS / "figure6_gradients.csv").query("target == 'logits'")
    least = deep.groupby(["estimator", "value"], dropna=False)["mean_squared_error"].mean().groupby("estimator").min()
    assert 0.3 < least["local_expectation"] / least["direct_control_variate"] < 0.4
    means = frame.groupby(["estimator", "choices", "value"], dropna=False)[["cosine", "decoder_evaluations"]].mean()
    assert round(by_seed.get_group("nvil").mean()) == 56
    assert means.loc["nvil", "cosine"].round(2).tolist() == [0.13]
    front = means.sort_values(["decoder_evaluations", "cosine"], ascending=[True, False])
    front = front[front["cosine"] > front["cosine"].cummax().shift(fill_value=-1.0)].round(2).reset_index()
    assert list(zip(front["estimator"], front["cosine"], front["decoder_evaluations"], strict=True)) == [
        ("gumbel_softmax", 0.36, 1),
        ("disarm", 0.39, 2),
        ("unordered_set", 0.66, 4),
        ("direct_rao_blackwell", 0.87, 21),
        ("direct_control_variate", 0.92, 26),
    ]


def test_what_readme_says_of_direct_behind_deep_networks() -> None:
    """Its variance, not its candidates: what averaging out its noise leaves at the same ε, and what ε trades."""
    frame = pd.read_csv(RESULTS / "figure6_gradients.csv").query("target == 'encoder'").fillna({"choices": ""})
    cell = frame.groupby(["estimator", "choices", "value"], dropna=False)[["squared_bias", "variance"]].mean()
    low, high = cell.loc[("direct", "", 0.03)], cell.loc[("direct", "", 1.0)]
    assert abs(low["squared_bias"]) < 0.02
    assert round(low["variance"]) == 20
    assert (round(high["variance"], 1), round(high["squared_bias"], 1)) == (0.2, 0.7)
    direct = cell.loc[("direct", "")]
    assert ((direct["variance"] > 1) | (direct["squared_bias"] > 0.4)).all()
    averaged = cell.loc[("direct_rao_blackwell", "given=others", 0.03)]
    expectation = cell.loc[("local_expectation", "")].iloc[0]
    assert round(averaged["variance"], 1) == round(expectation["variance"], 1) == 0.7
    assert abs(expectation["squared_bias"]) < 0.005
    table = pd.read_csv(RESULTS / "figure6.csv").query("n == 20").set_index("estimator")["test_bound"]
    assert 9 < table["direct"] - table["reinforce"] < 11
    assert 4 < table["direct"] - table["disarm_categorical"] < 6
    for name in ("local_expectation", "direct_rao_blackwell"):
        assert round(table["direct"] - table[name]) == 17
        assert round(table[name] - table["gumbel_softmax"]) == 3
