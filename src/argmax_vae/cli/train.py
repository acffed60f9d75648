"""`argmax-vae train`: one run, or a sweep."""

import argparse

from argmax_vae.cli.common import add_config_directory
from argmax_vae.errors import DONE

SUMMARY = "train one run, or a sweep of runs with -m"
EXAMPLES = """\
  argmax-vae train data=digits trainer.epochs=50 seeds=[0,1,2]
  argmax-vae train estimator=gumbel_softmax schedule@estimator.temperature=constant model.latents=20x2
  argmax-vae train -m estimator=direct,gumbel_softmax model.latents=20x10,20x2
  argmax-vae train estimator=exact model.latents=1x40 tracker=wandb
  argmax-vae train --cfg job experiment=released_direct
"""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("overrides", nargs="*", help="group=option or key=value; with -m values may be comma-separated")
    verb.add_argument("-m", "--multirun", action="store_true", help="train every combination of comma-separated values")
    verb.add_argument(
        "--config-name",
        "-cn",
        default="train",
        metavar="NAME",
        help="primary config (default: train), or a run",
    )
    verb.add_argument("--cfg", choices=["job"], help="print the composed configuration and stop")
    verb.add_argument("--dry-run", action="store_true", help="list the runs and their state, train nothing")
    add_config_directory(verb)


def run(given: argparse.Namespace) -> int:
    from argmax_vae.commands import sweep

    if given.cfg:
        print(sweep.composed_yaml(given.config_name, given.overrides), end="")
        return DONE
    return sweep.launch(given.config_name, given.overrides, given.multirun, given.dry_run)
