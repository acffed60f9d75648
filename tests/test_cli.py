"""The command line: help at once; bad input gets one line and exit code 2, and leaves nothing behind."""

import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import URLError

import pandas as pd
import pytest
import torch
import yaml

from argmax_vae import __version__
from argmax_vae.cli import VERBS, main, reproduce
from argmax_vae.cli import train as train_verb
from argmax_vae.commands import sweep
from argmax_vae.config import compose, launchers
from argmax_vae.config.options import groups, primary_configs
from argmax_vae.config.overrides import unfolded
from argmax_vae.errors import UsageError
from argmax_vae.runs.directory import RunDirectory
from helpers import TINY

pytestmark = pytest.mark.usefixtures("empty_directory")

# Each with parts of the line that it must be answered with.
BAD_OVERRIDES = [
    ("estimator=dircet", ["estimator=dircet", "did you mean 'direct'?", "exact", "gumbel_softmax"]),
    ("data=binarised_mnist", ["did you mean 'binarized_mnist'?"]),
    ("schedule@estimator.epsilon=const", ["did you mean 'constant'?", "cosine"]),
    ("estimator=vimco", ["that is estimator=reinforce objective=importance_weighted here", "gumbel_softmax"]),
    ("experiment=nothing", ["experiment=nothing", "released_mixture"]),
    ("tracker=null", ["tracker=null", "wandb"]),
    ("trainer.epoch=3", ["unknown key 'trainer.epoch'", "'trainer.epochs'"]),
    ("estimatr=direct", ["unknown key 'estimatr'", "'estimator'"]),
    ("+trainer.epoch=3", ["unknown key 'trainer.epoch'", "'trainer.epochs'"]),
    ("+novelty=3", ["unknown key 'novelty'"]),
    ("xyz=3", ["unknown key 'xyz'", "there are data, estimator"]),
    ("~seeds", ["'seeds' cannot be removed"]),
    ("~seeds.first", ["unknown key 'seeds.first'"]),
    ("estimator.temperature.value=1", ["'estimator.temperature.value'", "another option"]),
    ("trainer.epochs=many", ["trainer.epochs=many", "Integer"]),
    ("trainer.epochs=2.5", ["trainer.epochs=2.5", "Integer"]),
    ("trainer.epochs=null", ["trainer.epochs=null"]),
    ("trainer.epochs=0", ["trainer.epochs=0", "at least 1"]),
    ("trainer.evaluate_every=3", ["trainer.evaluate_every=3", "trainer.epochs=2"]),
    ("trainer.batch=1201", ["trainer.batch=1201", "at most the 1200 training images"]),
    ("schedule@estimator.epsilon=constant estimator.epsilon.value=0", ["estimator.epsilon.value=0", "greater than 0"]),
    (
        "schedule@estimator.epsilon=constant estimator.epsilon.value=-1",
        ["estimator.epsilon.value=-1", "greater than 0"],
    ),
    (
        "schedule@estimator.epsilon=constant estimator.epsilon.value=nan",
        ["estimator.epsilon.value=nan", "greater than 0"],
    ),
    ("estimator.epsilon.name=linear", ["estimator.epsilon.name=linear", "schedule@estimator.epsilon=NAME"]),
    ("estimator.name=exact", ["estimator.name=exact", "estimator=NAME"]),
    ("estimator.direction=up", ["estimator.direction=up", "toward, away, symmetric"]),
    ("model.latents=20x1", ["model.latents=20x1", "k at least 2"]),
    ("model.latents=0x2", ["model.latents=0x2", "n at least 1"]),
    ("model.latents=abc", ["model.latents=abc", "such as 20x10"]),
    ("model.latents=20X2", ["model.latents=20X2", "such as 20x10"]),
    ("model.name='a/b'", ["model.name=a/b", "letters"]),
    ("estimator=exact model.latents=20x10", ["estimator=exact", "10^20", "limit=4096"]),
    ("estimator=arm model.latents=20x3", ["estimator=arm", "binary", "k = 3"]),
    ("estimator=rebar estimator.parameterization=binary model.latents=2x3", ["estimator=rebar", "binary", "k = 3"]),
    ("estimator=reinforce estimator.samples=1", ["estimator.samples=1", "at least 2", "leave_one_out"]),
    ("estimator=relax estimator.surrogate=[0]", ["estimator.surrogate=[0]", "from 1 to"]),
    ("estimator=rebar estimator.initial_temperature=0", ["estimator.initial_temperature=0.0", "greater than 0"]),
    ("estimator=gumbel_rao estimator.temperature.value=-1", ["value=-1.0", "greater than 0"]),
    ("laboratory.repeats=1", ["laboratory.repeats=1", "at least 2"]),
    ("objective=concrete", ["objective.kl=concrete", "estimator=direct", "gumbel_softmax"]),
    ("optim.learning_rate=0", ["optim.learning_rate=0", "greater than 0"]),
    ("optim.estimator_factor=-1", ["optim.estimator_factor=-1", "greater than 0"]),
    ("optim.name=sgd", ["optim.name=sgd", "adam"]),
    ("data.name=cifar", ["data.name=cifar", "digits"]),
    ("tracker.mode=cloud", ["tracker.mode=cloud", "online"]),
    ("seeds=[]", ["seeds=[]", "at least one"]),
    ("seeds=[1,1]", ["seeds=[1, 1]", "without repetitions"]),
    ("seeds=[-1]", ["seeds=[-1]", "from 0"]),
    ("seeds=3", ["seeds=3", "must be a list, such as [0,1]"]),
    ("runtime.device=gpu", ["runtime.device=gpu", "cpu"]),
    ("foo", ["'foo' is no override", "key=value"]),
    ("=3", ["'=3' has no key", "key=value"]),
    ("seeds=[", ["'seeds=[' is no override"]),
    ("table=a=b", ["'table=a=b' is no override"]),
    ("paths.runs=${nowhere}", ["paths.runs", "nowhere"]),
    ("model.latents=2x2,3x3", ["2 runs", "-m"]),
]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must be answered with exit code 2 and one line; returns the line."""
    code = main(list(arguments))
    out, err = capsys.readouterr()
    assert code == 2, err
    assert out == ""
    assert err.startswith("argmax-vae: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    return err


def test_every_example_composes() -> None:
    """Those of the pages and of --help that train or reproduce; without their engine where it is not installed."""
    pages = (Path(__file__).parents[1] / page for page in ("README.md", "results/README.md", "conf/README.md"))
    text = "".join(page.read_text() for page in pages) + train_verb.EXAMPLES + reproduce.EXAMPLES
    examples = re.findall(r"^[ $]*argmax-vae (train|reproduce) ([^#\n]*)", text, re.MULTILINE)
    assert len(examples) > 8
    for verb, words in examples:
        _, named, rest = words.partition("--config-name ")
        arguments = [word for word in (rest or words).split() if not word.startswith("-") and word != "job"]
        name = arguments.pop(0) if verb == "reproduce" or named else "train"
        try:
            launchers.require_extra(launchers.chosen(arguments))
        except UsageError:
            arguments = [word for word in arguments if not launchers.is_hydras(word)]
        if name.endswith(".txt") or name == sweep.ALL:
            place = name if name == sweep.ALL else str(Path(__file__).parents[1] / name)
            assert sweep.lines_of(place, arguments), words
            continue
        assert compose.cells(name, arguments), words


def test_overrides_may_follow_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [f"paths.runs={tmp_path}", "trainer.epochs=10", "model.latents=20x2", "experiment=released_direct"]
    assert main(["reproduce", "figure2", asked[0], "--dry-run", *asked[1:]]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "10 epochs" in line
    for arguments in (["reproduce", "figure2", "--dry-rum", *asked], ["page", "--runs", "runs", "more"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        assert "unrecognized arguments" in capsys.readouterr().err


@pytest.mark.parametrize(("overrides", "parts"), BAD_OVERRIDES, ids=[given for given, _ in BAD_OVERRIDES])
def test_a_bad_override_is_one_line(
    overrides: str, parts: list[str], capsys: pytest.CaptureFixture[str], empty_directory: Path
) -> None:
    line = refused(capsys, "train", *TINY, *overrides.split(" "))
    assert [part for part in parts if part not in line] == [], line
    assert list(empty_directory.iterdir()) == []


def test_every_cell_of_a_sweep_is_checked_before_the_first_starts(
    capsys: pytest.CaptureFixture[str], empty_directory: Path
) -> None:
    line = refused(capsys, "train", "-m", *TINY, "trainer.epochs=2,many")
    assert "trainer.epochs=many" in line
    line = refused(capsys, "train", "-m", *TINY, "trainer.batch=100,1300")
    assert "trainer.batch=1300" in line
    assert list(empty_directory.iterdir()) == []


@pytest.mark.parametrize("verb", ["train", "reproduce"])
def test_an_unknown_config_names_the_nearest(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "--config-name", "figure22"] if verb == "train" else ["reproduce", "figure22"]
    line = refused(capsys, *arguments)
    assert "'figure22'" in line
    assert "did you mean 'figure2'?" in line
    assert all(name in line for name in primary_configs())


def test_what_is_no_table_cannot_be_reproduced(capsys: pytest.CaptureFixture[str], empty_directory: Path) -> None:
    assert "train" in refused(capsys, "reproduce", "train", *TINY)
    assert list(empty_directory.iterdir()) == []


def test_an_unknown_table_cannot_be_reported(capsys: pytest.CaptureFixture[str], empty_directory: Path) -> None:
    line = refused(capsys, "report", "figure9")
    assert "figure9" in line
    assert "figure2" in line
    assert list(empty_directory.iterdir()) == []


def test_a_report_without_files_of_record_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    assert "runs.csv" in refused(capsys, "report", "figure2", "--results", "nowhere")


def test_missing_data_is_named(capsys: pytest.CaptureFixture[str], empty_directory: Path) -> None:
    (empty_directory / "data").mkdir()
    line = refused(capsys, "train", *TINY, "data=binarized_mnist")
    assert "binarized_mnist_train.npy is missing" in line
    assert "paths.data" in line
    line = refused(capsys, "train", "-m", *TINY, "data=digits,binarized_mnist")
    assert "binarized_mnist_train.npy is missing" in line
    assert [entry.name for entry in empty_directory.iterdir()] == ["data"]


def test_damaged_data_is_named(capsys: pytest.CaptureFixture[str], empty_directory: Path) -> None:
    folder = empty_directory / "data" / "BinarizedMNIST"
    folder.mkdir(parents=True)
    (folder / "binarized_mnist_train.npy").write_bytes(b"\x93NUMPY garbage")
    line = refused(capsys, "train", *TINY, "data=binarized_mnist")
    assert "binarized_mnist_train.npy is damaged" in line
    assert not (empty_directory / "runs").exists()


def test_no_network_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, empty_directory: Path
) -> None:
    def offline(*arguments: Any, **named: Any) -> NoReturn:
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    line = refused(capsys, "train", *TINY, "data=mnist")
    assert "downloading" in line
    assert "paths.data" in line
    assert not (empty_directory / "runs").exists()


@pytest.mark.parametrize("multirun", [False, True])
def test_a_place_that_is_no_directory_is_one_line(
    multirun: bool, capsys: pytest.CaptureFixture[str], empty_directory: Path
) -> None:
    (empty_directory / "file").write_text("")
    sweep = ["-m", "seeds=[0],[1]"] if multirun else []
    line = refused(capsys, "train", *sweep, *TINY, "paths.runs=file/runs")
    assert "file/runs" in line
    assert "another directory" in line
    assert [entry.name for entry in empty_directory.iterdir()] == ["file"]


def test_an_absent_device_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, empty_directory: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "runtime.device=cuda" in refused(capsys, "train", *TINY, "runtime.device=cuda")
    assert list(empty_directory.iterdir()) == []


def test_a_size_for_which_nothing_was_chosen_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "train", *TINY, "experiment=written_direct", "model.latents=7x2")
    assert line.startswith("argmax-vae: estimator.epsilon.value: none was chosen for model.latents=7x2; give ")


LONG = "a" * 256


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["train", *TINY, f"paths.runs={LONG}"], "paths.runs="),
        (["train", *TINY, f"paths.data=there/{LONG}"], "paths.data="),
        (
            ["train", *TINY, "paths.results='~nobody-of-this-name/x'"],
            "paths.results=~nobody-of-this-name/x: this machine",
        ),
        (["train", *TINY, f"model.name={LONG}"], "at most 100 letters, digits and underscores"),
        (["evaluate", LONG], "--run="),
        (["gradients", LONG], "RUN_OR_CONFIG="),
        (["page", "--output", LONG], "--output="),
        (["compare", "a", "b", LONG], "--more="),
        (["report", "figure4", "--from", "a", LONG], "--from="),
        (["page", "--output", "folder"], "--output=folder: is a directory; name a file"),
        (["compare", "a", "b", "--output", "folder"], "--output=folder: is a directory; name a file"),
        (["bench", "--output", "folder"], "bench --output=folder: is a directory; name a file"),
        (["runs", "--runs", "~no-such-user"], "--runs=~no-such-user: this machine knows no such user"),
    ],
)
def test_paths_that_cannot_be_are_one_line_at_once(
    arguments: list[str], part: str, capsys: pytest.CaptureFixture[str], empty_directory: Path
) -> None:
    (empty_directory / "folder").mkdir()
    assert part in refused(capsys, *arguments)
    assert [path.name for path in empty_directory.iterdir()] == ["folder"]


def test_the_home_directory_is_what_a_tilde_says(monkeypatch: pytest.MonkeyPatch, empty_directory: Path) -> None:
    monkeypatch.setenv("HOME", str(empty_directory))
    (cell,) = compose.cells("train", [*TINY, "paths.runs='~/r/'", "paths.data='~/d'"])
    paths = {"data": f"{empty_directory}/d", "runs": f"{empty_directory}/r", "results": "results"}
    assert cell.config_dict["paths"] == vars(cell.config.paths) == paths
    assert cell.run.path.parent == empty_directory / "r"


def test_without_a_working_directory_nothing_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], empty_directory: Path
) -> None:
    gone = empty_directory / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for arguments in (["runs"], ["train", *TINY]):
        assert refused(capsys, *arguments) == (
            "argmax-vae: the working directory no longer exists; change to one that does\n"
        )


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--seeds", "0"], "--seeds [0] must be at least 1"),
        (["--seconds", "-1"], "--seconds -1.0 more than 0"),
        (["--output", "file/speed.csv"], "cannot write to file"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    arguments: list[str], part: str, capsys: pytest.CaptureFixture[str], empty_directory: Path
) -> None:
    (empty_directory / "file").touch()
    assert part in refused(capsys, "bench", *arguments)


def test_a_damaged_configuration_is_one_line(capsys: pytest.CaptureFixture[str], empty_directory: Path) -> None:
    run = RunDirectory(empty_directory / "runs" / "broken")
    run.path.mkdir(parents=True)
    (run.path / "config.yaml").write_text("{")
    line = refused(capsys, "compare", str(run.path), str(run.path))
    assert "broken/config.yaml is damaged; remove the directory and train again" in line


def test_training_ends_with_what_was_reached_and_says_so_again(
    capsys: pytest.CaptureFixture[str], empty_directory: Path
) -> None:
    lines = []
    for _ in range(2):
        assert main(["train", *TINY, "seeds=[0,1]"]) == 0
        lines.append(capsys.readouterr().out)
    (path,) = (found.parent for found in (empty_directory / "runs").glob("*/seeds.csv"))
    mean = pd.read_csv(path / "seeds.csv")["test_bound"].mean()
    assert lines[0] == lines[1]
    assert lines[0].startswith(f"runs/{path.name}: test bound {mean:.2f} ± ")
    assert lines[0].endswith(" nats (2 of 2 seeds, 2 epochs)\n")


def test_what_is_no_run_cannot_be_evaluated(capsys: pytest.CaptureFixture[str], empty_directory: Path) -> None:
    assert "nowhere" in refused(capsys, "evaluate", "nowhere")
    assert list(empty_directory.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [[], ["frobnicate"], ["train", "--frobnicate"], ["runs", "--failed", "--missing", "figure2"]]
)
def test_argparse_refuses_with_the_same_code(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: argmax-vae" in capsys.readouterr().err


# Answers


@pytest.mark.parametrize("name", primary_configs())
def test_every_primary_config_can_be_listed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if name == "train":
        return
    assert main(["reproduce", name, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(line.startswith("missing") for line in lines)
    assert len(set(lines)) == len(lines)


def test_cfg_prints_the_composed_configuration(capsys: pytest.CaptureFixture[str], empty_directory: Path) -> None:
    assert main(["train", "--cfg", "job", *TINY]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    (cell,) = compose.cells("train", list(TINY))
    assert printed == cell.config_dict
    assert list(empty_directory.iterdir()) == []


@pytest.mark.parametrize("lost", ["seeds.csv", "config.yaml"])
def test_a_finished_run_that_lost_a_file_is_no_success(
    lost: str, empty_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["train", *TINY, "trainer.epochs=1", "seeds=[0]", "paths.runs=runs"]
    assert main(chosen) == 0
    (path,) = (empty_directory / "runs").glob(f"*/{lost}")
    path.unlink()
    capsys.readouterr()
    assert main(chosen) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert lost in err and err.endswith("; remove the directory and train again\n")
    assert main([*chosen, "-m", "model.latents=3x4,2x2"]) == 1
    assert capsys.readouterr().out.count("test bound") == 1


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_examples_that_name_what_exists(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    examples = [line for line in text.splitlines() if line.startswith(f"  argmax-vae {verb}")]
    assert examples
    for word in " ".join(examples).split():
        group, _, options = word.partition("=")
        if group in groups():
            for option in options.split(","):
                names = [piece.partition("=") for piece in unfolded(f"{group}={option}", groups())]
                assert all(name in groups()[each] for each, _, name in names)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"argmax-vae {__version__}\n"


def test_help_and_report_load_neither_torch_nor_hydra(empty_directory: Path) -> None:
    program = """
import sys
from argmax_vae.cli import main
for arguments in ([verb, "--help"] for verb in sys.argv[1:]):
    try:
        main(arguments)
    except SystemExit as stop:
        assert stop.code == 0
assert main(["report", "figure2", "--results", "nowhere"]) == 2
assert main(["runs"]) == 0
found = {"torch", "hydra", "pytorch_lightning", "matplotlib"} & set(sys.modules)
sys.exit(f"loaded: {found}" if found else 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, *VERBS], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("examples:") == len(VERBS)
