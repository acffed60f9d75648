"""Arguments that several verbs have."""

import argparse
from pathlib import Path

DEFAULT_RUNS = Path("runs")


def add_config_directory(verb: argparse.ArgumentParser) -> None:
    """Let a verb take configs and options of the user's own."""
    verb.add_argument("--config-dir", "-cd", metavar="DIR", help="directory with further configs and options of groups")


def add_results(verb: argparse.ArgumentParser) -> None:
    """Let a verb read and write files of record elsewhere."""
    verb.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="files of record")


def add_runs(verb: argparse.ArgumentParser) -> None:
    """Let a verb look for runs elsewhere."""
    verb.add_argument("--runs", type=Path, default=DEFAULT_RUNS, metavar="DIR", help="directory of the runs")
