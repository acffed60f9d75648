"""Figures: what is drawn is what was given, and a file is a function of its data."""

import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy import stats

from argmax_vae.errors import UsageError
from argmax_vae.report import drawing, figures
from argmax_vae.report.page import charts
from argmax_vae.report.records import TABLES
from argmax_vae.report.style import style

COLUMNS = ["n", "k", "estimator", "metric", "value"]
PAPER = pd.DataFrame([(20, 2, "direct", "test_bound", 126.37), (20, 10, "rebar", "test_bound", 100.0)], columns=COLUMNS)
PAIRS = pd.DataFrame(
    [(1, 8, 168.57), (3, 2, 177.9), (1, 64, 147.59), (6, 2, 161.09)], columns=["n", "k", "value"]
).assign(estimator="direct", metric="test_bound")


def runs(table: str, sizes: list[tuple[int, int]], seeds: int = 3) -> pd.DataFrame:
    """Direct and Gumbel-Softmax under both protocols; the last seed diverged."""
    rows = [
        {"table": table, "protocol": protocol, "n": n, "k": k, "estimator": estimator, "seed": seed}
        | {"status": "done" if seed < seeds else "diverged", "test_bound": 100.0 + n + seed}
        for protocol in ("as released", "as written")
        for n, k in sizes
        for estimator in ("direct", "gumbel_softmax")
        for seed in range(seeds + 1)
    ]
    text = ["kl", "schedule", "dirty", "config_hash", "data", "binarization", "model", "device"]
    rest = dict.fromkeys([*text, "version", "torch", "commit"], "x")
    numbers = dict.fromkeys(["epochs", "samples", "test_kl", "test_codes_in_use"], 2)
    return pd.DataFrame(rows).assign(**rest, **numbers)


def curves(rows: pd.DataFrame, epochs: int = 12) -> pd.DataFrame:
    """A curve per run that ends near its test bound."""
    return pd.concat([rows.assign(epoch=e, test_bound=rows["test_bound"] + 50 / e) for e in range(1, epochs + 1)])


RUNS = runs("figure2", [(20, 10), (20, 2), (1, 40)])


def test_curve_is_the_mean_and_band_the_interval() -> None:
    values = pd.DataFrame({0: [3.0, 1.0, np.nan], 1: [5.0, 2.0, np.nan], 2: [4.0, np.nan, np.nan]}, [1, 2, 3])
    axes = Figure().subplots()
    drawing.curve_with_band(axes, values, style("direct"))
    (line,) = axes.lines
    assert line.get_xydata().tolist() == [[1, 4.0], [2, 1.5]]
    assert line.get_label() == "direct"
    (band,) = axes.collections
    drawn = band.get_paths()[0].vertices
    low, high = stats.t.interval(0.95, 2, loc=4.0, scale=1 / math.sqrt(3))
    assert sorted({y for x, y in drawn if x == 1}) == pytest.approx([low, high])


def test_figure6_shows_every_shape_and_the_paired_difference_to_direct() -> None:
    sizes = [(30, 2), (6, 10), (1, 60)]
    rows = runs("figure6", sizes).query("protocol == 'as written'")
    rows.loc[rows["estimator"] == "gumbel_softmax", "test_bound"] += 2.0 + rows["seed"] / 10
    left, right = figures.draw_figure6(rows, PAIRS.iloc[:0]).axes
    assert [label.get_text() for label in left.get_xticklabels()] == ["30×2", "6×10", "1×60"]
    drawn = {container.get_label(): container for container in left.containers}
    assert drawn["direct"].lines[0].get_ydata().tolist() == [131.0, 107.0, 102.0]
    (differences,) = right.containers
    assert differences.lines[0].get_ydata() == pytest.approx([2.1, 2.1, 2.1])
    half = stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    lows = [segment[0][1] for segment in differences.lines[2][0].get_segments()]
    assert lows == pytest.approx([2.1 - half] * 3)


def test_figure6_compares_rows_of_one_protocol_and_number_of_epochs() -> None:
    """Both protocols at 30×2; at 6×10 Gumbel-Softmax has had more epochs than direct, so that nothing is compared."""
    rows = runs("figure6", [(30, 2), (6, 10)])
    rows.loc[rows["estimator"] == "gumbel_softmax", "test_bound"] += 2.0
    rows.loc[rows["protocol"] == "as written", "test_bound"] += rows["estimator"].eq("gumbel_softmax") * 3.0
    rows.loc[(rows["estimator"] == "gumbel_softmax") & (rows["n"] == 6), "epochs"] = 7
    _, right = figures.draw_figure6(rows, PAIRS.iloc[:0]).axes
    (differences,) = right.containers
    assert differences.lines[0].get_ydata().tolist() == [2.0, 5.0]
    assert differences.lines[0].get_xdata() == pytest.approx([0.12, 0.12])


def test_an_interval_beyond_the_axis_ends_in_an_arrow_at_its_edge() -> None:
    axes = Figure().subplots()
    axes.set_ylim(0, 10)
    drawing.bars_within(axes, np.array([1.0, 2.0]), np.array([5.0, 5.0]), np.array([1.0, 50.0]), color="k", marker="o")
    (bar,) = (line for line in axes.collections)
    near, far = (segment[:, 1] for segment in bar.get_segments())
    assert near.tolist() == [4, 6]
    assert 0 < far.min() < 1 and 9 < far.max() < 10
    arrows = [line for line in axes.lines if line.get_marker() in "v^" and len(line.get_xdata())]
    assert [line.get_xdata().tolist() for line in arrows] == [[2.0], [2.0]]


def test_an_estimator_far_behind_does_not_squeeze_the_others() -> None:
    ends = {"direct": 128.0, "rebar": 127.0, "arm": 127.5, "straight_through": 141.0}
    rows = pd.DataFrame(
        [{"estimator": name, "epoch": epoch, "test_bound": bound} for name, bound in ends.items() for epoch in (1, 2)]
    )
    inside, above = figures._without_far_ones(rows)
    assert above == {"straight_through": 141.0}
    assert set(inside["estimator"]) == {"direct", "rebar", "arm"}
    inside, above = figures._without_far_ones(inside)
    assert above == {}


def test_an_axis_shows_the_second_half_of_all_curves_and_keeps_their_ends_apart() -> None:
    def highest(curves: dict[str, list[float]]) -> float:
        return figures._highest_of_interest(
            pd.DataFrame(
                [
                    {"estimator": name, "epoch": 2 * place, "test_bound": bound}
                    for name, bounds in curves.items()
                    for place, bound in enumerate(bounds, 1)
                ]
            )
        )

    assert highest({"rebar": [170, 150, 130, 120], "arm": [160, 140, 125, 118]}) == 150
    assert highest({"rebar": [170, 121, 121, 120], "arm": [160, 119, 119, 110]}) == 130
    assert highest({"rebar": [170, 121]}) == float("inf")


def test_digest_of_figure6_sees_epochs() -> None:
    rows = runs("figure6", [(30, 2)])
    more = rows.assign(epochs=rows["epochs"] + 1)
    assert figures.digest("figure6", runs=rows, paper=PAPER) != figures.digest("figure6", runs=more, paper=PAPER)


def test_curve_without_values_draws_nothing() -> None:
    axes = Figure().subplots()
    drawing.curve_with_band(axes, pd.DataFrame({0: [np.nan]}, [1]), style("direct"))
    assert not axes.lines


def test_dots_show_mean_interval_and_published_value() -> None:
    axes = Figure().subplots()
    look = style("relax")
    dots = [drawing.Dot("a", 126.0, 0.5, 126.66, look), drawing.Dot("b", math.nan, math.nan, 127.0, look)]
    drawing.dots_with_intervals(axes, dots)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    (container,) = axes.containers
    (bar,) = container.lines[2]
    assert bar.get_segments()[0][:, 0].tolist() == [125.5, 126.5]
    published = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    assert [line.get_xdata()[0] for line in published] == [126.66, 127.0]


def test_a_bar_beyond_the_limits_ends_there_in_an_arrow() -> None:
    """Limits show means and published values and a quarter of their range more."""
    limits = drawing.limits_of_dots([10.0, 14.0, math.nan], [18.0])
    assert limits == (8.0, 20.0)
    axes = Figure().subplots()
    drawing.dots_with_intervals(axes, [drawing.Dot("a", 10.0, 9.0, 18.0, style("relax"))], limits)
    (bar,) = axes.containers[0].lines[2]
    assert bar.get_segments()[0][:, 0].tolist() == [8.0, 19.0]
    assert axes.get_xlim() == limits
    assert [line.get_xdata()[0] for line in axes.lines if line.get_marker() in "<>"] == [8.0]


def test_figure2_has_a_panel_per_protocol_and_per_size() -> None:
    figure = figures.draw_figure2(RUNS, curves(RUNS), PAPER)
    titles = [axes.get_title(loc="left") for axes in figure.get_axes()]
    assert titles == ["20×2, as released", "20×2, as written", "20×10", "20×2", "1×40"]
    released = figure.get_axes()[0]
    assert [line.get_label() for line in released.lines] == ["direct", "Gumbel-Softmax"]
    assert released.lines[0].get_ydata()[-1] == pytest.approx(np.mean([120, 121, 122]) + 50 / 12)
    labels = [label.get_text() for label in figure.get_axes()[2].get_yticklabels()]
    assert labels[-1] == "REBAR, not run"


def test_figure5_follows_epochs_and_minutes() -> None:
    """A run of 300 seconds and 50 epochs takes 0.1 minutes an epoch."""
    timed = RUNS.assign(seconds=300.0, epochs=50)
    figure = figures.draw_figure5(timed, curves(RUNS))
    titles = [axes.get_title(loc="left") for axes in figure.get_axes()]
    assert [title for title in titles if title][:2] == ["20×2, as released", "20×2, as written"]
    left, right = figure.get_axes()[:2]
    np.testing.assert_allclose(right.lines[0].get_xdata(), 0.1 * np.asarray(left.lines[0].get_xdata()))
    np.testing.assert_allclose(right.lines[0].get_ydata(), left.lines[0].get_ydata())


def test_figure5_has_the_mean_time_of_seeds_that_were_trained_in_separate_runs() -> None:
    """200, 300 and 400 seconds for 50 epochs, none for a seed that diverged: 0.1 minutes an epoch, and every seed."""
    timed = RUNS.assign(seconds=200.0 + 100 * RUNS["seed"], epochs=50)
    left, right = figures.draw_figure5(timed, curves(RUNS)).get_axes()[:2]
    np.testing.assert_allclose(right.lines[0].get_xdata(), 0.1 * np.arange(1, 13))
    np.testing.assert_allclose(right.lines[0].get_ydata(), left.lines[0].get_ydata())
    assert len(right.collections[0].get_paths()[0].vertices) == len(left.collections[0].get_paths()[0].vertices)


def test_figure5_shows_runs_without_the_name_of_a_protocol() -> None:
    rows = RUNS[RUNS["protocol"] == "as written"].assign(seconds=300.0, epochs=50, protocol=None)
    axes = figures.draw_figure5(rows, curves(rows)).get_axes()
    assert [panel.get_title(loc="left") for panel in axes] == ["20×2", "", "20×10", ""]


def test_section61_sets_product_spaces_against_joint_variables() -> None:
    rows = runs("section61", [(6, 2), (3, 2), (1, 8), (1, 64)])
    first, second = figures.draw_section61(rows, PAIRS).get_axes()
    labels = [label.get_text().split(",")[0] for label in first.get_yticklabels()]
    assert list(dict.fromkeys(labels)) == ["1×8", "3×2"]
    assert second.get_title(loc="left") == "1×64 joint variable, 6×2 product space"


@pytest.mark.parametrize("name", ["figure2", "figure2 with nearly equal values", "section61"])
def test_texts_do_not_overlap(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.startswith("figure2"):
        rows = RUNS if name == "figure2" else RUNS.assign(test_bound=145.64 + 0.01 * RUNS["seed"])
        figure = figures.draw_figure2(rows, curves(rows), PAPER)
    else:
        figure = figures.draw_section61(runs("section61", [(1, 8), (3, 2), (1, 64), (6, 2)]), PAIRS)
    figure.draw_without_rendering()
    boxes = {}

    def record(text: Text, renderer: object) -> None:
        if text.get_visible() and text.get_text():
            boxes[text] = text.get_window_extent()

    monkeypatch.setattr(Text, "draw", record)
    figure.draw_without_rendering()
    assert len(boxes) > 20
    assert not [(a, b) for a, b in combinations(boxes, 2) if boxes[a].overlaps(boxes[b])]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes.values())


def test_file_is_a_function_of_its_data(tmp_path: Path) -> None:
    one, two, three = (tmp_path / name for name in ("one.svg", "two.svg", "three.svg"))
    figures.figure2(RUNS, curves(RUNS), PAPER, one)
    data = one.read_bytes()
    for _ in range(2):
        figures.figure2(RUNS, curves(RUNS), PAPER, one)
        assert one.read_bytes() == data
    figures.figure2(RUNS.sample(frac=1, random_state=0), curves(RUNS), PAPER, two)
    assert one.read_bytes() == two.read_bytes()
    assert "<dc:date>" not in one.read_text()
    figures.section61(runs("section61", [(1, 8)]), PAIRS, three)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.svg", "three.svg", "two.svg"]


def test_digest_sees_values_and_nothing_else() -> None:
    code = figures.digest("figure2", runs=RUNS, paper=PAPER)
    assert code == figures.digest("figure2", runs=RUNS[::-1].assign(seconds=1.0), paper=PAPER)
    changed = RUNS.assign(test_bound=RUNS["test_bound"].where(RUNS.index != 4, 99.0))
    assert code != figures.digest("figure2", runs=changed, paper=PAPER)


def test_broken_curves_are_named(tmp_path: Path) -> None:
    doubled = pd.concat([curves(RUNS), curves(RUNS)])
    with pytest.raises(UsageError, match=r"curves.csv: .*occurs twice"):
        figures.figure2(RUNS, doubled, PAPER, tmp_path / "f.svg")
    with pytest.raises(UsageError, match=r"curves.csv: missing column epoch"):
        figures.figure2(RUNS, curves(RUNS).drop(columns="epoch"), PAPER, tmp_path / "f.svg")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("sizes", "lost"),
    [([(4, 2)], 0), ([(4, 2)], 2), ([(4, 2), (20, 2)], 1), ([(4, 2), (20, 2)], 2)],
    ids=["no panel of the paper's", "all diverged", "one of two panels diverged", "both diverged"],
)
@pytest.mark.parametrize("table", figures.FIGURES)
def test_whatever_a_sweep_gives_is_drawn(table: str, sizes: list[tuple[int, int]], lost: int, tmp_path: Path) -> None:
    """Sizes that the paper lacks, one seed and one epoch, and cells without a seed that finished."""
    rows = runs(table, sizes, 1).assign(decoder_evaluations=1, seconds=1.0, validation_bound=100.0, learning_rate=1e-3)
    rows["config_hash"] = rows["n"].astype(str) + rows["estimator"] + rows["protocol"]
    rows["run"] = "run-" + rows["config_hash"]
    if lost:
        rows.loc[rows["n"].isin([4] if lost == 1 else [4, 20]), ["status", "test_bound"]] = ["diverged", math.nan]
    frames = {"runs": rows, "paper": PAPER.iloc[:0]}
    points = curves(rows.drop(columns="decoder_evaluations"), 1)
    if TABLES[table].curves:
        frames["curves"] = points
    names = {table: figures.FIGURES[table]} | {name: draw for name, (draw, _) in figures.BESIDE.get(table, {}).items()}
    for name, draw in names.items():
        draw(**frames, path=tmp_path / f"{name}.svg")
        assert (tmp_path / f"{name}.svg").read_text(encoding="utf-8").endswith("</svg>\n")
    assert charts.charts(table, points, rows) == [] or lost < 2
