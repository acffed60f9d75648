"""Files of record: what a run writes into them, which rows replace which, and files that are not understood."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from argmax_vae.cli import main
from argmax_vae.commands import records
from argmax_vae.commands.records import Entry, merge
from argmax_vae.errors import UsageError
from argmax_vae.files import RESTORE, csv_rows
from argmax_vae.runs import provenance
from argmax_vae.runs.directory import identity
from helpers import TINY, metrics, train

CHOICES = {"table": "t", "protocol": "", "estimator": "direct", "data": "mnist", "n": 20, "k": 2, "learning_rate": 0.1}
PLAIN = {"optim": {"learning_rate": 0.1}, "trainer": {"epochs": 10}, "seeds": [0, 1]}


def entry(
    value: float = 1.0, config_dict: dict[str, Any] | None = None, lost: tuple[int, ...] = (), **choices: Any
) -> Entry:
    """A run's rows, with test bounds that start at a value; `lost` seeds diverged in the third epoch."""
    config_dict = {**PLAIN, **choices, **(config_dict or {})}
    name = choices.pop("run", identity(config_dict))
    shared = {**CHOICES, "run": name, **choices, "config_hash": identity(config_dict)}
    rate = {"learning_rate": config_dict["optim"]["learning_rate"]}
    epochs = config_dict["trainer"]["epochs"]
    rows = [
        {
            **shared,
            **rate,
            "seed": seed,
            "status": "diverged" if seed in lost else "done",
            "epochs": 3 if seed in lost else epochs,
            "test_bound": float("nan") if seed in lost else value + seed,
        }
        for seed in config_dict["seeds"]
    ]
    points = [{**shared, "seed": seed, "epoch": epochs, "test_bound": value} for seed in config_dict["seeds"]]
    return Entry(
        config_dict, pd.DataFrame(rows), pd.DataFrame(points).drop(columns=["data", "config_hash", "learning_rate"])
    )


def stored(results: Path, name: str = "runs.csv") -> pd.DataFrame:
    """A file of record as text."""
    return pd.read_csv(results / name, keep_default_na=False, dtype=str)


def test_rows_of_record_hold_choices_numbers_and_origin(tmp_path: Path) -> None:
    run = train(tmp_path, "seeds=[2,3]")
    record = records.record(run, "figure2", "as written")
    seeds = pd.read_csv(run.path / "seeds.csv")
    assert len(record) == 2
    pd.testing.assert_frame_equal(record[list(seeds.columns)], seeds)
    first = record.iloc[0]
    config_dict = run.config()
    assert (first["table"], first["protocol"], first["run"]) == ("figure2", "as written", run.path.name)
    assert (first["latents"], first["estimator"], first["kl"], first["data"]) == (
        "3x4",
        "direct",
        "analytic",
        "digits",
    )
    assert first["config_hash"] == identity(config_dict)
    assert first["commit"] == provenance.commit()[0]
    assert first["samples"] == config_dict["trainer"]["final_samples"]

    curves = records.curves(run, "figure2", "as written")
    assert list(curves["seed"]) == [2, 3, 2, 3]
    assert list(curves["epoch"]) == [1, 1, 2, 2]
    assert list(curves["validation_bound"]) == list(metrics(run)["validation_bound"].round(4))
    assert set(zip(curves["n"], curves["k"], strict=True)) == {(3, 4)}


def test_merging_replaces_the_same_cell_and_keeps_all_others(tmp_path: Path) -> None:
    others = [{"table": "u"}, {"protocol": "p"}, {"estimator": "exact"}, {"data": "digits"}, {"n": 1}, {"k": 10}]
    assert merge([entry(1), *(entry(10, **choice) for choice in others)], tmp_path) == []
    before = [stored(tmp_path, name) for name in ("runs.csv", "curves.csv")]
    assert [len(frame) for frame in before] == [14, 14]
    assert merge([entry(0.1)], tmp_path) == []
    for frame, name in zip(before, ("runs.csv", "curves.csv"), strict=True):
        after = stored(tmp_path, name)
        pd.testing.assert_frame_equal(after[:12], frame[2:].reset_index(drop=True))
        assert after["test_bound"].iloc[12] == "0.1"
    content = [(tmp_path / name).read_bytes() for name in ("runs.csv", "curves.csv")]
    assert merge([entry(0.1)], tmp_path) == []
    assert [(tmp_path / name).read_bytes() for name in ("runs.csv", "curves.csv")] == content


def test_new_columns_are_added_behind_those_that_are_there(tmp_path: Path) -> None:
    merge([entry(n=1)], tmp_path)
    before = stored(tmp_path)
    one = entry(n=2)
    merge([Entry(one.config_dict, one.rows.assign(new="3, 4"), one.curves)], tmp_path)
    after = stored(tmp_path)
    assert list(after.columns) == [*before.columns, "new"]
    assert list(after["new"]) == ["", "", "3, 4", "3, 4"]


def test_every_value_of_a_search_keeps_its_rows(tmp_path: Path) -> None:
    for value, run in ((1, "a"), (10, "b"), (2, "a")):
        merge([entry(value, table="figure2_search", run=run)], tmp_path)
    for name, bounds in (("runs.csv", ["10", "11", "2", "3"]), ("curves.csv", ["10", "10", "2", "2"])):
        assert list(stored(tmp_path, name)["test_bound"]) == bounds


@pytest.mark.parametrize(
    ("before", "now", "stays", "said"),
    [
        ({}, {}, False, ""),
        ({}, {"trainer": {"epochs": 20}}, False, ""),
        ({}, {"seeds": [2, 1, 0]}, False, ""),
        ({"lost": (1,)}, {"trainer": {"epochs": 20}, "seeds": [0, 1, 2]}, False, ""),
        ({"lost": (0, 1)}, {"optim": {"learning_rate": 0.2}}, False, "another configuration (learning_rate 0.1 → 0.2)"),
        ({}, {"optim": {"learning_rate": 0.2}}, False, "another configuration (learning_rate 0.1 → 0.2)"),
        ({}, {"optim": {"learning_rate": 0.1, "epsilon": 1}}, False, ", another configuration"),
        ({}, {"seeds": [1, 2]}, False, ", other seeds"),
        ({}, {"trainer": {"epochs": 5}}, True, "10 epochs of 2 seeds stay, not replaced by 5 epochs of 2 seeds"),
        ({}, {"seeds": [0]}, True, "10 epochs of 2 seeds stay, not replaced by 10 epochs of 1 seeds"),
        ({}, {"lost": (1,)}, True, "finished rows of seed 1 stay, not replaced by diverged ones"),
        ({}, {"lost": (0, 1), "trainer": {"epochs": 20}}, True, "finished rows of seeds 0, 1 stay"),
    ],
)
def test_which_rows_replace_which(
    before: dict[str, Any], now: dict[str, Any], stays: bool, said: str, tmp_path: Path
) -> None:
    """A run that diverged replaces none that finished, other configurations are told, longer runs need no word."""

    def made(value: float, changes: dict[str, Any]) -> Entry:
        config_dict = {key: changes[key] for key in changes if key != "lost"}
        return entry(value, config_dict, changes.get("lost", ()))

    first, second = made(1, before), made(2, now)
    merge([first], tmp_path)
    content = [(tmp_path / name).read_bytes() for name in ("runs.csv", "curves.csv")]
    lines = merge([second], tmp_path)
    kept = [(tmp_path / name).read_bytes() for name in ("runs.csv", "curves.csv")] == content
    assert kept == stays
    assert len(lines) == bool(said)
    for line in lines:
        assert line.startswith(f"{tmp_path / 'runs.csv'}: t direct mnist 20 2: ")
        assert said in line
    if not stays:
        assert set(stored(tmp_path)["run"]) == {second.rows["run"][0]} == set(stored(tmp_path, "curves.csv")["run"])


def test_a_run_of_another_data_set_keeps_the_curves_of_the_first(tmp_path: Path) -> None:
    """Curves of linear models do not say of which data they are: their run does."""
    merge([entry(1)], tmp_path)
    merge([entry(2, data="digits")], tmp_path)
    assert list(stored(tmp_path, "curves.csv")["test_bound"]) == ["1", "1", "2", "2"]


def test_curves_without_rows_are_those_of_the_same_cell(tmp_path: Path) -> None:
    merge([entry(1), entry(2, n=3)], tmp_path)
    rows = stored(tmp_path)
    rows[rows["n"] == "3"].to_csv(tmp_path / "runs.csv", index=False)
    merge([entry(3, {"trainer": {"epochs": 5}})], tmp_path)
    assert list(stored(tmp_path, "curves.csv")["test_bound"]) == ["2", "2", "3", "3"]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(",20,2,", ",20.0, 2 ,"),
        lambda text: text.replace(",direct,", ", direct ,"),
        lambda text: "\ufeff" + text.replace("\n", "\r\n"),
    ],
)
def test_what_a_spreadsheet_changes_without_harm_is_understood(change: Callable[[str], str], tmp_path: Path) -> None:
    merge([entry(1), entry(2, n=3)], tmp_path)
    for name in ("runs.csv", "curves.csv"):
        path = tmp_path / name
        path.write_bytes(change(path.read_text(encoding="utf-8")).encode())
    assert merge([entry(1.5)], tmp_path) == []
    assert [len(stored(tmp_path, name)) for name in ("runs.csv", "curves.csv")] == [4, 4]


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda content: b"", "not a csv file (it is empty)"),
    "semicolons": (lambda content: content.replace(b",", b";"), "missing column table, "),
    "tabs": (lambda content: content.replace(b",", b"\t"), "missing column table, "),
    "upper case": (lambda content: content.upper(), "missing column table, "),
    "a conflict": (lambda content: b"<<<<<<< HEAD\n" + content, "missing column table, "),
    "a conflict inside": (lambda content: content + b"=======\n", "has 1 fields"),
    "a row too long": (lambda content: content.rstrip() + b",1\n", "fields, the first line"),
    "an open quote": (lambda content: content.replace(b"direct", b'"direct', 1), "unexpected end of data"),
    "UTF-16": (lambda content: content.decode().encode("utf-16"), "codec can't decode"),
    "a decimal comma": (lambda content: content.replace(b",20,2,", b',20,"2,0",'), "k='2,0' is not a whole number"),
    "no number": (lambda content: content.replace(b",20,2,", b",20,,"), "k='' is not a whole number"),
    "a column twice": (lambda content: content.replace(b"table,protocol", b"table,table"), "every column once"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["runs.csv", "curves.csv"])
def test_a_file_that_is_not_understood_is_one_line_and_nothing_is_written(
    name: str, damage: str, tmp_path: Path
) -> None:
    merge([entry(1), entry(2, n=3)], tmp_path)
    change, problem = DAMAGES[damage]
    path = tmp_path / name
    path.write_bytes(change(path.read_bytes()))
    content = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    for call in (lambda: records.check(path), lambda: merge([entry(3)], tmp_path)):
        with pytest.raises(UsageError) as raised:
            call()
        message = str(raised.value)
        assert message.startswith(f"{path}: ")
        assert problem in message
        assert message.endswith(RESTORE)
        assert "\n" not in message
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == content


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["reproduce", "train", *TINY, "table=demo"], "runs.csv"),
        (["reproduce", "train", *TINY, "table=demo"], "curves.csv"),
        (["search", "train", *TINY, "optim.learning_rate=0.1,0.2"], "searches.csv"),
    ],
)
def test_damaged_records_are_told_before_anything_is_trained(
    command: list[str], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / name).write_text("table;run\nt;r\n")
    where = [f"paths.runs={tmp_path / 'runs'}"]
    where += ["--results", str(results)] if command[0] == "search" else [f"paths.results={results}"]
    assert main([*command, *where]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"argmax-vae: {results / name}: missing column ")
    assert not (tmp_path / "runs").exists()


def test_a_run_that_diverges_leaves_the_rows_of_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from helpers import poison

    where = [f"paths.runs={tmp_path / 'runs'}", f"paths.results={tmp_path}"]
    command = ["reproduce", "train", *TINY, "table=demo", "trainer.epochs=1", "seeds=[0]", *where]
    assert main(command) == 0
    content = (tmp_path / "runs.csv").read_bytes()
    capsys.readouterr()
    poison(monkeypatch, [0], 1)
    main([*command, "optim.learning_rate=2"])
    assert "finished rows of seed 0 stay, not replaced by diverged ones" in capsys.readouterr().err
    assert (tmp_path / "runs.csv").read_bytes() == content


def test_two_runs_for_one_cell_are_refused_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [f"paths.runs={tmp_path / 'runs'}", f"paths.results={tmp_path}"]
    command = ["reproduce", "train", *TINY, "table=demo", "optim.learning_rate=0.1,0.2", *where]
    assert main(command) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "two runs" in line]
    assert line.startswith("argmax-vae: optim.learning_rate=0.1 and optim.learning_rate=0.2: two runs for one cell of ")
    assert not (tmp_path / "runs").exists()


def test_rows_are_read_one_at_a_time(tmp_path: Path) -> None:
    """Of a file of any length no more than the rows that a merge replaces are held."""
    merge([entry(1)], tmp_path)
    rows = csv_rows(tmp_path / "runs.csv")
    assert next(rows)[:2] == ["table", "protocol"]
    with (tmp_path / "runs.csv").open("a") as file:
        file.write("one field\n")
    assert len(next(rows)) == len(stored(tmp_path).columns)


def test_an_error_while_merging_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merge([entry(1)], tmp_path)
    content = {each.name: each.read_bytes() for each in tmp_path.iterdir()}

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UsageError, match="No space"):
        merge([entry(2)], tmp_path)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == content
