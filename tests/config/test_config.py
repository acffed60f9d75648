"""Configurations: every option composes, registries and files agree, identity is what decides the numbers."""

import copy
import math
from pathlib import Path

import pytest
import yaml
from hydra.core.config_store import ConfigStore

from argmax_vae.commands.sweep import require_one_run
from argmax_vae.config import compose, messages
from argmax_vae.config.compose import cells, leaves
from argmax_vae.config.options import groups, primary_configs, split_rows
from argmax_vae.config.stored import config_of_dict
from argmax_vae.data.binarization import BINARIZATIONS
from argmax_vae.data.datasets import DATASETS
from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.estimators.base import schedule_names
from argmax_vae.estimators.schedules import SCHEDULES
from argmax_vae.objective.terms import KL_CHOICES
from argmax_vae.runs.directory import NOT_IDENTITY, identity, run_name
from argmax_vae.runs.trackers import TRACKERS

RUN_NAMES = (Path(__file__).parents[1] / "run_names.txt").read_text(encoding="utf-8").splitlines()
"""Primary configuration and run of every cell. A run whose name changes is trained again, though it may be finished."""
OPTIONS = [(group, option) for group, options in groups().items() for option in options]
VARIANTS = {"constant_one": "constant"}
COMPANIONS = {
    ("estimator", "exact"): ["model.latents=1x40"],
    ("estimator", "arm"): ["model.latents=20x2"],
    ("estimator", "disarm"): ["model.latents=20x2"],
    ("objective", "concrete"): ["estimator=gumbel_softmax"],
    ("objective", "importance_weighted"): ["estimator=reinforce"],
    ("model", "layered"): ["estimator=reinforce"],
    ("experiment", "two_layers"): ["estimator=reinforce"],
    ("supervision", "joint"): ["model=mixture"],
    ("supervision", "sequential"): ["model=mixture"],
    ("supervision", "sequential_joint"): ["model=mixture"],
}
REGISTRIES = {
    "data": DATASETS,
    "estimator": ESTIMATORS,
    "schedule": SCHEDULES,
    "objective": KL_CHOICES,
    "tracker": TRACKERS,
}


def one(*overrides: str) -> compose.Cell:
    (found,) = cells("train", list(overrides))
    return found


@pytest.mark.parametrize("group", REGISTRIES)
def test_what_is_registered_is_an_option_and_the_other_way_round(group: str) -> None:
    assert [option for option in groups()[group] if option not in VARIANTS] == sorted(REGISTRIES[group])


@pytest.mark.parametrize("group", ["data", "model", "estimator", "schedule", "optim", "tracker"])
def test_an_option_carries_the_name_of_its_file(group: str) -> None:
    for option in groups()[group]:
        key = "estimator.epsilon" if group == "schedule" else group
        choice = f"schedule@{key}={option}" if group == "schedule" else f"{group}={option}"
        config_dict = one(choice, *COMPANIONS.get((group, option), [])).config_dict
        section = config_dict["estimator"]["epsilon"] if group == "schedule" else config_dict[group]
        assert section["name"] == VARIANTS.get(option, option)


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=str)
def test_every_option_composes_and_survives_storage(group: str, option: str) -> None:
    choice = "schedule@estimator.epsilon" if group == "schedule" else group
    cell = one(f"{choice}={option}", *COMPANIONS.get((group, option), []))
    stored = yaml.safe_load(yaml.safe_dump(cell.config_dict, allow_unicode=True))
    assert stored == cell.config_dict
    assert config_of_dict(stored) == cell.config


@pytest.mark.parametrize("binarization", BINARIZATIONS)
def test_every_binarization_composes(binarization: str) -> None:
    assert one(f"data.binarization={binarization}").config.data.binarization == binarization


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_fits_the_temperature_too(schedule: str) -> None:
    cell = one("estimator=gumbel_softmax", f"schedule@estimator.temperature={schedule}")
    assert type(cell.config.estimator.temperature) is SCHEDULES[schedule]  # type: ignore[attr-defined]


def test_the_schema_of_every_estimator_and_schedule_is_in_the_store() -> None:
    compose.register()
    repository = ConfigStore.instance().repo
    assert {f"schema_{name}.yaml" for name in ESTIMATORS} <= set(repository["estimator"])
    assert {f"schema_{name}.yaml" for name in SCHEDULES} <= set(repository["schedule"])


@pytest.mark.parametrize("name", primary_configs())
def test_every_primary_config_expands_to_distinct_runs_whose_names_stay(name: str) -> None:
    _, rows = split_rows(name)
    expected = math.prod(len(row.partition("=")[2].split(",")) for row in rows if "[" not in row)
    found = cells(name, [])
    assert len(found) == expected
    names = [run_name(cell.config_dict) for cell in found]
    assert len(set(names)) == expected
    assert [f"{name} {run}" for run in names] == [line for line in RUN_NAMES if line.split()[0] == name]
    assert name == "train" or all(cell.config.table for cell in found)
    require_one_run(found)


FITTING = {"released": ("direct", "gumbel_softmax", "rebar", "relax"), "released_mixture": ("direct", "gumbel_softmax")}
"""Experiments that are for some estimators alone."""
LIMITED = {"arm": "k = 2", "disarm": "k = 2", "exact": "codes", "rebar": "k = 2", "relax": "k = 2"}
LIMITED |= dict.fromkeys(("direct", "direct_rao_blackwell", "direct_control_variate"), "model=layered")
LIMITED |= dict.fromkeys(("nvil", "local_expectation"), "model=layered")
"""Estimators that latents or layers may be too many for, and what is said then."""


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("experiment", groups()["experiment"])
def test_an_experiment_composes_with_every_estimator_and_schedule_that_fit(experiment: str, estimator: str) -> None:
    """Also by one name for both; what does not fit is refused in one line that says why."""
    latents = [] if "mixture" in experiment or experiment == "attributes" else ["model.latents=20x2"]
    words = [f"experiment={experiment}", f"estimator={estimator}", *latents]
    if estimator not in FITTING.get(experiment, ESTIMATORS):
        with pytest.raises(UsageError, match=f"^experiment={experiment} is not for estimator={estimator}, but for "):
            one(*words)
        return
    schedules = schedule_names(ESTIMATORS[estimator].config_class)
    if schedules and experiment == "written":
        words.append(f"estimator.{schedules[0]}.value=0.2")
    try:
        cell = one(*words)
    except UsageError as error:
        assert LIMITED[estimator] in str(error)
        return
    assert (cell.config.estimator.name, cell.config.protocol != "") == (estimator, True)
    assert one(f"experiment={experiment}_{estimator}", *words[2:]).config_dict == cell.config_dict
    for name in schedules:
        words = [word for word in words if not word.startswith(f"estimator.{name}.")]
        other = one(*words, f"schedule@estimator.{name}=linear")
        assert getattr(other.config.estimator, name).name == "linear"
        assert other.config.supervision == cell.config.supervision


def test_what_is_given_comes_before_what_was_tuned() -> None:
    """On the command line, in a primary config, and as another option of a group."""
    assert one("experiment=released", "objective=folded").config.objective.kl == "folded"
    assert one("experiment=released_rebar", "model.latents=20x2").config.trainer.epochs == 600
    assert one("experiment=released_rebar", "model.latents=20x2", "trainer.epochs=5").config.trainer.epochs == 5
    (cell,) = cells("estimators", ["estimator=rebar"])
    assert cell.config.trainer.epochs == 105


def test_a_sweep_is_the_product_of_its_values() -> None:
    found = cells("train", ["data=digits", "model.latents=2x2,3x3", "estimator=direct,exact", "seeds=[0],[1,2]"])
    seen = {(cell.config.model.latents, cell.config.estimator.name, tuple(cell.config.seeds)) for cell in found}
    assert seen == {
        (latents, estimator, seeds)
        for latents in ("2x2", "3x3")
        for estimator in ("direct", "exact")
        for seeds in ((0,), (1, 2))
    }


def test_an_override_replaces_a_swept_value() -> None:
    found = cells("section61", ["model.latents=3x2", "trainer.epochs=10"])
    assert {cell.config.model.latents for cell in found} == {"3x2"}
    assert {cell.config.protocol for cell in found} == {"as released", "as written"}
    assert {cell.config.trainer.epochs for cell in found} == {10}


def changed(config_dict: dict, key: str) -> dict:
    """A copy with another value at a dotted key."""
    other = copy.deepcopy(config_dict)
    *path, last = key.split(".")
    section = other
    for part in path:
        section = section[part]
    section[last] = f"{section[last]} changed"
    return other


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_identity_changes_with_every_key_but_labels_places_and_machine(estimator: str) -> None:
    config_dict = one(f"estimator={estimator}", *COMPANIONS.get(("estimator", estimator), [])).config_dict
    for key in sorted(leaves(config_dict)):
        section = key.split(".", 1)[0]
        differs = identity(changed(config_dict, key)) != identity(config_dict)
        decides = key in ("supervision.training", "runtime.precision")
        assert differs == (section not in (*NOT_IDENTITY, "supervision") or decides), key


def test_supervision_is_a_part_of_identity_where_there_is_some() -> None:
    config_dict = one("model=mixture", "supervision=joint").config_dict
    for key in config_dict["supervision"]:
        assert identity(changed(config_dict, f"supervision.{key}")) != identity(config_dict), key


def test_labels_places_and_machine_are_no_part_of_identity() -> None:
    overrides = ["table=x", "protocol=y", "paths.runs=z", "runtime.chunk=7", "tracker=none"]
    assert identity(one(*overrides).config_dict) == identity(one().config_dict)


def test_identity_does_not_depend_on_the_spelling_of_a_number() -> None:
    assert identity(one("optim.learning_rate=0.0010").config_dict) == identity(
        one("optim.learning_rate=1e-3").config_dict
    )


def test_a_stored_configuration_of_another_version_is_refused() -> None:
    config_dict = one("data=digits").config_dict
    for section, key in (("trainer", "epochs"), ("estimator", "epsilon")):
        without = copy.deepcopy(config_dict)
        del without[section][key]
        extra = copy.deepcopy(config_dict)
        extra[section]["novelty"] = 1
        with pytest.raises(UsageError, match="novelty"):
            config_of_dict(extra)
        assert set(without[section]) < set(config_dict[section])
    with pytest.raises(UsageError, match="does not fit this version"):
        config_of_dict({key: value for key, value in config_dict.items() if key != "data"})
    with pytest.raises(UsageError, match=r"trainer\.epochs=0 must be at least 1"):
        config_of_dict({**config_dict, "trainer": {**config_dict["trainer"], "epochs": 0}})


def test_the_data_directory_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ARGMAX_VAE_DATA", str(tmp_path))
    assert one().config.paths.data == str(tmp_path)
    monkeypatch.delenv("ARGMAX_VAE_DATA")
    assert one().config.paths.data == "data"


@pytest.mark.parametrize("option", messages.OTHER_NAMES)
def test_what_papers_call_otherwise_is_named_as_it_is_here(option: str) -> None:
    group, _, name = option.partition("=")
    assert name not in groups()[group]
    with pytest.raises(UsageError, match=r"that is .* here"):
        one(option)
    here = messages.OTHER_NAMES[option].split()
    one("model.latents=1x2", *(["estimator=reinforce"] if group == "objective" else []), *here)
