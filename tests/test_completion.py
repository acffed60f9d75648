"""Completion: what the shell is told, by the protocol of argcomplete; the words come from the registries."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from argmax_vae.cli import VERBS, completion, parser
from argmax_vae.commands import sweep
from argmax_vae.config.options import primary_configs
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.report.publish import PUBLISHERS

NEED_OTHERS = (
    *("schedule@", "experiment=", "model=", "supervision="),
    *("objective=concrete", "objective=importance_weighted"),
)
"""Options that do not go with every choice of the others."""


def completed(line: str, cache: Path) -> list[str]:
    """The words that a new process gives for a command line with the cursor at its end."""
    if not Path("/dev/fd").is_dir():
        pytest.skip("the answer comes by a file descriptor that this system has not")
    environment = os.environ | {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
        "_ARGCOMPLETE_COMP_WORDBREAKS": " \t\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
        "XDG_CACHE_HOME": str(cache),
    }
    command = [sys.executable, "-m", "argmax_vae"]
    script = 'exec 8>&1 9>/dev/null 1>/dev/null; exec "$@"'
    done = subprocess.run(
        ["bash", "-c", script, "_", *command], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.fixture(scope="module")
def words() -> completion.Words:
    return completion.collected()


def test_the_shell_is_told_verbs_and_options_of_overrides(tmp_path: Path) -> None:
    assert completed("argmax-vae rep", tmp_path) == ["reproduce", "report"]
    assert completed("argmax-vae train estimator=dis", tmp_path) == ["estimator=disarm", "estimator=disarm_categorical"]
    assert (tmp_path / "argmax-vae" / "words.json").exists()
    assert completed("argmax-vae train --config-n", tmp_path) == ["--config-name"]


def test_words_are_what_can_be_composed(words: completion.Words) -> None:
    assert {f"estimator={name}" for name in ESTIMATORS} <= set(words["options"])
    assert set(primary_configs()) < set(words["configs"])
    assert set(PUBLISHERS) < set(words["tables"])
    for word in words["options"]:
        if not word.startswith(NEED_OTHERS):
            sweep.composed_yaml("train", [word, "model.latents=2x2"])
    for word in ("experiment=released_direct", "schedule@estimator.epsilon=linear"):
        assert word in words["options"]
        sweep.composed_yaml("train", [word])
    for key in ("trainer.epochs=", "estimator.epsilon.value=", "seeds=", "runtime.device="):
        assert key in words["keys"]


def test_keys_come_before_options(words: completion.Words) -> None:
    among = words["options"] + words["keys"]
    assert completion.matching("tracker", among)[0] == "tracker="
    assert completion.matching("tracker=", among) == [
        f"tracker={name}" for name in ("csv", "none", "tensorboard", "wandb")
    ]
    assert completion.matching("trainer.epo", among) == ["trainer.epochs="]
    assert completion.matching("schedule@estimator.temp", among) == ["schedule@estimator.temperature="]


def test_the_last_of_several_values_is_completed(words: completion.Words) -> None:
    found = completion.matching("estimator=direct,direct_r", words["options"])
    assert found == ["estimator=direct,direct_rao_blackwell"]
    assert "estimator=arm,arm" not in completion.matching("estimator=arm,", words["options"])


def test_words_are_kept_until_packages_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []
    monkeypatch.setattr(completion, "collected", lambda: calls.append(1) or {"options": ["a=b"]})
    assert completion.words() == completion.words() == {"options": ["a=b"]}
    assert len(calls) == 1
    monkeypatch.setattr(completion, "signature", lambda: "another state")
    completion.words()
    completion.cache_file().write_text("not json", encoding="utf-8")
    completion.words()
    assert len(calls) == 3


def test_a_config_that_is_added_or_changed_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    config = tmp_path / "experiment" / "mine.yaml"
    assert completion.newest([tmp_path, tmp_path / "nowhere"]) == 0
    config.write_text("a: 1", encoding="utf-8")
    os.utime(config, ns=(5, 5))
    assert completion.newest([tmp_path]) == 5
    os.utime(config, ns=(7, 7))
    assert completion.newest([tmp_path]) == 7


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(completion, "collected", lambda: {"options": ["a=b"]})
    assert completion.words() == {"options": ["a=b"]}


def test_every_verb_that_takes_overrides_completes_them() -> None:
    completing = {verb for verb, action in completion.arguments(parser()) if action.dest == "overrides"}
    assert {"train", "reproduce", "search", "gradients", "runs"} <= completing <= set(VERBS)
