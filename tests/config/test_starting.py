"""What a configuration can start from, a run's own included, and the lines that refuse what does not fit."""

from pathlib import Path

import pytest
import yaml

from argmax_vae.cli import main
from argmax_vae.config.compose import Cell, cells
from argmax_vae.config.options import groups, primary_configs
from argmax_vae.config.stored import start, text
from argmax_vae.errors import UsageError
from argmax_vae.runs.directory import run_name
from helpers import TINY, same_numbers, train

pytestmark = pytest.mark.usefixtures("empty_directory")

RUNS = {
    "direct": ("experiment=written_direct", "model.latents=20x2", "table=figure2"),
    "learned": ("estimator=relax", "estimator.surrogate=[7,5]", "model.latents=3x2", 'protocol="it\'s é"'),
    "mixture": ("model=mixture", "supervision=joint", "data=digits", "trainer.batch=50", "paths.runs='a b'"),
    "faces": (
        "experiment=attributes_gumbel_softmax",
        "data.attributes=[Male]",
        "laboratory.variants=[{name: exact, limit: 9}]",
    ),
    "schedule": ("estimator=gumbel_rao", "schedule@estimator.temperature=cosine", "estimator.temperature.end=1e-7"),
}


def one(*overrides: str, name: str = "train") -> Cell:
    (found,) = cells(name, list(overrides))
    return found


def refused(*overrides: str, name: str = "train") -> str:
    with pytest.raises(UsageError) as caught:
        cells(name, list(overrides))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def store(config_dict: dict, folder: str = "runs/some") -> Path:
    """A run's `config.yaml`, as the run writes it."""
    path = Path(folder) / "config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(config_dict, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


@pytest.mark.parametrize("chosen", RUNS)
def test_what_a_run_says_of_itself_can_be_trained_again(chosen: str) -> None:
    cell = one(*RUNS[chosen])
    path = store(cell.config_dict)
    again = one(name=str(path))
    assert {**again.config_dict, "chosen": {}} == {**cell.config_dict, "chosen": {}}
    assert run_name(again.config_dict) == run_name(cell.config_dict)
    assert one(name=str(path.parent)).config_dict == again.config_dict
    assert one(f"hydra.searchpath=[{path.parent}]", name="config").config_dict == again.config_dict


def test_a_run_is_started_from_with_other_choices() -> None:
    schedule = ("schedule@estimator.temperature=exponential", "estimator.temperature.start=0.7")
    path = str(store(one("estimator=gumbel_softmax", *schedule, "trainer.epochs=10").config_dict))
    other = one("estimator=rebar", "trainer.batch=7", name=path).config_dict
    assert other["estimator"] == one("estimator=rebar").config_dict["estimator"]
    assert (other["trainer"]["epochs"], other["trainer"]["batch"]) == (10, 7)
    constant = one("schedule@estimator.temperature=constant", name=path).config_dict["estimator"]
    assert constant["temperature"] == {"name": "constant", "value": 0.1}
    swept = cells(path, ["model.latents=2x2,3x3", "estimator.temperature.start=0.9"])
    assert [cell.config_dict["model"]["latents"] for cell in swept] == ["2x2", "3x3"]
    assert {cell.config_dict["estimator"]["temperature"]["start"] for cell in swept} == {0.9}
    assert "experiment=NAME cannot be added" in refused("experiment=written_direct", name=path)
    assert "belongs to another option" in refused("estimator.samples=2", "estimator=rebar", name=path)


def test_a_run_of_an_earlier_version_is_started_from_with_defaults() -> None:
    config_dict = one("data=digits").config_dict
    del config_dict["laboratory"], config_dict["supervision"]
    path = str(store(config_dict))
    assert one(name=path).config_dict == one("data=digits").config_dict
    config_dict["trainer"]["novelty"] = 1
    assert "unknown key 'trainer.novelty'" in refused(name=str(store(config_dict, "runs/other")))


def test_training_again_from_a_runs_own_file_gives_the_same_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    run = train(Path("runs"), "seeds=[3]")
    assert main(["train", "--config-name", str(run.path / "config.yaml"), "paths.runs=again"]) == 0
    (again,) = Path("again").glob("*/done.json")
    assert again.parent.name == run.path.name
    same_numbers(run, type(run)(again.parent))
    capsys.readouterr()
    assert main(["train", "--config-name", str(run.path), "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("done ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "cannot be read as a mapping"),
        ("3", "cannot be read as a mapping"),
        ("{}", "no config of a run"),
        ("{data: 3, model: {}, estimator: {}}", "no config of a run"),
        ("{data: {name: x}, model: {name: linear}, estimator: {name: direct}}", "data=x: no such option"),
    ],
)
def test_a_file_that_is_no_config_is_named(content: str, message: str) -> None:
    Path("file.yaml").write_text(content)
    assert message in refused(name="file.yaml")
    assert "no such config" in refused(name="nowhere/config.yaml")
    assert "no config named 'nowhere'" in refused(name="nowhere.yaml")


def test_a_directory_of_the_users_own_has_further_configs_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("my conf")
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "short.yaml").write_text("# @package _global_\ntrainer:\n  epochs: 10\n")
    (folder / "mine.yaml").write_text("defaults:\n  - train\n  - override data: digits\n  - _self_\n\nseeds: [7]\n")
    (folder / "alone.yaml").write_text("defaults: []\n\nseeds: [7]\n")
    given = f"hydra.searchpath=['{folder}']"
    assert one(given, "experiment=short").config.trainer.epochs == 10
    cell = one(given, "experiment=short", name="mine")
    assert (cell.config.seeds, cell.config.data.name, cell.config.trainer.epochs) == ([7], "digits", 10)
    assert one("experiment=short", name=str(folder / "mine.yaml")).config_dict == cell.config_dict
    assert "experiment=shorter: no such option; did you mean 'short'?" in refused(given, "experiment=shorter")
    assert "mine" in refused(given, name="min")
    (folder / "runtime").mkdir()
    (folder / "runtime" / "odd.yaml").write_text("novelty: 1\n")
    assert refused(given, "runtime=odd").startswith("config runtime/odd: Key 'novelty' not in 'RuntimeConfig'")
    assert "let its defaults start with `- train`" in refused(given, name="alone")
    assert main(["train", "--config-dir", str(folder), "--config-name", "mine", "experiment=short", "--dry-run"]) == 0
    assert "10 epochs" in capsys.readouterr().out
    assert main(["train", "--config-dir", "nowhere", "--dry-run"]) == 2
    assert "nowhere: no such directory of configs" in capsys.readouterr().err


def test_a_pattern_stands_for_the_options_that_match() -> None:
    found = cells("train", ["estimator=glob(re*)", "model.latents=3x2"])
    assert [cell.config.estimator.name for cell in found] == [n for n in groups()["estimator"] if n.startswith("re")]
    found = cells("train", ["schedule@estimator.epsilon=glob(*,exclude=constant*)"])
    assert len(found) == len(groups()["schedule"]) - 2
    assert "estimator=glob(q*): no option matches; there are arm" in refused("estimator=glob(q*)")
    assert "glob is for groups of options" in refused("trainer.epochs=glob(*)")


def test_a_sweep_is_listed_without_training(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["train", "-m", "--dry-run", *TINY, "seeds=[0],[1]"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("missing ") for line in lines)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ("hydra.launcher.n_jobs=2", ["the chosen engine has no 'n_jobs'", "hydra/launcher=joblib, gpus"]),
        ("hydra/launcher=null", ["no engine; there are basic, joblib"]),
        ("hydra.novelty=1", ["unknown key 'hydra.novelty'"]),
        ("model.gaussian=10", ["'model.gaussian' belongs to another option", "model=mixture or model=attributes"]),
        ("data.attributes=[Male]", ["'data.attributes' belongs to another option", "data=celeba"]),
        ("estimator.limit=9", ["'estimator.limit' belongs to another option", "estimator=exact"]),
        ("model.gausian=10", ["unknown key 'model.gausian'", "'model.gaussian'"]),
        ("estimator.surogate=[1]", ["unknown key 'estimator.surogate'", "'estimator.surrogate'"]),
        ("estimator.epsilon.rate=1", ["belongs to another option", "schedule@estimator.epsilon=exponential"]),
        ("estimator.temperature.value=1", ["belongs to another option", "estimator=gumbel_softmax or"]),
        ("schedule@estimator.temperature=constant", ["belongs to another option", "estimator=gumbel_softmax or"]),
        ("schedule@estimator=constant", ["schedule@estimator.epsilon, schedule@estimator.temperature"]),
        ("estimator=3", ["estimator=3: no such option", "direct"]),
        ("estimator=[direct]", ["estimator=[direct]: no such option"]),
        ("runtime=[0]", ["runtime=[0]: no such option; there are default"]),
        ("~runtime=1.5", ["key 'runtime' cannot be removed"]),
        ("~trainer.epochs", ["key 'trainer.epochs' cannot be removed"]),
        ("+trainer.epochs=3", ["the key is there already, write trainer.epochs=3"]),
        ("+model.gaussian={}", ["'model.gaussian' belongs to another option"]),
        ("estimator.epsilon=3", ["choose a schedule: schedule@estimator.epsilon=NAME"]),
        ("runtime.compile=5", ["runtime.compile=5: must be true or false"]),
        ("tracker.per_seed=-1", ["tracker.per_seed=-1: must be true or false"]),
        ("paths.runs=true", ["paths.runs=true: must be text"]),
        ("trainer.epochs=true", ["trainer.epochs=true"]),
        ("optim.learning_rate=false", ["optim.learning_rate=false"]),
        ("paths.runs=''", ["paths.runs='' must be text"]),
        ("model.hidden=[100000000000000000000]", ["model.hidden=", "sizes from 1 to 1048576"]),
        ("estimator.epsilon.value=1e-46", ["estimator.epsilon.value=1e-46", "greater than 0, in float32"]),
        ("trainer.epochs=interval(1,2)", ["only `argmax-vae search` takes intervals"]),
        ("trainer.epochs=range(0,1000000000)", ["a sweep has at most 10000"]),
        ("paths.data=${oc.env:NOWHERE}", ["paths.data", "'NOWHERE' not found"]),
    ],
)
def test_one_line_says_what_is_wrong_and_what_to_do(overrides: str, parts: list[str]) -> None:
    line = refused(*overrides.split(" "))
    assert [part for part in parts if part not in line] == [], line


def test_no_experiment_is_the_default() -> None:
    assert one("experiment=null").config_dict == one().config_dict
    found = cells("train", ["experiment=null,written_direct"])
    assert [cell.config.protocol for cell in found] == ["", "as written"]


@pytest.mark.parametrize(
    "value", ["", "it's", "a\\", "a\\'b", "é ${x}", 3, -0.5, 1e-7, 1e22, True, None, [1, "a"], {"a": 1}]
)
def test_values_are_written_as_overrides_read_them(value: object) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert OverridesParser.create().parse_override(f"key={text(value)}").value() == value


@pytest.mark.parametrize("name", primary_configs())
def test_a_directory_of_the_same_name_hides_no_config(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as the one that the demo writes into."""
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert start(name, ["seeds=[1]"]) == (name, ["seeds=[1]"])
