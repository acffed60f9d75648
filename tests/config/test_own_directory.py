"""A directory of configs of one's own: the one that conf/README.md describes, and mistakes in its files."""

import re
import warnings
from pathlib import Path

import pandas as pd
import pytest

from argmax_vae.cli import main
from argmax_vae.config.compose import Cell, cells
from argmax_vae.config.options import config_directory, primary_configs
from argmax_vae.errors import UsageError
from helpers import TINY

pytestmark = pytest.mark.usefixtures("empty_directory")
HOME = Path("own")


@pytest.fixture
def written(empty_directory: Path) -> None:
    """The files of conf/README.md."""
    text = (config_directory() / "README.md").read_text(encoding="utf-8")
    for name, content in re.findall(r"```yaml\n# DIR/([\w/.]+)[:,].*?\n(.*?)```", text, re.DOTALL):
        put(name, content)


def put(name: str, content: str) -> None:
    path = HOME / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def composed(name: str, *overrides: str) -> list[Cell]:
    return cells(name, [f"hydra.searchpath=[{HOME.absolute()}]", *overrides])


@pytest.mark.usefixtures("written")
def test_the_files_of_the_readme_do_what_it_says() -> None:
    (cell,) = composed("train", "experiment=mine")
    assert (cell.config.data.name, cell.config.model.latents) == ("digits", "10x2")
    assert cell.config_dict["estimator"]["epsilon"]["value"] == 0.3
    assert composed("train", "experiment=mine", "estimator=reinforce")[0].config.estimator.name == "reinforce"
    (cell,) = composed("train", "estimator=four")
    assert cell.config_dict["estimator"]["samples"] == 4
    assert cell.config_dict["estimator"]["epsilon"]["name"] == "linear"
    assert [cell.config.estimator.name for cell in composed("mine")] == ["direct", "gumbel_softmax"]
    (cell,) = composed("mine_tuned")
    assert cell.config.table == "mine" and cell.config_dict["estimator"]["epsilon"]["value"] == 0.3


@pytest.mark.usefixtures("written")
def test_rows_of_a_table_of_ones_own_are_trained_and_make_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "mine_tuned", "--config-dir", str(HOME), *TINY]) == 0
    (run,) = Path("runs").glob("digits-*")
    bound = pd.read_csv(run / "seeds.csv")["test_bound"].mean()
    text = Path("results/mine.md").read_text(encoding="utf-8")
    assert text.startswith("# Table mine\n") and "argmax-vae reproduce mine --config-dir DIR" in text
    (row,) = pd.read_csv("results/mine.csv").to_dict("records")
    assert row["test_bound"] == pytest.approx(bound) and (row["n"], row["k"]) == (3, 4)
    assert "3×4" in Path("results/mine.svg").read_text(encoding="utf-8")
    assert main(["report", "mine", "--check"]) == main(["report", "all", "--check"]) == 0
    before = Path("results/mine.svg").read_text(encoding="utf-8")
    Path("results/mine.svg").write_text("", encoding="utf-8")
    assert main(["report", "all", "--check"]) == 1
    assert main(["report", "mine"]) == 0 and Path("results/mine.svg").read_text(encoding="utf-8") == before
    capsys.readouterr()


@pytest.mark.usefixtures("written")
def test_rows_that_make_no_table_are_kept_and_it_is_said_how_to_compare_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A search has trials: their rows are those of no table."""
    assert main(["reproduce", "mine_tuned", "table=mine_search", "--config-dir", str(HOME), *TINY]) == 0
    (run,) = Path("runs").glob("digits-*")
    expected = "results/runs.csv has the rows of table=mine_search, which make no table; compare its runs: "
    assert f"argmax-vae: {expected}argmax-vae compare {run}\n" in capsys.readouterr().err
    assert main(["report", "mine_search"]) == 2
    assert "table=mine_search: unknown" in capsys.readouterr().err


@pytest.mark.usefixtures("written")
def test_files_of_something_else_disturb_nobody_until_they_are_chosen() -> None:
    contents = ["- a list\n", "rows: [estimator=direct]\n", "a: [1\n", "", "rows: {a: b}\n"]
    for place, content in enumerate(contents):
        put(f"other{place}.yaml", content)
    assert "mine_tuned" in primary_configs([HOME])
    assert len(composed("mine_tuned")) == 1
    for place in range(len(contents)):
        with pytest.raises(UsageError, match=rf"other{place}\.yaml"):
            composed(f"other{place}")


def test_a_config_without_self_is_taken_without_a_warning() -> None:
    put("short.yaml", "defaults: [train]\nseeds: [4]\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert composed("short")[0].config.seeds == [4]


GLOBAL = "# @package _global_\n"


@pytest.mark.parametrize(
    ("name", "content", "override", "message"),
    [
        (
            "experiment/e.yaml",
            "a: [1\n",
            "experiment=e",
            "e.yaml: line 2 cannot be read as YAML: expected",
        ),
        ("experiment/e.yaml", "defaults: [override /data: digits]\n", "experiment=e", "begins with .* _global_"),
        ("experiment/e.yaml", f"{GLOBAL}tuned: {{direct: a=1}}\n", "experiment=e", "tuned.direct must be a list"),
        ("experiment/e.yaml", f"{GLOBAL}tuned: {{direct: [a]}}\n", "experiment=e", "^'a' is no override"),
        ("estimator/e.yaml", "name: direct\nsamples: 4\n", "estimator=e", "begin its defaults with .* schema_direct"),
        ("model/e.yaml", "name: deep\nlikelihood: bernoulli\n", "model=e", "begin its defaults with .* schema_deep"),
    ],
)
def test_a_mistake_in_a_file_is_told_in_one_line(name: str, content: str, override: str, message: str) -> None:
    put(name, content)
    with pytest.raises(UsageError, match=message) as raised:
        composed("train", override)
    assert "\n" not in str(raised.value) and "searchpath" not in str(raised.value)


def test_the_directory_is_not_named_where_it_is_not_at_fault() -> None:
    put("lost.yaml", "defaults: [train, experiment: no_such, _self_]\n")
    with pytest.raises(UsageError, match="no_such") as raised:
        composed("lost")
    assert "searchpath" not in str(raised.value)


@pytest.mark.usefixtures("written")
def test_the_short_names_of_hydra_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-m", "-cd", str(HOME), "-cn", "mine", "data=digits", "--dry-run"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
