"""`argmax-vae reproduce`: the cells of a table, and the table."""

import argparse

from argmax_vae.cli.common import add_config_directory

SUMMARY = "train all cells of a table, then write it"
EXAMPLES = """\
  argmax-vae reproduce figure2 --dry-run
  argmax-vae reproduce figure2 paths.data=/data/torchvision
  argmax-vae reproduce figure2 trainer.epochs=10 model.latents=20x2
  argmax-vae reproduce scripts/gpu/figure2.txt --unrecorded
  argmax-vae reproduce demo
  argmax-vae reproduce all paths.data=/data/torchvision
"""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("table", help="config of the table, such as figure2; demo; all; or a list of cells, NAME.txt")
    verb.add_argument("overrides", nargs="*", help="overrides for every cell, such as trainer.epochs=10")
    verb.add_argument("--dry-run", action="store_true", help="list the cells and their state, train nothing")
    verb.add_argument(
        "--train-only",
        action="store_true",
        help="write no rows and tables; `runs --collect` does that later, elsewhere",
    )
    verb.add_argument(
        "--unrecorded", action="store_true", help="leave out cells whose rows are in runs.csv of the results already"
    )
    add_config_directory(verb)


def run(given: argparse.Namespace) -> int:
    from argmax_vae.commands import sweep
    from argmax_vae.report.gradients import FIGURES

    if given.table == "demo":
        from argmax_vae.commands.demo import run_demo

        return run_demo(given.overrides, given.dry_run, given.train_only)
    if given.table == sweep.ALL and not given.dry_run:
        from argmax_vae.commands.all_tables import reproduce_all

        return reproduce_all(given.overrides, given.train_only)
    if given.table in FIGURES and not (given.dry_run or given.train_only):
        from argmax_vae.commands.gradients import measure_gradients

        return measure_gradients(given.table, given.overrides)
    return sweep.reproduce(given.table, given.overrides, given.dry_run, given.train_only, given.unrecorded)
