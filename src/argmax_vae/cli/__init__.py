"""The command line: a module for each verb, with its arguments and what it calls; errors become one line.

Nothing heavy is imported before a verb runs, so --help and report answer at once.
Exit codes: 0 done, 1 some cells failed, 2 bad usage or configuration, 130 interrupted (the same command goes on), 141
nobody read what the command is there to print.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Protocol

from argmax_vae import __version__, interruption, streams
from argmax_vae.cli import (
    bench,
    compare,
    evaluate,
    gradients,
    page,
    report,
    reproduce,
    runs,
    search,
    sync,
    train,
)
from argmax_vae.errors import BAD_USAGE, INTERRUPTED, UsageError
from argmax_vae.files import require_working_directory, usable_path


class Verb(Protocol):
    """What the module of a verb has."""

    SUMMARY: str
    EXAMPLES: str

    def add_arguments(self, verb: argparse.ArgumentParser) -> None:
        """Give the parser of the verb its arguments; imports nothing heavy."""

    def run(self, given: argparse.Namespace) -> int:
        """Do what the arguments ask for; returns the exit code. Raises UsageError."""


VERBS: dict[str, Verb] = {
    "train": train,
    "reproduce": reproduce,
    "search": search,
    "evaluate": evaluate,
    "gradients": gradients,
    "bench": bench,
    "runs": runs,
    "sync": sync,
    "report": report,
    "page": page,
    "compare": compare,
}
"""All verbs, in the order of --help."""
WRITE_FILES = ("train", "reproduce", "search", "gradients")
"""The verbs that are there for the files that they write; what others print is their answer."""


def parser() -> argparse.ArgumentParser:
    """All verbs with their arguments and examples."""
    top = argparse.ArgumentParser(
        prog="argmax-vae",
        description="Train and compare gradient estimators for discrete variational auto-encoders.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Each verb has its own --help with examples.",
    )
    top.add_argument("--version", action="version", version=f"argmax-vae {__version__}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in VERBS.items():
        added = verbs.add_parser(
            name,
            help=verb.SUMMARY,
            description=verb.SUMMARY[0].upper() + verb.SUMMARY[1:] + ".",
            epilog="examples:\n" + verb.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.add_arguments(added)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run a verb and return its exit code. Without arguments this is the command line of the process."""
    if arguments is None and "_ARGCOMPLETE" in os.environ:
        from argmax_vae.cli.completion import complete

        complete(parser())
    if arguments is None:
        streams.protect()
        interruption.listen()
    try:
        given = parsed(arguments)
        code = VERBS[given.verb].run(given)
        return code if given.verb in WRITE_FILES else streams.exit_code(code)
    except UsageError as error:
        print(f"argmax-vae: {error}", file=sys.stderr)
        return BAD_USAGE
    except KeyboardInterrupt as interrupted:
        kept = str(interrupted) or "the same command goes on from what the runs keep"
        print(f"argmax-vae: interrupted; {kept}", file=sys.stderr)
        return INTERRUPTED


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The arguments, overrides allowed behind options too, which argparse alone does not take."""
    top = parser()
    given, rest = top.parse_known_args(arguments)
    if rest and ("overrides" not in given or any(argument.startswith("-") for argument in rest)):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        given.overrides += rest
    require_working_directory()
    for name, value in list(vars(given).items()):
        if isinstance(value, Path):
            setattr(given, name, usable_path(value, f"--{name}"))
        elif isinstance(value, list):
            paths = [usable_path(each, f"--{name}") if isinstance(each, Path) else each for each in value]
            setattr(given, name, paths)
    if getattr(given, "config_dir", None):
        from argmax_vae.config.stored import text

        given.overrides.insert(0, f"hydra.searchpath=[{text(str(Path(given.config_dir).absolute()))}]")
    return given
