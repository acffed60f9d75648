"""`argmax-vae report`: tables and figures from the files of record."""

import argparse
import sys

from argmax_vae.cli.common import add_results
from argmax_vae.errors import DONE, SOME_FAILED

SUMMARY = "write or check a table from results/runs.csv"
EXAMPLES = """\
  argmax-vae report figure2
  argmax-vae report figure2 --format md
  argmax-vae report figure2 --check
"""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("table", help="such as figure2; a name that is not known is answered with those that are")
    verb.add_argument("--format", choices=["md", "tex", "csv"], help="print the table instead of writing files")
    verb.add_argument("--check", action="store_true", help="compare the written table with a regenerated one")
    add_results(verb)


def run(given: argparse.Namespace) -> int:
    from argmax_vae.report.publish import publisher

    reporter = publisher(given.table)
    if given.check:
        differences = reporter.check(given.table, given.results)
        for line in differences:
            print(line, file=sys.stderr)
        return SOME_FAILED if differences else DONE
    if given.format:
        print(reporter.rendered(given.table, given.results, given.format), end="")
        return DONE
    for path in reporter.write(given.table, given.results):
        print(path)
    return DONE
