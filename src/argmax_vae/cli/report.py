"""`argmax-vae report`: tables and figures from the files of record."""

import argparse
import sys
from pathlib import Path

from argmax_vae.cli.common import add_results
from argmax_vae.errors import DONE, SOME_FAILED, UsageError

SUMMARY = "write or check a table from results/runs.csv"
EXAMPLES = """\
  argmax-vae report figure2
  argmax-vae report figure2 --format md
  argmax-vae report figure2 --check
  argmax-vae report all
  argmax-vae report readme --check
  argmax-vae report figure4 --from runs/A runs/B
  argmax-vae report figure7 --from runs/UNSUPERVISED runs/SEMI_SUPERVISED
"""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "table", help="such as figure2; readme, the pages; or all; an unknown name is answered with those that are"
    )
    verb.add_argument("--format", choices=["md", "tex", "csv"], help="print the table instead of writing files")
    verb.add_argument("--check", action="store_true", help="compare the written table with a regenerated one")
    add_results(verb)
    drawn = verb.add_argument_group("figure4, generated faces, and figure7, classes of two mixtures")
    drawn.add_argument("--from", nargs="+", type=Path, metavar="RUN", help="finished runs that draw them")
    drawn.add_argument("--codes", type=int, metavar="N", help="figure4: codes for each combination (default: 256)")
    drawn.add_argument("--classifier-epochs", type=int, metavar="N", help="figure4: of its classifier (default: 5)")


def run(given: argparse.Namespace) -> int:
    from argmax_vae.report import publish

    options, runs = choices(given), vars(given)["from"]
    if options and not (runs and given.table == "figure4"):
        raise UsageError(f"report {given.table}: --{next(iter(options)).replace('_', '-')} is for figure4 --from RUN")
    if runs or given.table == "figure7":
        return draw_from_runs(given, runs)
    if given.format and given.table == publish.ALL:
        raise UsageError("report all: --format prints one table; name it")
    code = DONE
    for name in publish.names(given.table, given.results):
        reporter = publish.publisher(name, given.results)
        if given.check:
            for line in reporter.check(name, given.results):
                print(line, file=sys.stderr)
                code = SOME_FAILED
        elif given.format:
            print(reporter.rendered(name, given.results, given.format), end="")
        else:
            for path in reporter.write(name, given.results):
                print(path)
    return code


def draw_from_runs(given: argparse.Namespace, runs: list[Path] | None) -> int:
    """Draw a figure by the networks of the runs that are named. Raises UsageError."""
    from argmax_vae.report.publish import FROM_RUNS

    if given.table not in FROM_RUNS:
        raise UsageError(f"report {given.table}: --from is for {' and '.join(FROM_RUNS)}")
    if not runs:
        raise UsageError(f"report {given.table}: name the runs that draw it: --from RUN RUN")
    if given.check or given.format:
        raise UsageError(f"report {given.table}: --from writes files, without --check and --format")
    if given.table == "figure4":
        from argmax_vae.commands.faces import write_faces

        written = write_faces(runs, given.results, **choices(given))
    else:
        from argmax_vae.commands.classes import write_classes

        written = write_classes(runs, given.results)
    for path in written:
        print(path)
    return DONE


def choices(given: argparse.Namespace) -> dict[str, int]:
    """The choices of Figure 4 that were given."""
    found = {"codes": given.codes, "classifier_epochs": given.classifier_epochs}
    return {name: value for name, value in found.items() if value is not None}
