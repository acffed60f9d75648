"""`argmax-vae gradients`: bias, spread and cost at fixed parameters."""

import argparse

from argmax_vae.cli.common import add_config_directory
from argmax_vae.files import usable_path

SUMMARY = "measure every estimator's gradient on a trained model"
EXAMPLES = """\
  argmax-vae gradients figure1
  argmax-vae gradients runs/mnist-linear-20x10-direct-kl_none-0123456789 laboratory.images=20
  argmax-vae gradients train data=digits model.latents=2x4 trainer.epochs=20 laboratory.repeats=100
"""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("target", metavar="RUN_OR_CONFIG", help="directory of a run, or primary config to train")
    verb.add_argument("overrides", nargs="*", help="such as laboratory.repeats=100; any key for a config")
    add_config_directory(verb)


def run(given: argparse.Namespace) -> int:
    from argmax_vae.commands.gradients import measure_gradients

    return measure_gradients(str(usable_path(given.target, "RUN_OR_CONFIG")), given.overrides)
