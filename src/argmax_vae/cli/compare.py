"""`argmax-vae compare`: finished runs on paired seeds."""

import argparse
from pathlib import Path

from argmax_vae.errors import DONE, UsageError
from argmax_vae.files import require_file_name

SUMMARY = "compare two or more finished runs on paired seeds"
EXAMPLES = """\
  argmax-vae compare runs/mnist-linear-20x2-direct-kl_none-0123456789 runs/mnist-linear-20x2-arm-kl_none-0123456789
  argmax-vae compare runs/A runs/B --metric test_kl --output difference.svg
  argmax-vae compare runs/*20x2*
"""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("a", type=Path, metavar="RUN_A", help="directory of a run")
    verb.add_argument("b", type=Path, metavar="RUN_B", help="directory of another")
    verb.add_argument("more", type=Path, nargs="*", metavar="RUN", help="of more: a table, the best first")
    verb.add_argument("--metric", default="test_bound", help="a column of seeds.csv (default: test_bound)")
    verb.add_argument("--output", type=Path, metavar="FILE.svg", help="also draw two runs")


def run(given: argparse.Namespace) -> int:
    from argmax_vae.report import comparison

    if given.output:
        require_file_name(given.output, "--output")
    if given.more:
        if given.output:
            raise UsageError(f"--output {given.output}: two runs are drawn, not {2 + len(given.more)}")
        print(comparison.compare_all([given.a, given.b, *given.more], given.metric))
        return DONE
    found = comparison.compare(given.a, given.b, given.metric)
    if given.output:
        comparison.write(found, given.output)
    print(comparison.text(found))
    return DONE
