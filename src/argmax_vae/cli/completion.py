"""Completion of the shell's words by argcomplete: verbs and options of argparse, and what overrides can say.

`eval "$(register-python-argcomplete argmax-vae)"` switches it on. What there is to choose costs an import of torch; it
is kept as a file in the user's cache until this package, or an installed package with options for it, changes.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterable
from importlib.metadata import Distribution
from pathlib import Path

from argmax_vae import __version__, plugins
from argmax_vae.files import write_atomic

Words = dict[str, list[str]]
"""`options` such as `estimator=direct`, `keys` such as `trainer.epochs=`, `configs`, and the `tables` of `report`."""


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell with the words that can stand where the cursor is, and leave the process."""
    import argcomplete

    for verb, action in arguments(parser):
        if kinds := COMPLETED.get(f"{verb} {action.dest}") or COMPLETED.get(action.dest):
            action.completer = completer(kinds)  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def arguments(parser: argparse.ArgumentParser) -> Iterable[tuple[str, argparse.Action]]:
    """The arguments of all verbs, with the verb."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, verb in action.choices.items():
                yield from ((name, argument) for argument in verb._actions)


COMPLETED = {
    "overrides": ("options", "keys"),
    "config_name": ("configs",),
    "config": ("configs",),
    "target": ("configs",),
    "missing": ("configs",),
    "collect": ("configs",),
    "reproduce table": ("configs",),
    "report table": ("tables",),
}
"""The words that each argument can be, by its name, or by verb and name."""


def completer(kinds: tuple[str, ...]) -> Callable[..., list[str]]:
    """A completer of argcomplete's."""

    def found(prefix: str, **_: object) -> list[str]:
        known = words()
        return matching(prefix, [word for kind in kinds for word in known[kind]])

    return found


def matching(prefix: str, among: list[str]) -> list[str]:
    """The words that begin so; of several values with commas, as a sweep has them, the last is completed.

    While the group or key is not complete its options are left out, so that the first TAB shows what there is to set.
    """
    before, comma, last = prefix.rpartition(",")
    if comma and "=" in before:
        key = before.partition("=")[0]
        taken = before.partition("=")[2].split(",")
        values = [word.removeprefix(f"{key}=") for word in among if word.startswith(f"{key}=") and word != f"{key}="]
        return [f"{before},{value}" for value in values if value.startswith(last) and value not in taken]
    found = [word for word in among if word.startswith(prefix)]
    if "=" in prefix:
        return [word for word in found if not word.endswith("=")]
    return list(dict.fromkeys(word.partition("=")[0] + "=" if "=" in word else word for word in found))


def words() -> Words:
    """All words, from the cache where it is of this state of the packages."""
    state, path = signature(), cache_file()
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["state"] == state:
            return kept["words"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found = collected()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"state": state, "words": found})
        write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    except OSError:
        pass
    return found


def collected() -> Words:
    """All words, from the registries."""
    from argmax_vae.config.options import all_keys, groups, primary_configs, schedule_fields
    from argmax_vae.report import publish

    found = groups()
    experiments = [f"{name}_{row}" for name in found["experiment"] for row in tuned(name)]
    found["experiment"] += experiments
    schedules = {f"schedule@estimator.{name}": found["schedule"] for name in schedule_fields()}
    chosen = {group: options for group, options in found.items() if group not in ("schedule", "hydra")} | schedules
    return {
        "options": [f"{group}={option}" for group, options in chosen.items() for option in options],
        "keys": [f"{key}=" for key in all_keys() if key not in chosen],
        "configs": [*primary_configs(), "demo", "all"],
        "tables": ["all", *publish.PUBLISHERS, *publish.FROM_RUNS[1:]],
    }


def tuned(experiment: str) -> list[str]:
    """The estimators that an experiment has settings for."""
    from argmax_vae.config.options import config_directory, read

    return list(read(config_directory() / "experiment" / f"{experiment}.yaml").get("tuned", {}))


def cache_file() -> Path:
    """Where the words are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "argmax-vae" / "words.json"


def signature() -> str:
    """What changes when the words do: the version, files of this package, and the packages that bring options."""
    package = Path(__file__).parents[1]
    changed = newest([package, package.parents[1] / "conf"])
    outside = [f"{name(point.dist)}:{point.name}" for points in plugins.installed().values() for point in points]
    return " ".join([__version__, str(package), str(changed), *sorted(outside)])


def newest(directories: Iterable[Path]) -> int:
    """When a source file or config below these directories was last changed, in nanoseconds."""
    files = (path for directory in directories for kind in ("*.py", "*.yaml") for path in directory.rglob(kind))
    return max((path.stat().st_mtime_ns for path in files), default=0)


def name(package: Distribution | None) -> str:
    """Name and version of an installed package."""
    return f"{package.name}-{package.version}" if package else "unknown"
