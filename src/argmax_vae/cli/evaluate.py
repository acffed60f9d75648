"""`argmax-vae evaluate`: the best networks of a run, with other numbers of samples."""

import argparse
from pathlib import Path

from argmax_vae.errors import DONE

SUMMARY = "evaluate the best networks of a finished run again"
EXAMPLES = """\
  argmax-vae evaluate runs/mnist-linear-20x10-direct-kl_none-0123456789
  argmax-vae evaluate runs/mnist-linear-20x10-direct-kl_none-0123456789 trainer.importance_samples=100
"""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", type=Path, help="directory of a run")
    verb.add_argument(
        "overrides",
        nargs="*",
        help="trainer.final_samples, .importance_samples or .evaluation_batch, runtime.device, paths.data: KEY=VALUE",
    )


def run(given: argparse.Namespace) -> int:
    from argmax_vae.commands.evaluate import evaluate_run

    print(evaluate_run(given.run, given.overrides).to_string(index=False))
    return DONE
