"""The table of accuracies and bounds by labels, from small synthetic files."""

import math
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from argmax_vae.errors import UsageError
from argmax_vae.report import label_curves, labels
from argmax_vae.report.labels import (
    CONSTANT,
    FIGURES,
    RELEASED,
    build,
    caption,
    check,
    draw,
    load,
    named_by_training,
    render,
    write,
)

PAPER = Path(__file__).parents[2] / "results" / "paper"


def rows(estimator: str, labels: int, accuracies: list[float], bound: float, protocol: str = "joint") -> list[dict]:
    """A done row per seed."""
    common = {"table": "figure3", "data": "mnist", "labels": labels, "protocol": protocol, "estimator": estimator}
    sequential = protocol == RELEASED
    common |= {"kl": "analytic", "schedule": "ε = 1 for 500 steps, then 0.1" if sequential else "ε = 0.1"}
    common |= {"run": f"{estimator}-{labels}-{protocol}", "training": "sequential" if sequential else "joint"}
    origin = {"device": "a processor", "torch": "2.11", "commit": "0123456789ab", "dirty": False}
    return [
        common
        | origin
        | {"seed": seed, "status": "done", "epochs": 30, "test_accuracy": accuracy + 0.01}
        | {"test_perturbed_accuracy": accuracy, "test_bound": bound + seed}
        for seed, accuracy in enumerate(accuracies)
    ]


def example() -> pd.DataFrame:
    found = rows("direct", 50, [0.95, 0.96, 0.97], 100.0) + rows("gumbel_softmax", 50, [0.90, 0.92, 0.94], 99.0)
    found += rows("direct", 600, [0.97], 98.0, RELEASED)
    return pd.DataFrame([*found, found[0] | {"table": "figure2", "seed": 7}])


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "paper").mkdir()
    for name in FIGURES:
        (tmp_path / "paper" / f"{name}.csv").write_text((PAPER / f"{name}.csv").read_text())
    example().to_csv(tmp_path / "runs.csv", index=False)
    return tmp_path


def test_means_published_values_and_paired_differences(results: Path) -> None:
    table = build("figure3", *load("figure3", results)).set_index(["labels", "estimator"])
    direct, gumbel = table.loc[(50, "direct")], table.loc[(50, "gumbel_softmax")]
    assert direct["accuracy_percent"] == pytest.approx(96.0)
    assert direct["argmax_accuracy_percent"] == pytest.approx(97.0)
    assert direct["accuracy_percent_half_width"] == pytest.approx(4.302653 / math.sqrt(3))
    assert (direct["accuracy_percent_paper"], direct["test_bound_paper"]) == (95.51, 104.15)
    assert table["argmax_accuracy_percent_paper"].isna().all(), "published is the accuracy of the perturbed arg max"
    assert gumbel["accuracy_percent_behind"] == pytest.approx(4.0)
    assert math.isnan(direct["accuracy_percent_behind"])
    assert direct["test_bound_behind"] == pytest.approx(1.0)
    assert math.isnan(gumbel["test_bound_behind"])
    assert math.isnan(table.loc[(600, "direct"), "accuracy_percent_half_width"])


def test_comparisons_by_accuracy_and_by_bound_are_corrected_together() -> None:
    """Differences 3, 4 and 5 % have t = 4√3; those of the bounds 1, 1.1 and 1.2 have t = 11√3, which is doubled."""
    runs = pd.DataFrame(rows("direct", 50, [0.95, 0.96, 0.97], 100.0) + rows("gumbel_softmax", 50, [0.92] * 3, 101.0))
    runs.loc[3:, "test_bound"] += [0.0, 0.1, 0.2]
    frame = build("figure3", runs, pd.DataFrame(columns=["data", "labels", "estimator", "metric", "value"]))
    gumbel = frame.set_index("estimator").loc["gumbel_softmax"]
    assert gumbel["test_bound_behind_p"] == pytest.approx(2 * 2 * stats.t.sf(11 * math.sqrt(3), 2))
    assert gumbel["accuracy_percent_behind_p"] == pytest.approx(2 * stats.t.sf(4 * math.sqrt(3), 2))
    assert not [column for column in frame if column.startswith("argmax") and "behind" in column]
    text = render("figure3", frame, "md")
    assert "correction for all comparisons of the table, 2 in number" in text
    assert text.count("†") == 3, "both columns and the caption"


def test_rendered_table_and_its_commands(results: Path) -> None:
    text = render("figure3", build("figure3", *load("figure3", results)), "md")
    assert "| mnist | 50 | joint | direct | analytic | ε = 0.1 | 96.00 ± 2.48 | 95.51 | best | 97.00 ± 2.48 |" in text
    assert "argmax-vae reproduce figure3\n" in text
    assert render("figure3", build("figure3", *load("figure3", results)), "tex").startswith("% Figure 3")


def test_caption_says_where_the_choices_of_other_settings_come_from(results: Path) -> None:
    frame = build("figure3", *load("figure3", results))
    here, elsewhere = (" ".join(render(name, frame, "md").split()) for name in ("figure3", "figure3_2019"))
    assert "weight of the labels were chosen in joint training by validation accuracy with 100 labels" in here
    assert (
        "were chosen in joint training on MNIST with 20 Gaussian latents by validation accuracy with 100 labels"
        in elsewhere
    )


def test_trainings_are_not_compared_with_each_other_and_captions_say_what_belongs_to_them(results: Path) -> None:
    found = rows("direct", 50, [0.95, 0.96, 0.97], 100.0) + rows("gumbel_softmax", 50, [0.90, 0.92, 0.94], 99.0)
    other = rows("direct", 50, [0.99] * 3, 90.0, RELEASED)
    frames = [build("figure3", pd.DataFrame(runs), load("figure3", results)[1]) for runs in (found, found + other)]
    alone, beside = (frame.set_index(["protocol", "estimator"]) for frame in frames)
    pair = [("joint", "direct"), ("joint", "gumbel_softmax")]
    pd.testing.assert_frame_equal(alone.loc[pair], beside.loc[pair])
    captions = [render("figure3", frame, "md") for frame in frames]
    for words in ("Other than in sequential training", "ε of direct is 0.05", "As released they are drawn without"):
        assert [words in caption for caption in captions] == [False, True], words


def test_sequential_training_with_a_constant_is_not_called_as_released(results: Path) -> None:
    """In table, caption and curves, while rows as released beside it stay."""
    runs = example()
    alone = runs["protocol"] == RELEASED
    held = runs[alone].assign(schedule="τ = 1", estimator="gumbel_softmax", run="held")
    pd.concat([runs, held]).to_csv(results / "runs.csv", index=False)
    loaded, paper = load("figure3", results)
    frame = build("figure3", loaded, paper).set_index(["estimator", "labels"])
    assert frame.loc[("direct", 600), "protocol"] == RELEASED
    assert frame.loc[("gumbel_softmax", 600), "protocol"] == CONSTANT
    assert frame.loc[("direct", 50), "protocol"] == "joint"
    assert "differs from the paper's code" in caption("figure3", frame.reset_index())
    curves = pd.DataFrame({"run": ["held", "direct-600-" + RELEASED], "protocol": [RELEASED] * 2})
    named = named_by_training(curves, pd.read_csv(results / "runs.csv"))
    assert named["protocol"].tolist() == [CONSTANT, RELEASED]


def test_unlabelled_epochs_are_those_behind_the_labelled_images(results: Path) -> None:
    """18 of 30 epochs by 1,500 visits of 600 images in batches of 100, unless the rows say it themselves."""
    for recorded, unlabelled in ((None, 12), (25, 5)):
        runs = example()
        if recorded:
            runs["labelled_epochs"] = runs["training"].map({"joint": 0, "sequential": recorded})
        runs.to_csv(results / "runs.csv", index=False)
        frame = build("figure3", *load("figure3", results)).set_index(["labels", "estimator"])
        assert frame.loc[(600, "direct"), ["epochs", "unlabelled_epochs"]].tolist() == [30, unlabelled]
        assert frame.loc[(50, "direct"), ["epochs", "unlabelled_epochs"]].tolist() == [30, 30]
        assert f"| 30 | {unlabelled} |" in render("figure3", frame.reset_index(), "md")


def test_each_origin_is_named_once(results: Path) -> None:
    changed = example()
    changed.loc[:2, "commit"] = "0123456789ab, ba9876543210"
    changed.to_csv(results / "runs.csv", index=False)
    frame = build("figure3", *load("figure3", results))
    assert frame["commit"][0] == "0123456789ab, ba9876543210"
    assert render("figure3", frame, "md").count("0123456789ab") == 1


def test_written_files_are_up_to_date_until_the_record_changes(results: Path) -> None:
    assert {path.suffix for path in write("figure3", results)} == {".svg", ".md", ".tex", ".csv"}
    assert check("figure3", results) == []
    changed = example()
    changed.loc[0, "test_bound"] += 5
    changed.to_csv(results / "runs.csv", index=False)
    assert {Path(line.split(":")[0]).suffix for line in check("figure3", results)} == {".md", ".tex", ".csv", ".svg"}


def curves_of(runs: pd.DataFrame) -> pd.DataFrame:
    """Two epochs of every run."""
    epochs = [runs.assign(epoch=epoch, validation_accuracy=0.9, validation_bound=100.0 + epoch) for epoch in (5, 10)]
    return pd.concat(epochs, ignore_index=True)


def test_curves_are_drawn_of_seeds_that_are_done_and_checked(results: Path) -> None:
    """With 100 labels; a training is named as in the table, a seed that diverged is left out."""
    found = rows("direct", 100, [0.95, 0.96], 100.0) + rows("gumbel_softmax", 100, [0.9, 0.92, 0.94], 99.0, RELEASED)
    runs = pd.DataFrame([*found, *example().to_dict("records")])
    runs.loc[runs["estimator"] == "gumbel_softmax", "schedule"] = "τ = 1"
    runs.loc[4, "status"] = "diverged"
    runs.to_csv(results / "runs.csv", index=False)
    curves_of(runs).to_csv(results / "curves.csv", index=False)
    named, paper = load("figure3", results)
    drawn = label_curves.load("figure3", results, named)
    assert len(drawn) == 2 * 4 and set(drawn["labels"]) == {100}
    assert set(drawn["protocol"]) == {"joint", CONSTANT}
    figure = label_curves.draw("figure3", drawn, paper)
    line = figure.axes[0].lines[0]
    assert line.get_ydata().tolist() == pytest.approx([90, 90])
    assert figure.axes[0].lines[1].get_ydata()[0] == 95.71, "the published accuracy"
    assert results / "figure3_curves.svg" in write("figure3", results)
    assert "(figure3_curves.svg)" in (results / "figure3.md").read_text()
    assert check("figure3", results) == []
    curves_of(runs).assign(validation_bound=99.0).to_csv(results / "curves.csv", index=False)
    assert check("figure3", results) == [f"{results / 'figure3_curves.svg'}: draws other data than the files of record"]


def test_an_epoch_of_a_seed_that_occurs_twice_is_refused(results: Path) -> None:
    runs = pd.DataFrame(rows("direct", 100, [0.95, 0.96], 100.0))
    twice = curves_of(runs).assign(epoch=5)
    twice.to_csv(results / "curves.csv", index=False)
    with pytest.raises(UsageError, match=r"table=figure3: an epoch of a seed occurs twice"):
        label_curves.load("figure3", results, runs)


def test_a_csv_that_was_altered_is_found_and_rounding_forgiven(results: Path) -> None:
    write("figure3", results)
    path = results / "figure3.csv"
    text = path.read_text(encoding="utf-8")
    assert "95.51," in text
    path.write_text(text.replace("95.51,", "95.5100000000001,"), encoding="utf-8")
    assert check("figure3", results) == []
    path.write_text(text.replace("95.51,", "95.52,"), encoding="utf-8")
    (line,) = check("figure3", results)
    assert line.startswith(f"{path}:2: committed") and "computed" in line
    path.unlink()
    assert {Path(line.split(":")[0]).name for line in check("figure3", results)} == {"figure3.csv"}


def test_seeds_that_diverged_are_counted_and_left_out(results: Path) -> None:
    changed = example()
    changed.loc[0, ["status", "test_bound"]] = ["diverged", math.nan]
    row = build("figure3", changed[changed["table"] == "figure3"], load("figure3", results)[1]).iloc[0]
    assert (row["seeds"], row["diverged"]) == (2, 1)
    assert row["accuracy_percent"] == pytest.approx(96.5)


def test_runs_without_the_name_of_a_protocol_are_shown(results: Path) -> None:
    example().assign(protocol="").to_csv(results / "runs.csv", index=False)
    frame = build("figure3", *load("figure3", results))
    assert frame["seeds"].tolist() == [3, 3, 1]
    assert "| mnist | 50 | – | direct |" in render("figure3", frame, "md")
    labels = [tick.get_text() for tick in draw("figure3", frame).axes[0].get_yticklabels()]
    epochs = frame["epochs"][0]
    assert labels == [f"direct, {epochs:g} epochs", f"Gumbel-Softmax, {epochs:g} epochs"]
    frame["seeds"] = 0
    assert draw("figure3", frame).axes[0].get_yticklabels()[0].get_text() == "direct, no seed finished"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda runs: runs[runs["table"] == "figure2"], "no row of table=figure3"),
        (lambda runs: runs.drop(columns="labels"), "missing column labels"),
        (
            lambda runs: runs.assign(labels=math.nan),
            "a row of table=figure3 lacks labels; fill it in, or remove the row",
        ),
        (lambda runs: pd.concat([runs, runs[:1]]), "a seed twice"),
        (lambda runs: runs.assign(epochs=range(len(runs))), "several epochs"),
        (lambda runs: runs.assign(test_bound=math.inf), "no finite value"),
    ],
)
def test_what_cannot_be_tabulated_is_named(change, problem: str, results: Path) -> None:
    change(example()).to_csv(results / "runs.csv", index=False)
    with pytest.raises(UsageError, match=problem):
        labels.rendered("figure3", results, "md")


def test_unknown_format(results: Path) -> None:
    with pytest.raises(UsageError, match="format=html: unknown"):
        labels.rendered("figure3", results, "html")
