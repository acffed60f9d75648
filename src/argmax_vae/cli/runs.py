"""`argmax-vae runs`: what there is, what is missing, and what comes home."""

import argparse
import sys

from argmax_vae.cli.common import add_results, add_runs
from argmax_vae.errors import DONE, UsageError

SUMMARY = "list runs: their state, what they differ in, and their results"
EXAMPLES = """\
  argmax-vae runs
  argmax-vae runs --sort bound
  argmax-vae runs --runs /scratch/runs --format tex
  argmax-vae runs --failed
  argmax-vae runs --missing figure2
  argmax-vae runs --collect figure2 --runs /scratch/runs
  argmax-vae runs --collect figure2 --runs /scratch/runs trainer.epochs=400 seeds=[0,1,2,3,4,5,6,7,8,9]
"""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    add_runs(verb)
    only = verb.add_mutually_exclusive_group()
    only.add_argument("--failed", action="store_true", help="only failed runs, with the last line of their traceback")
    only.add_argument(
        "--missing", metavar="TABLE", help="only cells of this table, or list of cells, that are not done"
    )
    only.add_argument(
        "--collect", metavar="TABLE", help="put the finished cells of this table, or list, into the files of record"
    )
    verb.add_argument(
        "--sort",
        default="name",
        metavar="BY",
        help="name (default), bound, weighted, accuracy, epochs or time",
    )
    verb.add_argument("--format", default="text", help="text (default), csv, md or tex")
    verb.add_argument("overrides", nargs="*", help="those that the cells were trained with, such as trainer.epochs=10")
    add_results(verb)


def run(given: argparse.Namespace) -> int:
    if given.overrides and not (given.missing or given.collect):
        raise UsageError(f"runs: {given.overrides[0]} needs --missing TABLE or --collect TABLE")
    if given.missing or given.collect:
        from argmax_vae.commands import sweep

        if given.missing:
            lines = sweep.missing(given.missing, given.overrides, given.runs)
        else:
            lines = sweep.collect_finished(given.collect, given.overrides, given.runs, given.results)
        for line in lines:
            print(line)
        return DONE
    from argmax_vae.runs.directory import scan

    found = scan(given.runs)
    if not found:
        print(f"argmax-vae: no runs in {given.runs}", file=sys.stderr)
    from argmax_vae.report import sweeps

    shown = [run for run in found if not given.failed or run.status == "failed"]
    if shown:
        print(sweeps.table(sweeps.sorted_rows(sweeps.rows_of_runs(shown), given.sort), given.format), end="")
    return DONE
