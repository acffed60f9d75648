"""Whether wandb records online, offline or not at all, and what it is told beside runs: tables, and uploads later on.

wandb's own variables come first: WANDB_MODE before `tracker.mode`, WANDB_DISABLED before both.
"""

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from argmax_vae.errors import UsageError

if TYPE_CHECKING:
    from argmax_vae.runs.trackers import TrackerConfig


MODES = {"online": "online", "run": "online", "offline": "offline", "dryrun": "offline", "disabled": "disabled"}
SECONDS_TO_ANSWER = 5.0
"""How long a server may take to answer at all."""
SECONDS_TO_START = 30.0
"""How long a run may take to start online."""


def chosen_mode(configured: str, environment: Mapping[str, str]) -> str:
    """online, offline or disabled. Raises UsageError when WANDB_MODE is none of wandb's words."""
    if environment.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes", "on"):
        return "disabled"
    mode = environment.get("WANDB_MODE") or configured
    if mode not in MODES:
        raise UsageError(f"WANDB_MODE={mode} must be one of online, offline, disabled")
    return MODES[mode]


def usable_mode(config: "TrackerConfig") -> str:
    """`chosen_mode`, but offline where online does not work, which is found out once and said in one line."""
    mode = chosen_mode(config.mode, os.environ)
    if mode == "online" and (problem := online_problem()):
        return fall_back(problem)
    return mode


def fall_back(problem: str) -> str:
    """Record offline from now on, in child processes too; returns that mode."""
    os.environ["WANDB_MODE"] = "offline"
    print(f"argmax-vae: wandb records offline: {problem}; `argmax-vae sync` uploads it later", file=sys.stderr)
    return "offline"


ANSWERED: set[str] = set()
"""The servers that were found to answer."""


def online_problem() -> str:
    """Why wandb cannot work online, or nothing; known in seconds, and not asked twice when there is nothing."""
    import wandb

    url = wandb.setup().settings.base_url
    if url in ANSWERED:
        return ""
    if not answers(url):
        return f"{url} does not answer"
    try:
        wandb.login(timeout=int(SECONDS_TO_START))
    except Exception as error:
        return first_line(error)
    ANSWERED.add(url)
    return ""


def answers(url: str) -> bool:
    """Whether there is any answer to a request, through a proxy where the environment names one."""
    import requests

    found = []

    def ask() -> None:
        try:
            found.append(requests.head(url, timeout=SECONDS_TO_ANSWER))
        except requests.RequestException:
            return

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(SECONDS_TO_ANSWER)
    return bool(found)


def first_line(error: Exception) -> str:
    """The first line of an exception's text, else its name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def start(mode: str, **choices: Any) -> Any:
    """`wandb.init`, offline when it fails online.

    wandb's own lines are left out, unless WANDB_SILENT asks for them; where a run is seen online is told.
    """
    import wandb

    settings = wandb.Settings(init_timeout=SECONDS_TO_START)
    if "WANDB_SILENT" not in os.environ:
        settings.silent = True
    if mode == "online":
        try:
            run = wandb.init(mode="online", resume="allow", settings=settings, **choices)
            print(f"argmax-vae: wandb shows this run at {run.url}", file=sys.stderr)
            return run
        except Exception as error:
            mode = fall_back(first_line(error))
    return wandb.init(mode=mode, settings=settings, **choices)  # type: ignore[arg-type]


VARIABLES = {"group": "WANDB_RUN_GROUP"}
"""Environment variables of wandb that are not named as its arguments are."""


def naming(config: "TrackerConfig", environment: Mapping[str, str], **ours: str) -> dict[str, str]:
    """Project, entity, group, notes and name for `wandb.init`: configured, else of the environment, else ours.

    What the environment has is left to wandb.
    """
    found = {}
    for key in ("project", "entity", "group", "notes", "name"):
        configured = getattr(config, key) if key != "name" else ""
        is_default = key == "project" and configured == type(config).project
        if configured and not is_default:
            found[key] = configured
        elif VARIABLES.get(key, f"WANDB_{key.upper()}") not in environment and (value := ours.get(key) or configured):
            found[key] = value
    return found


def publish_table(config: "TrackerConfig", name: str, runs: Path, paths: Sequence[Path]) -> None:
    """Show a table in wandb as an artifact of its files and, from its csv, as a wandb table; says so if it cannot."""
    import wandb

    try:
        mode = usable_mode(config)
        if mode == "disabled":
            return
        run = start(
            mode, **naming(config, os.environ, name=f"{name}: table", group=name), dir=str(runs), job_type="report"
        )
        try:
            artifact = wandb.Artifact(name, type="table")
            for path in paths:
                artifact.add_file(str(path))
                if path.suffix == ".csv":
                    run.log({name: wandb.Table(dataframe=pd.read_csv(path).astype(str))})
            run.log_artifact(artifact)
        finally:
            run.finish()
    except Exception as error:
        print(f"argmax-vae: the table {name} is not in wandb: {first_line(error)}", file=sys.stderr)


STAMP = len("offline-run-20260101_000000")
"""The part of the name of wandb's directories that says when; wandb numbers those of the same second behind the id."""


def wandb_id(directory: Path) -> str:
    """The id of the run that one of wandb's directories holds, by the file that it is in."""
    return next((file.stem for file in directory.glob("run-*.wandb")), directory.name)


def offline_runs(runs: Path) -> list[Path]:
    """Directories of wandb's offline runs below a directory of runs that are to be synchronised.

    Of a run that several processes worked on it is the last one, which has all of the run.
    """
    by_age = sorted(runs.glob("*/wandb/offline-run-*"), key=lambda path: (path.name[:STAMP], len(path.name), path.name))
    last = {(path.parents[1], wandb_id(path)): path for path in by_age}
    found = [*runs.glob("wandb/offline-run-*"), *last.values()]
    return sorted(path for path in found if not list(path.glob("*.wandb.synced")))
