"""`argmax-vae sync`: what wandb recorded offline, and finished runs that it did not record."""

import argparse
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from argmax_vae.cli.common import DEFAULT_RUNS, add_runs
from argmax_vae.errors import DONE, SOME_FAILED, UsageError

SUMMARY = "upload what wandb recorded offline, and runs that it did not record"
EXAMPLES = """\
  argmax-vae train data=digits tracker=wandb
  argmax-vae sync --dry-run
  argmax-vae sync --runs /scratch/runs
  argmax-vae sync runs/digits-*
  argmax-vae sync --dashboard --dry-run
  argmax-vae sync --dashboard ENTITY/PROJECT
"""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "finished",
        nargs="*",
        type=Path,
        metavar="run",
        help="finished runs to record for wandb first, from their files",
    )
    add_runs(verb)
    verb.add_argument("--dry-run", action="store_true", help="list what would be uploaded, upload nothing")
    verb.add_argument(
        "--dashboard",
        nargs="?",
        const="",
        metavar="ENTITY/PROJECT",
        help="instead save a dashboard in a project (default: WANDB_ENTITY/WANDB_PROJECT); with the extra dashboard",
    )


def run(given: argparse.Namespace) -> int:
    if given.dashboard is not None:
        if given.finished:
            raise UsageError("sync --dashboard records and uploads no runs; name them in a command of their own")
        if find_spec("wandb_workspaces") is None:
            raise UsageError("sync --dashboard needs the extra: pip install 'argmax-vae[dashboard]'")
        from argmax_vae.commands.dashboard import save_dashboard

        return save_dashboard(given.dashboard, given.dry_run)
    from argmax_vae.runs.wandb_access import offline_runs, online_problem

    if given.finished:
        from argmax_vae.commands.sync import record_runs

        record_runs(given.finished, given.dry_run)
        found = [path for run in given.finished for path in offline_runs(run.parent) if run in path.parents]
    elif given.runs == DEFAULT_RUNS or given.runs.is_dir():
        found = offline_runs(given.runs)
    else:
        raise UsageError(f"--runs {given.runs}: no such directory")
    for path in found:
        print(path)
    where = ", ".join(map(str, given.finished)) or given.runs
    if not found and not (given.finished and given.dry_run):
        print(f"argmax-vae: nothing of wandb's to upload in {where}", file=sys.stderr)
    if given.dry_run or not found:
        return DONE
    if problem := online_problem():
        print(f"argmax-vae: nothing is uploaded: {problem}", file=sys.stderr)
        return SOME_FAILED
    done = subprocess.run([sys.executable, "-m", "wandb", "sync", *map(str, found)], check=False)
    return DONE if done.returncode == 0 else SOME_FAILED
