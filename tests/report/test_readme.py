"""Pages that show tables, and `report all`: what is there is written, and nothing else."""

from pathlib import Path

import pandas as pd
import pytest
from test_tables import example

from argmax_vae.cli import main
from argmax_vae.report import faces, gradients, labels, publish, readme, records

RESULTS = Path(__file__).parents[2] / "results"
TABLE = "| a | b | failed |\n|---|---|---|\n| 1 | 2 | 0 |\n"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of results with a table, inside the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("results").mkdir()
    Path("results/README.md").write_text("no block\n")
    Path("results/one.md").write_text(f"# One\n\n{TABLE}\nA caption.\n")
    return Path("results")


def marked(what: str, rows: str = "") -> str:
    return f"before\n<!-- {what}: written by argmax-vae report readme -->\n{rows}<!-- end -->\nafter\n"


def test_committed_pages_show_the_committed_tables() -> None:
    pages = readme.pages(RESULTS)
    assert list(pages) == [RESULTS.parent / "README.md", RESULTS / "README.md"]
    assert readme.check("readme", RESULTS) == []
    assert all("written by argmax-vae report readme" in text for text in pages.values())


def test_blocks_are_filled_and_the_rest_stays(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("README.md").write_text(marked("one") + marked("one without b, failed"))
    assert main(["report", "readme", "--check"]) == 1
    assert capsys.readouterr().err.startswith("README.md:3: committed '<!-- end -->', computed '| a | b | failed |'")
    assert main(["report", "readme"]) == 0
    assert capsys.readouterr().out == "README.md\n"
    short = "| a |\n|---|\n| 1 |\n"
    assert Path("README.md").read_text() == marked("one", TABLE) + marked("one without b, failed", short)
    assert (results / "README.md").read_text() == "no block\n"
    assert main(["report", "readme", "--check"]) == 0


def test_rows_of_published_values_alone_are_left_out() -> None:
    lines = ["| a | seeds | failed |", "|---|---|---|", "| 1 | 0 | 0 |", "| 2 | 0 | 3 |", "| 3 | 5 | 0 |"]
    assert readme.without(lines, ["failed"])[2:] == ["| 2 | 0 | 3 |\n", "| 3 | 5 | 0 |\n"]


def test_a_trial_without_a_page_leaves_the_page_above_alone(results: Path) -> None:
    Path("README.md").write_text(marked("one"))
    assert list(readme.pages(results)) == [Path("README.md")]
    assert list(readme.pages(Path("trial"))) == []
    (results / "README.md").unlink()
    assert list(readme.pages(results)) == []


def test_what_failed_is_not_left_out(results: Path) -> None:
    assert readme.without(TABLE.replace("0", "3").splitlines(), ["b", "failed"])[-1] == "| 1 | 3 |\n"


@pytest.mark.parametrize(
    ("block", "line"),
    [
        ("two", "README.md: results/two.md is missing; write it with: argmax-vae report two"),
        ("one without c", "README.md: block <!-- one …: results/one.md: no column c; columns are a, b, failed"),
        ("empty", "README.md: block <!-- empty …: results/empty.md: it has no table"),
        ("times", "results/runs.csv: no such file; make it with: argmax-vae reproduce"),
    ],
)
def test_a_block_that_cannot_be_filled_is_a_line(
    block: str, line: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / "empty.md").touch()
    page = marked("one") + marked(block)
    Path("README.md").write_text(page)
    assert main(["report", "readme"]) == 2
    assert capsys.readouterr().err == f"argmax-vae: {line}\n"
    assert Path("README.md").read_text() == page


@pytest.mark.parametrize("arguments", [["readme"], ["readme", "--check"], ["readme", "--format", "md"]])
def test_a_report_without_pages_is_a_line(
    arguments: list[str], results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *arguments]) == 2
    assert capsys.readouterr().err.startswith("argmax-vae: report readme: ")


def test_hours_are_those_of_the_runs() -> None:
    row = {"table": "figure2", "run": "a", "device": "NVIDIA H100", "epochs": 400, "seconds": 1800.0}
    runs = pd.DataFrame(
        [row, row, {**row, "run": "b", "epochs": 300}, {**row, "run": "c", "table": "figure2_search", "seconds": 9}]
    )
    trained, *others = readme.times(runs).splitlines()[2:]
    assert trained == "| figure2 | GPU | 2 | 300–400 | 1.0 |"
    names = sorted({*records.TABLES, *labels.FIGURES} - {"figure2"})
    assert others == [f"| {name} | not trained yet | 0 | – | – |" for name in names]


def test_all_is_what_there_are_files_of_record_for(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "all"]) == 2
    assert "results: nothing to report" in capsys.readouterr().err
    runs = pd.DataFrame(example())
    runs[runs["table"] == "section61"].to_csv(results / "runs.csv", index=False)
    assert publish.names("all", results) == ["section61"]
    Path("README.md").write_text(marked("section61"))
    assert main(["report", "all"]) == 0
    written = capsys.readouterr().out.splitlines()
    assert {"results/section61.md", "results/section61.svg", "README.md"} <= set(written)
    assert written[-1] == "README.md"
    assert main(["report", "all", "--check"]) == 0
    with (results / "section61.md").open("a") as table:
        table.write("more\n")
    assert main(["report", "all", "--check"]) == 1
    assert "computed ''" in capsys.readouterr().err
    assert main(["report", "all", "--format", "md"]) == 2


def test_the_committed_table_of_faces_equals_the_regenerated_one() -> None:
    assert faces.check("figure4", RESULTS) == []


def test_all_is_every_table_of_record() -> None:
    recorded = records.recorded(RESULTS)
    trained = [name for name in (*records.TABLES, *labels.FIGURES) if name in recorded]
    assert publish.names("all", RESULTS) == [*trained, *gradients.FIGURES, "figure4", "readme"]
    assert {*records.TABLES, *labels.FIGURES} - {*trained} <= {"benchmark"}


def test_a_table_without_rows_says_how_to_train_it(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pd.DataFrame(example()).to_csv(results / "runs.csv", index=False)
    (results / "curves.csv").write_text("table\n")
    for words in ([], ["--check"], ["--format", "md"]):
        assert main(["report", "benchmark", *words]) == 2
        told = "no row of table=benchmark (found: figure2, section61); run: argmax-vae reproduce benchmark\n"
        assert capsys.readouterr().err.endswith(told)
