"""Random configurations from the schema: each is composed and checked, or refused in one line."""

import os
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from argmax_vae.config.compose import Composer, cells, register
from argmax_vae.config.options import all_keys, config_directory, groups, schedule_fields
from argmax_vae.config.stored import config_of_dict, leaves, text
from argmax_vae.errors import UsageError
from argmax_vae.runs.directory import run_name

SEED, QUICK, ALL = 20190226, 300, 2000
BASES = (
    ("data=digits",),
    ("data=digits", "estimator=gumbel_softmax"),
    ("data=digits", "model=mixture", "supervision=joint"),
    ("estimator=relax", "model=deep", "hydra/launcher=basic"),
    ("model=attributes", "data=celeba", "estimator=reinforce", "tracker=wandb"),
    ("estimator=gumbel_rao", "schedule@estimator.temperature=cosine"),
)
VALUES = (
    *(
        "0",
        "1",
        "2",
        "10",
        "-1",
        "2.5",
        "1e-3",
        "1e39",
        "1e-46",
        "nan",
        "inf",
        "-inf",
        "true",
        "false",
        "null",
        "1_000",
    ),
    *(str(10**20), str(-(10**20)), "''", "' '", "word", "4x2", "'a/b'", '"it\'s"', "'${seeds}'", "\\ ", "a:b", "é"),
    *("[]", "[0]", "[1,2]", "[0.5,0.9]", "[null]", "[true]", "[word]", "[[1]]", "{}", "{a:1}", "[{name:direct}]"),
    *("${nowhere}", "${seeds}", "${trainer.epochs}", "${oc.env:NOWHERE}", "${}", "glob(*)", "1,word", "range(3)"),
    *("interval(0,1)", "tag(x,interval(0,1))", "shuffle(1,2)", "float(1)", "str(1)", "choice(1)", "glob([z*])"),
    *("range(0)", "sort(2,1)", "0x10", "1e400", "1_000"),
)
MARKS = ("", "", "", "", "+", "++", "~")
GROUPS = groups()


@cache
def known(base: tuple[str, ...]) -> list[tuple[str, object]]:
    """The keys and values of the configuration that these choices select, names of options left out."""
    (cell,) = cells("train", list(base))
    return [(key, value) for key, value in leaves(cell.config_dict) if not key.endswith("name")]


def sensible(draw: random.Random, base: tuple[str, ...]) -> str:
    """A key that the configuration has, with a value of its kind."""
    key, value = draw.choice(known(base))
    if isinstance(value, bool):
        value = not value
    elif isinstance(value, int | float):
        value = draw.choice([value, type(value)(2 * value), type(value)(1)])
    return f"{key}={text(value)}"


def senseless(draw: random.Random, keys: list[str]) -> str:
    """A key of the schema, or one near it, with some value."""
    key = draw.choice(keys)
    if draw.random() < 0.1:
        near = [key[:-1], f"{key}.{key}", f"{key}s", f"hydra.{key}", key.replace(".", "@"), key.split(".")[0], "hydra"]
        key = draw.choice([*near, "hydra/launcher", "hydra.launcher.n_jobs", "hydra/job_logging", "hydra.searchpath"])
    mark = draw.choice(MARKS)
    return f"~{key}" if mark == "~" and draw.random() < 0.5 else f"{mark}{key}={draw.choice(VALUES)}"


def choice(draw: random.Random) -> str:
    """An option of a group, as a rule one that there is."""
    group = draw.choice([name for name in GROUPS if name != "schedule"])
    option = draw.choice(GROUPS[group]) if draw.random() < 0.8 else draw.choice(VALUES)
    if draw.random() < 0.2:
        group, option = f"schedule@estimator.{draw.choice(schedule_fields())}", draw.choice(GROUPS["schedule"])
    return f"{group}={option}"


def configurations(number: int) -> Iterator[list[str]]:
    """Override sets: values beside choices that fit, one in twelve with other choices too."""
    draw = random.Random(SEED)
    keys = all_keys()
    for _ in range(number):
        base = draw.choice(BASES)
        values = [sensible(draw, base) for _ in range(draw.choice([0, 1, 2]))]
        values += [senseless(draw, keys) for _ in range(draw.choice([0, 1, 1]))]
        more = [choice(draw)] if draw.random() < 0.08 else []
        yield [*base, *more, *values]


def refusal(overrides: list[str]) -> str:
    """Nothing for configurations that are whole, else the line that refuses them."""
    try:
        found = cells("train", overrides)
    except UsageError as refused:
        return str(refused)
    for cell in found:
        assert config_of_dict(cell.config_dict) == cell.config
        assert run_name(cell.config_dict)
    return ""


def check(chosen: list[list[str]]) -> None:
    refusals = [(overrides, refusal(overrides)) for overrides in chosen]
    assert [pair for pair in refusals if "\n" in pair[1] or "Error" in pair[1] or "Exception" in pair[1]] == []
    assert len(chosen) / 5 < sum(not line for _, line in refusals) < len(chosen) * 4 / 5


def test_a_random_configuration_is_whole_or_refused_in_one_line() -> None:
    check(list(configurations(QUICK)))


@pytest.mark.slow
def test_many_random_configurations_are_whole_or_refused_in_one_line() -> None:
    check(list(configurations(ALL))[QUICK:])


@pytest.mark.parametrize("base", BASES, ids=" ".join)
def test_what_is_composed_once_and_then_set_is_what_hydra_composes(base: tuple[str, ...]) -> None:
    draw = random.Random(SEED)
    values = [sensible(draw, base) for _ in range(12)]
    overrides = [
        *values[:6],
        *base,
        "seeds=[3,4]",
        *values[6:],
        "++trainer.batch=7",
        "+laboratory.variants=[{name: direct}]",
    ]
    register()
    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        ours, hydras = Composer("train").compose(overrides), hydra_compose("train", overrides)
    assert OmegaConf.to_container(ours, resolve=True) == OmegaConf.to_container(hydras, resolve=True)
    assert OmegaConf.get_type(ours) is OmegaConf.get_type(hydras)


def test_what_others_have_begun_is_what_hydra_composes() -> None:
    """Whatever was composed before: a composer starts from what earlier configurations have in common with the next."""
    chosen = [["estimator=relax", "experiment=written"], ["experiment=written"], ["model=deep", "experiment=released"]]
    register()
    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        composer = Composer("figure2")
        expected = [OmegaConf.to_yaml(hydra_compose("figure2", overrides)) for overrides in chosen]
        for overrides, hydras in [*zip(chosen, expected, strict=True), *zip(chosen[::-1], expected[::-1], strict=True)]:
            composer.kept.clear()
            assert OmegaConf.to_yaml(composer.compose(overrides)) == hydras


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    for epochs in (5, 10):
        (tmp_path / "own.yaml").write_text(
            f"defaults: [train, _self_]\ntrainer: {{epochs: {epochs}}}\n", encoding="utf-8"
        )
        os.utime(tmp_path / "own.yaml", ns=(epochs, epochs))
        (cell,) = cells(str(tmp_path / "own.yaml"), [])
        assert cell.config.trainer.epochs == epochs
