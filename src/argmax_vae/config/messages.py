"""One line for every exception of Hydra and OmegaConf: what was given, and what is allowed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from argmax_vae.config import launchers
from argmax_vae.config.options import all_keys, nearest, owners, schedule_fields
from argmax_vae.errors import UsageError
from argmax_vae.plugins import refused


@contextmanager
def one_line_errors(overrides: Sequence[str]) -> Iterator[None]:
    """Turns what Hydra and OmegaConf raise, of whatever type, into a UsageError of one line that names the culprit."""
    try:
        yield
    except UsageError:
        raise
    except MarkedYAMLError as error:
        place = f"{error.problem_mark.name}: line {error.problem_mark.line + 1}" if error.problem_mark else "a file"
        raise UsageError(f"{place} cannot be read as YAML: {error.problem}") from None
    except Exception as error:
        raise UsageError(explain(error, overrides)) from None


def reasons(error: BaseException | None) -> Iterator[str]:
    """The lines of an exception and of its causes."""
    while error is not None:
        for line in str(error).splitlines():
            if line.strip():
                yield line.strip().rstrip(".").removeprefix("KeyError raised while resolving interpolation: ")
        error = error.__cause__


SCHEMAS = {
    "EstimatorConfig": "that of an estimator, such as schema_direct",
    "ModelConfig": "that of a model with choices of its own, such as schema_deep",
    "Schedule": "that of a schedule, such as schema_linear",
}
"""What a file of options lacks whose keys are not those of the class."""


def explain(error: Exception, overrides: Sequence[str]) -> str:
    """One line for an error of Hydra or OmegaConf: what was given, and what is allowed."""
    overrides = [override for override in overrides if not override.startswith("hydra.searchpath=")]
    lines = list(reasons(error)) or [type(error).__name__]
    first = lines[0]
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if f"'{key}'" in first and ("Could not override" in first or "Could not append" in first):
            return unknown_key(key)
        if f"'{key}/{value}'" in first and "Could not find" in first:
            options = [line for line in lines[1:] if " " not in line]
            return f"{override}: no such option{nearest(value, options)}; there are {', '.join(options)}"
        if first == f"Error merging override {override}":
            return merging(override, lines[1] if len(lines) > 1 else first)
    if found := in_a_file(first, lines[1:]):
        return found
    details = {line.split(":", 1)[0]: line.split(":", 1)[1].strip() for line in lines if ": " in line}
    key = details.get("full_key", "")
    if "Interpolation key 'chosen." in first:
        latents = first.split("'chosen.", 1)[1].split("'", 1)[0].rpartition(".")[2]
        return f"{key}: none was chosen for model.latents={latents}; give {key}=VALUE"
    named = any(override.lstrip("+~").partition("=")[0] in first for override in overrides)
    what = "" if named and not key else key or " ".join(overrides)
    return f"{what}: {first}" if what and what not in first else first


def in_a_file(first: str, further: Sequence[str]) -> str:
    """One line for a mistake in a file of options, from the lines of the exception; empty when it is another one."""
    if first.startswith("In '") and "Could not override" in first:
        return f"{first}; an experiment begins with the line '# @package _global_' and writes override /GROUP: OPTION"
    if "raised while composing config" not in first or not further:
        return ""
    name = first.partition("In '")[2].partition("'")[0]
    kind = further[0].rpartition("not in ")[2].strip("'")
    schema = f"; begin its defaults with {SCHEMAS[kind]}" if kind in SCHEMAS else ""
    return f"config {name}: {further[0]}{schema}"


def merging(override: str, reason: str) -> str:
    """One line for a value that does not fit its key."""
    if "is not a ListConfig" in reason or ("Cannot assign" in reason and "ListConfig" in reason):
        reason = "must be a list, such as [0,1]"
    if "is not a subclass of Schedule" in reason:
        reason = f"choose a schedule: schedule@{override.lstrip('+').partition('=')[0]}=NAME"
    return f"{override}: {reason}"


def refused_value(override: Override, composed: DictConfig, error: Exception) -> str:
    """One line for a `key=value` that a composed configuration does not take."""
    key, given = override.key_or_group, str(override.input_line)
    if override.is_delete():
        exists = has(composed, key)
        return f"key {key!r} cannot be removed, only set: {key}=VALUE" if exists else unknown_key(key, composed)
    first = next(reasons(error), "")
    if "Could not override" in first:
        return unknown_key(key, composed)
    if "Could not append" in first:
        return f"{given}: the key is there already, write {given.lstrip('+')}"
    return merging(given, ([*reasons(error)] or [type(error).__name__])[-1 if error.__cause__ is None else 1])


def has(composed: DictConfig, key: str) -> bool:
    """Whether a composed configuration has this dotted key; there is none below a list."""
    try:
        return OmegaConf.select(composed, key, throw_on_missing=False) is not None
    except OmegaConfBaseException:
        return False


def unknown_key(key: str, composed: DictConfig | None = None) -> str:
    """One line for a key that the configuration lacks: which option brings it, or which key is near."""
    if launchers.is_hydras(key):
        return unknown_to_hydra(key)
    known = owners()
    section, _, rest = key.partition(".")
    inner = rest.split(".")[0]
    if section == "estimator" and inner in schedule_fields() and "." in rest:
        chosen = OmegaConf.select(composed, "estimator.name", default="") if composed is not None else ""
        if f"estimator={chosen}" not in known[f"estimator.{inner}"] and f"{section}.{rest}" in known:
            return belongs(key, known[f"estimator.{inner}"])
    if key in known:
        return belongs(key, known[key])
    if "@" in key:
        places = ", ".join(f"schedule@estimator.{name}" for name in schedule_fields())
        return f"unknown key {key!r}; with @ there are {places}"
    siblings = [name for name in all_keys() if name.startswith(f"{key.rpartition('.')[0]}.")]
    close = nearest(key, siblings or all_keys())
    sections = sorted({name.split(".", 1)[0].split("@", 1)[0] for name in all_keys()} - {"schedule"})
    there = siblings if section in sections and siblings else sections
    return f"unknown key {key!r}{close}" if close else f"unknown key {key!r}; there are {', '.join(there)}"


def belongs(key: str, choices: list[str]) -> str:
    """What to say of a key that only these choices bring."""
    return f"key {key!r} belongs to another option, choose that first: {' or '.join(choices)}"


def unknown_to_hydra(key: str) -> str:
    """What to say of a key `hydra.…` or a group `hydra/…` that the chosen engine, or Hydra, lacks."""
    if key.startswith("hydra.launcher."):
        name, others = key.removeprefix("hydra.launcher."), ", ".join(launchers.EXTRAS)
        return f"the chosen engine has no {name!r}; engines with choices are {launchers.GROUP}={others}"
    return f"unknown key {key!r}; of Hydra's own, choose {launchers.GROUP}=ENGINE and hydra.launcher.KEY=VALUE"


OTHER_NAMES = {
    "estimator=vimco": "estimator=reinforce objective=importance_weighted",
    "estimator=ovis": "estimator=reinforce estimator.baseline=ovis objective=importance_weighted",
    "estimator=dreg": "estimator=gumbel_softmax estimator.doubly_reparameterized=true objective=importance_weighted",
    "estimator=rloo": "estimator=reinforce",
    "estimator=loorf": "estimator=reinforce",
    "estimator=score_function": "estimator=reinforce estimator.baseline=none",
    "estimator=aimle": "estimator=imle estimator.step=adaptive",
    "estimator=concrete": "estimator=gumbel_softmax",
    "estimator=gst": "estimator=gapped_straight_through",
    "estimator=straight_through_gumbel_softmax": "estimator=gumbel_softmax estimator.straight_through=true",
    "estimator=ars": "estimator=arsm estimator.reference=one",
    "estimator=beam_search": "estimator=unordered_set",
    "estimator=enumeration": "estimator=exact",
    "objective=iwae": "objective=importance_weighted",
    "objective=elbo": "objective=analytic",
}
"""What papers call options that are others here, or combinations."""


def check_option(override: Override, more: dict[str, list[str]]) -> None:
    """Raise UsageError when an override of a group names no option of it: a word, null for no experiment, or values."""
    group, value = override.key_or_group, override.value()
    if group == launchers.GROUP:
        if not isinstance(value, str):
            raise UsageError(f"{override.input_line}: no engine; there are basic, {', '.join(launchers.EXTRAS)}")
        launchers.require_extra(value)
    if group not in more:
        return
    if override.is_delete():
        raise UsageError(f"key {group!r} cannot be removed, only set: {group}=OPTION")
    if isinstance(value, dict) and override.package is None:
        return
    if group == "experiment" and value is None:
        return
    if not isinstance(value, str) or value not in more[group]:
        option = f"{group}={value}"
        known = f"; that is {OTHER_NAMES[option]} here" if option in OTHER_NAMES else ""
        close = refused(option) or known or nearest(str(value), more[group])
        raise UsageError(f"{override.input_line}: no such option{close}; there are {', '.join(more[group])}")
