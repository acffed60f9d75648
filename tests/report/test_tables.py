"""Tables from small synthetic files: against hand-computed cells, and against tampering."""

import csv
import io
import math
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from argmax_vae.errors import UsageError
from argmax_vae.report.records import TABLES, read, read_inputs
from argmax_vae.report.tables import build, check, render, write

COMMON = {
    **{"table": "figure2", "run": "r", "data": "mnist", "binarization": "threshold", "model": "linear"},
    **{"kl": "none", "schedule": "ε 1.0·exp(-1e-5 t) | floor 0.1", "status": "done", "epochs": 400},
    **{
        "best_epoch": 390,
        "train_bound": 103.0,
        "validation_bound": 105.0,
        "test_reconstruction": 80.0,
        "test_kl": 23.5,
    },
    **{"test_codes_in_use": 9.5, "samples": 100, "seconds": 60.0, "steps_per_second": 900.0},
    **{"device": "NVIDIA H200", "torch": "2.10", "version": "0.1.0", "commit": "12e45678901234"},
    **{"dirty": False, "extra": "ignored", "learning_rate": 1e-3},
}


def cell(n: int, k: int, estimator: str, bounds: list[float], protocol: str = "as released", **changes) -> list[dict]:
    """One row per seed, with these test bounds."""
    where = {"n": n, "k": k, "estimator": estimator, "protocol": protocol}
    where["config_hash"] = f"{estimator}-{protocol}-{n}x{k}"
    return [COMMON | where | {"seed": seed, "test_bound": bound} | changes for seed, bound in enumerate(bounds)]


def example() -> list[dict]:
    rows = cell(1, 40, "direct", [145.0, 146.0, 147.0], samples=0)
    rows += cell(20, 2, "gumbel_softmax", [128.0, 130.0], kl="analytic")
    rows += cell(20, 2, "direct", [126.0, 127.0, 128.0], protocol="as written", kl="analytic")
    rows += cell(20, 10, "exact", [99.0], protocol="", dirty=True)
    rows += cell(20, 2, "direct", [125.0, 127.0])
    rows.append(rows[-1] | {"seed": 2, "status": "diverged", "test_bound": math.nan, "epochs": 17})
    rows.append(rows[-1] | {"seed": 3, "status": "failed"})
    return [*rows, rows[0] | {"table": "section61", "seed": 9, "config_hash": "other"}]


PAPER = pd.DataFrame(
    [
        (20, 2, "direct", "test_bound", 126.37),
        (20, 2, "direct", "test_kl", -1.0),
        (20, 2, "rebar", "test_bound", 127.07),
        (1, 40, "direct", "test_bound", 145.64),
    ],
    columns=["n", "k", "estimator", "metric", "value"],
)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results directory with the example's files of record."""
    runs = pd.DataFrame(example())
    runs.to_csv(tmp_path / "runs.csv", index=False)
    keys = ["table", "protocol", "run", "n", "k", "estimator", "kl", "seed", "validation_bound"]
    epochs = [runs[keys].assign(epoch=e, test_bound=runs["test_bound"] + 60 / e) for e in (1, 2, 3)]
    pd.concat(epochs).to_csv(tmp_path / "curves.csv", index=False)
    (tmp_path / "paper").mkdir()
    PAPER.to_csv(tmp_path / "paper" / "figure2.csv", index=False)
    return tmp_path


def test_rows_are_in_the_papers_order() -> None:
    table = build("figure2", pd.DataFrame(example()), PAPER)
    rows = zip(table["n"], table["k"], table["protocol"], table["estimator"], strict=True)
    assert list(rows) == [
        (20, 10, "", "exact"),
        (20, 2, "as released", "direct"),
        (20, 2, "as released", "gumbel_softmax"),
        (20, 2, "as written", "direct"),
        (20, 2, "", "rebar"),
        (1, 40, "as released", "direct"),
    ]


def test_cell_by_hand() -> None:
    """Bounds 125 and 127: mean 126, deviation √2, t quantile 12.7062 of one degree of freedom."""
    row = build("figure2", pd.DataFrame(example()), PAPER).iloc[1]
    assert row["test_bound"] == 126.0
    assert row["half_width"] == pytest.approx(12.706204736)
    assert (row["seeds"], row["diverged"], row["failed"]) == (2, 1, 1)
    assert row["epochs"] == 400
    assert row["difference"] == pytest.approx(126.0 - 126.37)
    assert (row["test_kl"], row["test_codes_in_use"]) == (23.5, 9.5)
    assert row["commit"] == "12e4567890"


def test_comparison_with_the_best_by_hand() -> None:
    """Paired differences 1, 2 and 3 have mean 2 and half width 4.302653/√3; 0, 5 and 10 do not exclude zero.

    Other numbers of epochs, other protocols and seeds that the best lacks are no part of it.
    """
    rows = cell(20, 2, "direct", [100.0, 101.0, 102.0]) + cell(20, 2, "rebar", [101.0, 103.0, 105.0, 999.0])
    rows += cell(20, 2, "relax", [90.0, 90.0, 90.0], epochs=600)
    rows += cell(20, 10, "direct", [100.0, 101.0, 102.0]) + cell(20, 10, "rebar", [100.0, 106.0, 112.0])
    table = build("figure2", pd.DataFrame(rows), PAPER).set_index(["n", "estimator", "k"])
    clear, unclear = table.loc[(20, "rebar", 2)], table.loc[(20, "rebar", 10)]
    assert (clear["behind"], unclear["behind"]) == (2.0, 5.0)
    assert clear["behind_half_width"] == pytest.approx(4.302653 / math.sqrt(3))
    assert table["best"].to_dict() == dict.fromkeys(table.index, False)
    rows[3:6] = cell(20, 2, "rebar", [101.0, 102.1, 103.2])
    table = build("figure2", pd.DataFrame(rows), PAPER).set_index(["n", "estimator", "k"])
    assert [key for key, best in table["best"].items() if best] == [(20, "direct", 2)]
    assert table["behind"].drop(index=[(20, "rebar", 2), (20, "rebar", 10)]).isna().all()
    text = render("figure2", build("figure2", pd.DataFrame(rows), PAPER), "md")
    assert "| **101.00 ± 2.48** |" in text
    t, holm = 1.1 / (0.1 / math.sqrt(3)), 2
    p_value = holm * 2 * stats.t.sf(t, 2)
    assert table.loc[(20, "rebar", 2), "behind_p"] == pytest.approx(p_value)
    assert table.loc[(20, "rebar", 2), "behind_p_sign_flip"] == 2 / 2**3
    assert "+1.10 ± 0.25† |" in text
    assert text.count("†") == 2, "the row and the caption"
    assert "behind the best" in text
    assert r"\textbf{101.00" in render("figure2", build("figure2", pd.DataFrame(rows), PAPER), "tex")


def test_rows_of_other_data_are_not_compared_with_what_is_published() -> None:
    frames = [build("figure2", pd.DataFrame(example()).assign(data=data), PAPER) for data in ("mnist", "digits")]
    mnist, digits = (frame[frame["seeds"] > 0] for frame in frames)
    assert mnist["paper"].notna().sum() == 3
    assert digits[["paper", "difference"]].isna().all(axis=None)


def test_unpublished_one_seed_and_not_run_cells() -> None:
    table = build("figure2", pd.DataFrame(example()), PAPER)
    exact, rebar = table.iloc[0], table.iloc[4]
    assert math.isnan(exact["half_width"])
    assert math.isnan(exact["paper"])
    assert exact["commit"] == "12e4567890 with uncommitted changes"
    assert (rebar["seeds"], rebar["paper"]) == (0, 127.07)
    assert math.isnan(rebar["test_bound"])


def test_cell_without_finished_seeds_is_kept() -> None:
    rows = cell(20, 2, "direct", [math.nan] * 2, status="diverged")
    table = build("figure2", pd.DataFrame(rows), PAPER[:1])
    assert table[["seeds", "diverged"]].to_numpy().tolist() == [[0, 2]]
    assert "| – | 126.37 | – | 0 | 2 | 0 |" in render("figure2", table, "md")


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"config_hash": "other"}, r"20×2 direct as released: several config_hash \(a and other\)"),
        ({"epochs": 300}, r"several epochs \(400 and 300\)"),
        ({"samples": 1}, r"several samples \(100 and 1\)"),
        ({"seed": 0}, "seed 0 more than once"),
        ({"test_bound": math.nan}, "a done seed without a finite test_bound"),
        ({"status": "running"}, "status=running: unknown; allowed: done, diverged, failed"),
        ({"test_bound": "high"}, "column test_bound of table=figure2"),
        ({"seed": math.nan}, "lacks n, k or seed"),
    ],
)
def test_refuses_cells_that_cannot_be_averaged(second: dict, message: str) -> None:
    first, other = cell(20, 2, "direct", [126.0, 127.0], config_hash="a")
    with pytest.raises(UsageError, match=message) as raised:
        build("figure2", pd.DataFrame([first, other | second]), PAPER)
    assert "\n" not in str(raised.value)


def test_names_what_is_missing() -> None:
    runs = pd.DataFrame(example())
    with pytest.raises(UsageError, match=r"runs.csv: missing column kl, test_kl; found: table"):
        build("figure2", runs.drop(columns=["kl", "test_kl"]), PAPER)
    with pytest.raises(UsageError, match=r"paper/figure2.csv: missing column value"):
        build("figure2", runs, PAPER.drop(columns="value"))
    with pytest.raises(UsageError, match=r"table=figure9: unknown; allowed: figure2, section61"):
        build("figure9", runs, PAPER)
    with pytest.raises(UsageError, match=r"no row of table=figure2 \(found: section61\).*reproduce figure2"):
        build("figure2", runs[runs["table"] == "section61"], PAPER)
    with pytest.raises(UsageError, match="format=html: unknown; allowed: md, tex, csv"):
        render("figure2", build("figure2", runs, PAPER), "html")


def test_missing_and_broken_files_are_named(results: Path) -> None:
    (results / "curves.csv").unlink()
    with pytest.raises(UsageError, match=r"curves.csv: no such file; make it with: argmax-vae reproduce"):
        write("figure2", results)
    assert not (results / "figure2.md").exists()
    (results / "runs.csv").write_text("")
    with pytest.raises(UsageError, match=r"runs.csv: not a csv file"):
        check("figure2", results)
    (results / "runs.csv").write_bytes("table,protocol\nfigure2,für immer\n".encode("latin-1"))
    with pytest.raises(UsageError, match=r"runs.csv: not a csv file \('utf-8' codec.*; make it with: .*") as raised:
        check("figure2", results)
    assert "\n" not in str(raised.value)


def test_hashes_and_versions_stay_text(results: Path) -> None:
    runs = read(results / "runs.csv", "")
    assert runs["commit"].iloc[0] == "12e45678901234"
    assert runs["torch"].iloc[0] == "2.10"
    table = build("figure2", *(read_inputs("figure2", results)[key] for key in ("runs", "paper")))
    pd.testing.assert_frame_equal(table, build("figure2", pd.DataFrame(example()), PAPER), check_dtype=False)


def test_every_commit_of_a_row_is_named() -> None:
    rows = cell(20, 2, "direct", [126.0, 127.0], commit="12e45678901234, 0123456789ab", dirty=True)
    (row,) = build("figure2", pd.DataFrame(rows), PAPER).query("seeds > 0").to_dict("records")
    assert row["commit"] == "12e4567890, 0123456789 with uncommitted changes"


def test_markdown_says_what_the_numbers_are() -> None:
    text = render("figure2", build("figure2", pd.DataFrame(example()), PAPER), "md")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "**126.00 ± 12.71** | 126.37 | −0.37 | best | 2 | 1 | 1 | 400 | 23.50 | 9.50 |" in lines[3]
    assert "| no | ε 1.0·exp(-1e-5 t) \\| floor 0.1 |" in lines[3]
    assert "| 99.00 | – | – | – | 1 |" in lines[2]
    for words in (
        "95 % Student-t interval",
        "100 hard samples per image (20×10, 20×2); exact expectation (1×40)",
        "400 epochs; 1, 2, 3 seeds per cell",
        "device NVIDIA H200",
        "commit 12e4567890 with uncommitted changes, 12e4567890",
        *(f"argmax-vae reproduce {name}\n" for name in ("figure2", "figure2_control_variates", "figure2_imle")),
        "argmax-vae report figure2\n",
    ):
        assert words in text


def test_text_of_files_is_neither_html_nor_a_formula(results: Path) -> None:
    runs = pd.read_csv(results / "runs.csv")
    runs.loc[runs["protocol"] == "as written", ["protocol", "device"]] = "=<script>alert(1)</script>"
    runs.to_csv(results / "runs.csv", index=False)
    write("figure2", results)
    text = (results / "figure2.md").read_text(encoding="utf-8")
    assert "<script>" not in text
    assert text.count("=&lt;script>alert(1)&lt;/script>") > 1
    written = pd.read_csv(results / "figure2.csv")["protocol"]
    assert "'=<script>alert(1)</script>" in set(written)
    assert check("figure2", results) == []


def test_csv_keeps_full_precision() -> None:
    table = build("figure2", pd.DataFrame(cell(20, 2, "direct", [0.1, 0.2, 0.4])), PAPER)
    rows = list(csv.DictReader(io.StringIO(render("figure2", table, "csv"))))
    assert float(rows[0]["test_bound"]) == table["test_bound"].iloc[0]
    assert float(rows[0]["half_width"]) == table["half_width"].iloc[0]
    assert rows[0]["seeds"] == "3"
    assert rows[1]["test_bound"] == ""


def test_latex_is_balanced_and_escaped() -> None:
    text = render("figure2", build("figure2", pd.DataFrame(example()), PAPER), "tex")
    body = text.split("\n", 1)[1]
    assert body.isascii()
    assert len(re.findall(r"(?<!\\){", body)) == len(re.findall(r"(?<!\\)}", body))
    assert not re.search(r"(?<!\\)[%#_^~]", body)
    columns = re.search(r"\\begin{tabular}{(\w+)}", body)
    assert columns is not None
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 7
    assert {row.count(" & ") + 1 for row in rows} == {len(columns.group(1))}
    assert [body.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]


def test_what_is_written_checks_and_tampering_is_found(results: Path) -> None:
    assert len(check("figure2", results)) == 5
    paths = write("figure2", results)
    expected = {f"figure2.{suffix}" for suffix in ("md", "tex", "csv", "svg")}
    assert {path.name for path in paths} == expected | {"figure5.svg"}
    assert not list(results.glob(".*"))
    assert check("figure2", results) == []
    markdown = results / "figure2.md"
    markdown.write_text(markdown.read_text().replace("126.00 ± 12.71", "120.00 ± 1.00"))
    (difference,) = check("figure2", results)
    assert re.search(r"figure2.md:8: committed .*120.00 ± 1.00.* computed .*126.00 ± 12.71", difference)
    (results / "figure2.tex").unlink()
    assert any("figure2.tex: missing; write it with: argmax-vae report" in line for line in check("figure2", results))


def test_check_forgives_rounding_but_not_changes(results: Path) -> None:
    write("figure2", results)
    path = results / "figure2.csv"
    text = path.read_text()
    width = re.search(r"12\.7062\d+", text)
    assert width is not None
    path.write_text(text.replace(width.group(), repr(float(width.group()) * (1 + 1e-13))))
    assert check("figure2", results) == []
    path.write_text(text.replace(width.group(), repr(float(width.group()) * (1 + 1e-6))))
    assert len(check("figure2", results)) == text.count(width.group())


def test_check_sees_new_runs_and_curves(results: Path) -> None:
    write("figure2", results)
    curves = results / "curves.csv"
    curves.write_text(curves.read_text().replace(",186.0", ",186.5"))
    over_epochs, difference = check("figure2", results)
    assert "figure5.svg: missing, or draws other data" in over_epochs
    assert "figure2.svg: draws other data" in difference
    pd.DataFrame(example()[1:]).to_csv(results / "runs.csv", index=False)
    assert {Path(line.split(":")[0]).suffix for line in check("figure2", results)} == {*(".md", ".tex", ".csv", ".svg")}


@pytest.mark.parametrize("name", list(TABLES))
def test_definitions_name_columns_of_the_files_of_record(name: str) -> None:
    table = TABLES[name]
    assert {table.metric, *table.compared, *table.means} <= {*COMMON, "test_bound"}


def test_loads_nothing_heavy() -> None:
    code = (
        "import sys, argmax_vae.report.tables, argmax_vae.report.figures; "
        "heavy = {'torch', 'pytorch_lightning', 'lightning', 'hydra', 'omegaconf', 'matplotlib'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"
