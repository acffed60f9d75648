"""The page of all results: well-formed, alone, and with the numbers of the tables and of the curves."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from test_tables import example

from argmax_vae.cli import main
from argmax_vae.errors import UsageError
from argmax_vae.report import gradients, labels, records, tables
from argmax_vae.report.page import charts, markup, page, runs
from argmax_vae.report.style import STYLES
from argmax_vae.runs.directory import RunDirectory, scan
from html_page import Page

RESULTS = Path(__file__).parents[2] / "results"
NASTY = "a\"><script>alert(1)</script>&amp;'"


@pytest.fixture(scope="module")
def committed() -> str:
    """The page of the committed results."""
    return page.render(page.sections(RESULTS, [], {}))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results directory with synthetic runs of figure2 and curves of their seeds."""
    folder = tmp_path / "results"
    folder.mkdir()
    runs = pd.DataFrame(example())
    runs.to_csv(folder / "runs.csv", index=False)
    keys = ["table", "protocol", "run", "n", "k", "estimator", "kl", "seed"]
    bounds = runs["test_bound"].fillna(500.0)
    pd.concat([runs[keys].assign(epoch=e, test_bound=bounds + 60 / e) for e in (1, 2, 3)]).to_csv(
        folder / "curves.csv", index=False
    )
    return folder


def make_run(path: Path, done: bool = True, **provenance) -> Path:
    """A run's directory; the second of its three seeds diverged."""
    path.mkdir(parents=True)
    stored = {
        "model": {"latents": "20x2"},
        "estimator": {"name": "direct", "epsilon": {"name": "constant", "value": 1}},
    }
    stored |= {
        "trainer": {"epochs": 7},
        "seeds": [0, 1, 2],
        "paths": {"data": "/home"},
        "table": NASTY,
        "protocol": "",
    }
    (path / "config.yaml").write_text(yaml.safe_dump(stored))
    origin = {"commit": "0123456789ab", "dirty": True, "version": "0.1.0", "packages": {"torch": "2.11"}}
    (path / "provenance.json").write_text(json.dumps(origin | provenance))
    for name, grey in (("samples.png", 10), ("reconstructions.png", 200)):
        Image.fromarray(np.full((5, 6), grey, dtype=np.uint8)).save(path / name)
    if done:
        seeds = {"seed": [0, 1, 2], "status": ["done", "diverged", "done"], "test_bound": [100.0, np.nan, 102.0]}
        pd.DataFrame(seeds | {"test_accuracy": [0.5, np.nan, 0.75], "device": "a GPU", "schedule": "ε = 1"}).to_csv(
            path / "seeds.csv", index=False
        )
        (path / "done.json").write_text(json.dumps({"status": "done", "seeds": [0, 1, 2]}))
    return path


def test_the_committed_results_give_a_well_formed_page(committed: str) -> None:
    found = Page(committed)
    identities = found.values("id")
    assert len(set(identities)) == len(identities)
    targets = [link[1:] for link in found.values("href") if link.startswith("#")]
    referred = re.findall(r"url\(#([^)]+)\)", committed)
    assert {*targets, *referred, *found.values("aria-labelledby")} <= set(identities)
    assert {"figure2", "section61", "estimators", "figure3", "figure1", "figure1_20x2", "figure7"} <= set(targets)
    assert all("scope" in attributes for tag, attributes in found.attributes if tag == "th")
    assert all(attributes.get("alt") for tag, attributes in found.attributes if tag == "img")


def test_the_page_needs_nothing_else(committed: str) -> None:
    found = Page(committed)
    for address in [*found.values("href"), *found.values("src")]:
        assert address.startswith(("#", "data:"))
    assert not {"srcset", "action", "poster"} & {name for _, attributes in found.attributes for name in attributes}
    assert "@import" not in committed
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", committed))
    rest = re.sub(r"data:image/png;base64,[\w+/=]+", "", committed)
    assert set(re.findall(r"\w+://[\w./]+", rest)) == {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in committed


def test_tables_are_those_of_the_markdown_files(committed: str) -> None:
    found = Page(committed).tables
    compared = 0
    for names, module, identity in (
        (records.TABLES, tables, "{}-table"),
        (labels.FIGURES, labels, "{}-table"),
        (gradients.FIGURES, gradients, "{}-logits"),
    ):
        for name in names:
            if identity.format(name) not in found:
                continue
            lines = module.rendered(name, RESULTS, "md").splitlines()
            start = next(index for index, line in enumerate(lines) if line.startswith("|"))
            end = next(index for index in range(start, len(lines)) if not lines[index].startswith("|"))
            markdown = [line.replace("**", "")[2:-2].split(" | ") for line in lines[start:end]]
            assert found[identity.format(name)] == [markdown[0], *markdown[2:]]
            compared += 1
    assert compared >= 6


def test_curves_are_means_and_intervals_of_the_seeds_that_are_done(results: Path) -> None:
    (chart,) = [
        json.loads(charts.data(chart))
        for chart in charts.charts("figure2", *frames(results))
        if chart.title == "20×2, as written"
    ]
    assert chart["series"] == [
        {
            "label": "direct",
            "epochs": [1, 2, 3],
            "mean": [187.0, 157.0, 147.0],
            "half_width": [pytest.approx(4.302653 / np.sqrt(3), abs=1e-4)] * 3,
        }
    ]
    released = next(chart for chart in charts.charts("figure2", *frames(results)) if chart.title == "20×2, as released")
    assert [one.estimator for one in released.series] == ["direct", "gumbel_softmax"]
    assert {interval.number for interval in released.series[0].intervals} == {2}


def frames(results: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    return pd.read_csv(results / "curves.csv"), pd.read_csv(results / "runs.csv")


def test_committed_curves_are_means_of_their_column(committed: str) -> None:
    curves = pd.read_csv(RESULTS / "curves.csv")
    labels = {look.label: name for name, look in STYLES.items()}
    rows = curves[curves["table"] == "estimators"]
    drawn = max(Page(committed).charts, key=lambda chart: len(chart["series"]))
    assert {labels[series["label"]] for series in drawn["series"]} == set(rows["estimator"])
    for series in drawn["series"]:
        means = rows[rows["estimator"] == labels[series["label"]]].groupby("epoch")["test_bound"].mean()
        assert series["epochs"] == means.index.tolist()
        assert series["mean"] == pytest.approx(means.tolist(), abs=6e-5)
    accuracies = curves.query("table == 'figure3' and labels == 600 and estimator == 'direct' and protocol == 'joint'")
    expected = (100 * accuracies.groupby("epoch")["test_accuracy"].mean()).tolist()
    shown = [series["mean"] for chart in Page(committed).charts for series in chart["series"]]
    assert any(mean == pytest.approx(expected, abs=6e-5) for mean in shown)


def test_lines_lie_where_their_numbers_are(results: Path) -> None:
    chart = charts.charts("figure2", *frames(results))[0]
    text = charts.render(chart, "c")
    (plotted,) = Page(text).charts
    (x0, x1, y0, y1), (left, top, right, bottom) = plotted["domain"], plotted["box"]
    lines = re.findall(r'<path class="line" d="M([\d.,L-]+)"/>(?!</svg>)', text)
    assert len(lines) == len(plotted["series"])
    for line, series in zip(lines, plotted["series"], strict=True):
        points = np.array([[float(part) for part in point.split(",")] for point in line.split("L")])
        epochs = x0 + (points[:, 0] - left) / (right - left) * (x1 - x0)
        values = y0 + (bottom - points[:, 1]) / (bottom - top) * (y1 - y0)
        np.testing.assert_allclose(epochs, series["epochs"], atol=0.06 * (x1 - x0) / (right - left))
        np.testing.assert_allclose(values, series["mean"], atol=0.06 * (y1 - y0) / (bottom - top))


def test_an_epoch_that_occurs_twice_is_refused(results: Path) -> None:
    curves, runs = frames(results)
    with pytest.raises(UsageError, match=r"table=figure2: an epoch of a seed occurs twice"):
        charts.charts("figure2", pd.concat([curves, curves]), runs)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 300, [0, 100, 200, 300]),
        (0, 15, [0, 5, 10, 15]),
        (126.3, 129.9, [127, 128, 129]),
        (0.1, 0.62, [0.2, 0.4, 0.6]),
        (-3, 2, [-3, -2, -1, 0, 1, 2]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert charts.ticks(low, high) == expected


@pytest.mark.parametrize("look", STYLES.values(), ids=list(STYLES))
def test_colours_stand_out_on_the_dark_page(look) -> None:
    """Contrast by WCAG 2.2: at least 4.5 to 1 to the page's background."""

    def luminance(color: str) -> float:
        parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [((c + 0.055) / 1.055) ** 2.4 if c > 0.04045 else c / 12.92 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    styles = (Path(page.__file__).parent / "page.css").read_text(encoding="utf-8")
    dark = re.findall(r"--page: (#\w{6})", styles)[1]
    assert (luminance(charts.on_dark(look.color)) + 0.05) / (luminance(dark) + 0.05) > 4.5


def test_runs_have_numbers_choices_and_origin(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", continues={"run": "before", "commit": "fedcba987654", "dirty": False})
    default = {"model": {"latents": "20x10"}, "estimator": {"name": "direct", "epsilon": {"name": "exponential"}}}
    run = runs.read(RunDirectory(path), default | {"trainer": {"epochs": 7, "batch": 100}})
    assert (run.row["status"], run.row["seeds done"], run.row["epochs"]) == ("done", "2 of 3", "7")
    assert run.row["test bound"] == "101.00 ± 12.71"
    assert run.metrics["test_accuracy (%)"].startswith("62.50 ± ")
    assert run.choices == {
        "model.latents": "20x2",
        "estimator.epsilon.name": "constant",
        "estimator.epsilon.value": "1",
        "seeds": "[0, 1, 2]",
    }
    assert run.origin == {
        "commit": "0123456789ab with uncommitted changes",
        "argmax-vae": "0.1.0",
        "packages": "torch 2.11",
        "device": "a GPU",
        "goes on from": "before, commit fedcba987654",
    }


def test_a_run_that_has_barely_begun_is_listed(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    stored = {"data": {"name": "digits"}, "model": {}, "estimator": {}, "trainer": {}, "seeds": []}
    (tmp_path / "new" / "config.yaml").write_text(yaml.safe_dump(stored))
    (run,) = (runs.read(run, {}) for run in scan(tmp_path))
    expected = ["–", "–", "interrupted", "0 of 0", *["–"] * 3, "new"]
    assert (list(run.row.values()), run.metrics, run.origin) == (expected, {}, {})
    assert "data.name" in runs.render([run])


def with_curve(path: Path, estimator: str, epsilon: float, bounds: list[float]) -> Path:
    """A run with this choice and these test bounds at its epochs, for each of its seeds."""
    make_run(path)
    stored = yaml.safe_load((path / "config.yaml").read_text())
    stored |= {"data": {"name": "digits"}}
    stored["estimator"] = {"name": estimator, "epsilon": {"name": "constant", "value": epsilon}}
    (path / "config.yaml").write_text(yaml.safe_dump(stored, sort_keys=False))
    rows = [(epoch, seed, bound + seed) for epoch, bound in enumerate(bounds, 1) for seed in (0, 1, 2)]
    pd.DataFrame(rows, columns=["epoch", "seed", "test_bound"]).to_csv(path / "metrics.csv", index=False)
    return path


def test_runs_come_first_named_by_what_differs_and_lie_over_each_other(results: Path, tmp_path: Path) -> None:
    for number, epsilon in enumerate((0.1, 0.3)):
        with_curve(tmp_path / "runs" / f"direct_{number}", "direct", epsilon, [9.0, 8.0, 7.0 - number])
    with_curve(tmp_path / "runs" / "imle", "imle", 0.1, [9.0, 8.5, 8.0])
    found = page.sections(results, scan(tmp_path / "runs"), {})
    assert found[0].identity == "runs"
    shown = Page(page.render(found))
    heading, *rows = shown.tables["runs-table"]
    assert [heading[0], heading[1], heading[-1]] == ["what differs", "test bound", "run"]
    assert [row[0] for row in rows] == ["direct, ε = 0.1", "direct, ε = 0.3", "I-MLE, ε = 0.1"]
    curves = shown.charts[0]["series"]
    assert [series["label"] for series in curves] == [row[0] for row in rows]
    assert [series["mean"] for series in curves] == [[10, 9, 8], [10, 9, 7], [10, 9.5, 9]]
    direct = [(runs.read(run, {}), run.path.name) for run in scan(tmp_path / "runs")][:2]
    first, second = (look for _, _, look in runs.looks(direct))
    assert first.color == second.color == STYLES["direct"].color
    assert (first.line, second.line == first.line) == (STYLES["direct"].line, False)


def test_many_runs_are_folded_and_the_best_are_drawn(tmp_path: Path) -> None:
    for number in range(runs.OVERLAID + 1):
        with_curve(tmp_path / f"run_{number:02}", "direct", 0.1 + number, [9.0, 5.0 + number])
    found = [runs.read(run, {}) for run in scan(tmp_path)]
    assert " open><summary>" not in runs.render(found)
    (chart,) = runs.charts_of(found, runs.in_words(found))
    assert len(chart.series) == runs.OVERLAID
    assert "ε = 12.1" not in [series.style.label for series in chart.series]
    for run in found:
        run.history["test_accuracy"] = run.history["test_bound"] / 100
    _, accuracies = runs.charts_of(found, runs.in_words(found))
    assert "ε = 0.1" not in [series.style.label for series in accuracies.series]
    assert accuracies.title == "digits, the best 12 of 13"
    assert " open><summary>" in runs.render(found[:2])


def test_the_bound_of_several_samples_has_a_column_and_a_chart(tmp_path: Path) -> None:
    """Where a run has one, and nowhere else. Seeds 0 and 2 are done: their mean is one above the bounds given."""
    with_curve(tmp_path / "plain", "direct", 0.1, [9.0, 5.0])
    with_curve(tmp_path / "weighted", "direct", 0.2, [9.0, 5.0])
    plain, weighted = (runs.read(run, {}) for run in scan(tmp_path))
    weighted.history["test_importance_weighted"] = weighted.history["test_bound"] - 1
    weighted.row["importance-weighted"] = "4.00"
    weighted.config["objective"] = {"kl": "importance_weighted"}
    weighted.config["estimator"]["samples"] = 5
    assert "importance-weighted" not in runs.render([plain])
    assert Page(runs.render([plain, weighted])).tables["runs-table"][0][2] == "importance-weighted"
    _, chart = runs.charts_of([plain, weighted], ["one", "other"])
    assert (chart.title, chart.measure) == ("digits, M = 5", "importance-weighted test bound (nats)")
    assert [interval.mean for series in chart.series for interval in series.intervals] == [9.0, 5.0]


def test_the_bound_of_several_samples_says_of_how_many() -> None:
    trained = {"objective": {"kl": "importance_weighted"}, "estimator": {"samples": 5}, "trainer": {}}
    measured = {"test_importance_weighted": "4.00 ± 0.10"}
    assert runs.weighted_cell(trained, measured) == "4.00 ± 0.10 (M = 5)"
    assert runs.weighted_cell(trained | {"trainer": {"importance_samples": 50}}, measured) == "4.00 ± 0.10 (M = 50)"
    assert runs.weighted_cell(trained, {}) == "–"


def test_images_of_data_are_never_in_the_page(results: Path, tmp_path: Path) -> None:
    done, interrupted = make_run(tmp_path / "runs" / "one"), make_run(tmp_path / "runs" / "two", done=False)
    Image.fromarray(np.full((3, 4), 77, dtype=np.uint8)).save(results / "figure7.png")
    (done / "reconstructions.png").replace(results / "reconstructions.png")
    text = page.render(page.sections(results, scan(tmp_path / "runs"), {}))
    sources = Page(text).values("src")
    expected = [done / "samples.png", results / "figure7.png"]
    assert [base64.b64decode(source.split(",")[1]) for source in sources] == [path.read_bytes() for path in expected]
    assert 'width="4" height="3"' in text
    assert "interrupted" in Page(text).tables["runs-table"][2]
    (interrupted / "error.txt").write_text(f"Traceback\nValueError: {NASTY}\n")
    text = page.render(page.sections(results, scan(tmp_path / "runs"), {}))
    assert f"ValueError: {NASTY}" in "".join(Page(text).texts)


def test_a_file_that_is_no_picture_is_named(results: Path) -> None:
    (results / "figure7.png").write_text("no picture")
    with pytest.raises(UsageError, match=r"figure7\.png: not a PNG file"):
        page.sections(results, [], {})


def test_text_of_files_is_escaped(results: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / NASTY.replace("/", ""))
    for name in ("runs.csv", "curves.csv"):
        frame = pd.read_csv(results / name)
        frame.loc[frame["estimator"] == "exact", "estimator"] = NASTY
        frame.loc[frame["protocol"] == "as written", "protocol"] = "</figure>&lt;"
        frame.to_csv(results / name, index=False)
    text = page.render(page.sections(results, scan(tmp_path / "runs"), {}))
    assert "alert(1)</script>" not in text
    found = Page(text)
    assert len([tag for tag, _ in found.attributes if tag == "script"]) == len(found.charts) + 1
    assert NASTY in [cell for row in found.tables["figure2-table"] for cell in row]
    assert NASTY in [series["label"] for chart in found.charts for series in chart["series"]]
    assert NASTY in found.tables["runs-table"][1]
    assert "</figure>&lt;" in [row[1] for row in found.tables["figure2-table"]]


def test_bold_is_what_markdown_has_bold() -> None:
    assert markup.text("**1.0 ± <b>**") == "<strong>1.0 ± &lt;b&gt;</strong>"
    assert markup.text("****") == "****"


def test_the_command_writes_the_same_bytes_again(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "runs" / "one")
    arguments = ["page", "--results", str(results), "--runs", str(tmp_path / "runs")]
    assert main(arguments) == 0
    written = results / "report.html"
    assert capsys.readouterr().out == f"{written}\n"
    first = written.read_bytes()
    assert main([*arguments, "--output", str(tmp_path / "new" / "other.html")]) == 0
    assert (tmp_path / "new" / "other.html").read_bytes() == first
    assert "trainer.epochs" in Page(first.decode()).texts
    assert not list(results.glob(".*"))


def test_nothing_to_show_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["page", "--results", str(tmp_path / "none"), "--runs", str(tmp_path / "no_runs")]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(r"none: nothing to show.*argmax-vae reproduce figure2", error)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"table\nf\xfcr immer\n", r"runs\.csv: not a csv file .*; make it with: argmax-vae reproduce"),
        (b"protocol,seed\njoint,0\n", r"runs\.csv: missing column table; found: protocol, seed"),
    ],
    ids=["not UTF-8", "no tables"],
)
def test_damaged_record_is_one_line(
    content: bytes, problem: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / "runs.csv").write_bytes(content)
    assert main(["page", "--results", str(results), "--runs", str(results / "none")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(problem, error)


def test_runs_without_results_and_results_without_curves_are_shown(results: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "one")
    (only,) = page.sections(tmp_path / "none", scan(tmp_path / "runs"), {})
    assert only.identity == "runs"
    runs = pd.read_csv(results / "runs.csv")
    runs[runs["table"] == "section61"].to_csv(results / "runs.csv", index=False)
    (results / "curves.csv").unlink()
    (table,) = page.sections(results, [], {})
    assert (table.identity, "chart" in table.content) == ("section61", False)


def test_loads_nothing_heavy() -> None:
    code = (
        "import sys, argmax_vae.report.page.page; "
        "heavy = {'torch', 'pytorch_lightning', 'lightning', 'hydra', 'omegaconf', 'matplotlib'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"
