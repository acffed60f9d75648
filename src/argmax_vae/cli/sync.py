"""`argmax-vae sync`: what wandb recorded offline."""

import argparse
import subprocess
import sys

from argmax_vae.cli.common import add_runs
from argmax_vae.errors import DONE, SOME_FAILED

SUMMARY = "upload what wandb recorded offline"
EXAMPLES = """\
  argmax-vae train data=digits tracker=wandb
  argmax-vae sync --dry-run
  argmax-vae sync --runs /scratch/runs
"""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    add_runs(verb)
    verb.add_argument("--dry-run", action="store_true", help="list what would be uploaded, upload nothing")


def run(given: argparse.Namespace) -> int:
    from argmax_vae.runs.wandb_access import offline_runs, online_problem

    found = offline_runs(given.runs)
    for path in found:
        print(path)
    if not found:
        print(f"argmax-vae: nothing of wandb's to upload in {given.runs}", file=sys.stderr)
    if given.dry_run or not found:
        return DONE
    if problem := online_problem():
        print(f"argmax-vae: nothing is uploaded: {problem}", file=sys.stderr)
        return SOME_FAILED
    done = subprocess.run([sys.executable, "-m", "wandb", "sync", *map(str, found)], check=False)
    return DONE if done.returncode == 0 else SOME_FAILED
