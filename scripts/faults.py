"""Disturbs a sweep in every way that a long one meets, and checks that its table comes out as if nothing had happened.

    python scripts/faults.py [--kills 20] [--seed 0] [--output results/faults.md]

A small sweep (bundled 8×8 digits) is trained undisturbed. Copies of it are then killed at random moments and in the
middle of writing a file, started twice at once, interrupted, given half a checkpoint, and run on a disk that is full;
after each the same command finishes it. Compared are the rows of runs.csv and curves.csv but for what the clock and the
commit decide. Exits with 1 if any differ, or a fault did not show. Takes about a quarter of a minute a kill.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from argmax_vae.files import write_text
from argmax_vae.streams import protect

SWEEP = (
    *("section61", "data=digits", "experiment=written_direct", "model.latents=3x2,6x2,1x8", "seeds=[0,1]"),
    *("trainer.epochs=12", "trainer.evaluate_every=1", "trainer.final_samples=2", "runtime.checkpoint_every=1"),
    *("runtime.compile=false", "runtime.chunk=1", "runtime.device=cpu"),
)
CLOCK = ["seconds", "steps_per_second", "commit", "dirty"]
LIMIT = 600


class Sweep:
    """One copy of the sweep in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.runs, self.results = directory / "runs", directory / "results"
        self.command = [sys.executable, "-m", "argmax_vae", "reproduce", *SWEEP]
        self.command += [f"paths.runs={self.runs}", f"paths.results={self.results}"]

    def start(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            self.command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def finish(self) -> int:
        """Run the command to its end; returns the exit code."""
        process = self.start()
        process.communicate(timeout=LIMIT)
        return process.returncode

    def half_written(self) -> list[Path]:
        """Temporary files that are being written now."""
        return [path for top in (self.runs, self.results) for path in top.glob("**/.*.*") if path.suffix != ".lock"]

    def rows(self) -> list[pd.DataFrame]:
        """The files of record without what the clock decides, in a fixed order."""
        frames = []
        for name in ("runs.csv", "curves.csv"):
            frame = pd.read_csv(self.results / name).drop(columns=CLOCK, errors="ignore")
            frames.append(frame.sort_values(list(frame.columns[:12])).reset_index(drop=True))
        return frames


def kill(process: subprocess.Popen[str]) -> bool:
    """SIGKILL; whether the process was still alive."""
    alive = process.poll() is None
    process.kill()
    process.communicate()
    return alive


def kill_at_random(sweep: Sweep, times: int, chance: random.Random) -> int:
    """Kill anywhere; returns how many processes were alive then."""
    hit = 0
    for _ in range(times):
        process = sweep.start()
        time.sleep(chance.uniform(0, 20))
        hit += kill(process)
    return hit


def kill_in_a_write(sweep: Sweep, times: int, chance: random.Random) -> int:
    """Kill as soon as a temporary file is seen; returns how many were left half written."""
    hit = 0
    for _ in range(times):
        process, wanted = sweep.start(), chance.randint(1, 12)
        seen: set[Path] = set()
        while process.poll() is None and len(seen) < wanted:
            seen |= set(sweep.half_written())
        kill(process)
        left = sweep.half_written()
        hit += bool(left)
    return hit


def kill_two_at_once(sweep: Sweep, times: int, chance: random.Random) -> int:
    """Two processes on one sweep, killed one after the other."""
    hit = 0
    for _ in range(times):
        processes = [sweep.start(), sweep.start()]
        for process in processes:
            time.sleep(chance.uniform(2, 15))
            hit += kill(process)
    return hit


def truncate_checkpoints(sweep: Sweep, times: int, chance: random.Random) -> int:
    """Kill once there are checkpoints, and cut the last one of every unfinished run short."""
    hit = 0
    for _ in range(times):
        process = sweep.start()
        while process.poll() is None and not [*sweep.runs.glob("*/previous.ckpt")]:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.5))
        kill(process)
        for previous in sweep.runs.glob("*/previous.ckpt"):
            last = previous.with_name("last.ckpt")
            if last.samefile(previous):
                continue
            with last.open("r+b") as file:
                file.truncate(chance.randint(0, last.stat().st_size - 1))
            hit += 1
    return hit


def interrupt(sweep: Sweep, times: int, chance: random.Random) -> int:
    """Ctrl-C; returns how often the exit code was what a shell calls 130: that, or death by the signal in an import."""
    hit = 0
    for _ in range(times):
        process = sweep.start()
        while process.poll() is None and not [*sweep.runs.glob("*/last.ckpt")]:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LIMIT)
        hit += process.returncode in (130, -signal.SIGINT)
    return hit


def fill_the_disk(sweep: Sweep, times: int, chance: random.Random) -> int:
    """Run on a disk that is too small, then give it room; returns how often the command said so in one line."""
    hit = 0
    sweep.directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(sweep.directory)], check=True)
    for _ in range(times):
        process = sweep.start()
        _, lines = process.communicate(timeout=LIMIT)
        said = [line for line in lines.splitlines() if "No space left on device" in line]
        hit += bool(said) and "Traceback" not in lines and process.returncode != 0
    subprocess.run(["mount", "-o", "remount,size=100m", str(sweep.directory)], check=True)
    return hit


FAULTS: dict[str, tuple[Callable[[Sweep, int, random.Random], int], str]] = {
    "SIGKILL at a random moment": (kill_at_random, "processes killed"),
    "SIGKILL while a file is written": (kill_in_a_write, "left half-written files"),
    "two sweeps at once, both killed": (kill_two_at_once, "processes killed"),
    "last checkpoint cut short": (truncate_checkpoints, "checkpoints cut"),
    "Ctrl-C": (interrupt, "exits with 130"),
    "full disk": (fill_the_disk, "refusals in one line"),
}


def compare(sweep: Sweep, expected: list[pd.DataFrame]) -> str:
    """`the same`, or what differs."""
    try:
        for found, wanted in zip(sweep.rows(), expected, strict=True):
            pd.testing.assert_frame_equal(found, wanted, check_exact=True)
    except (AssertionError, OSError) as error:
        return " ".join(str(error).split())
    leftovers = [path.name for path in sweep.runs.glob("*/error.txt")]
    return f"left behind: {', '.join(leftovers)}" if leftovers else "the same"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each kind; a quarter as many other faults")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="also write what is printed, as Markdown")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    top = Path(tempfile.mkdtemp(prefix="faults-"))
    undisturbed = Sweep(top / "undisturbed")
    if undisturbed.finish() != 0:
        print("faults: the undisturbed sweep failed", file=sys.stderr)
        return 1
    expected = undisturbed.rows()
    lines = ["| fault | times | what happened | exit code afterwards | table |", "|---|---|---|---|---|"]
    different = False
    for number, (name, (disturb, counted)) in enumerate(FAULTS.items()):
        sweep = Sweep(top / f"fault{number}")
        times = given.kills if "kill" in name.lower() else max(1, given.kills // 4)
        try:
            hits = disturb(sweep, times, random.Random(given.seed + number))
        except subprocess.CalledProcessError:
            lines.append(f"| {name} | 0 | not tried: file systems cannot be mounted here | – | – |")
            continue
        code, outcome = sweep.finish(), compare(sweep, expected)
        different |= outcome != "the same" or code != 0 or hits == 0
        lines.append(f"| {name} | {times} | {hits} {counted} | {code} | {outcome} |")
        print(lines[-1], flush=True)
    for mounted in top.glob("fault*"):
        if mounted.is_mount():
            subprocess.run(["umount", str(mounted)], check=True)
    shutil.rmtree(top)
    if given.output:
        about = f"Made by `python scripts/faults.py --kills {given.kills} --seed {given.seed}`: {len(expected[0])} rows"
        title = "# A sweep that is disturbed, and finished by the same command"
        write_text(given.output, "\n".join([title, "", *lines, "", f"{about} of runs.csv compared.", ""]))
    print("faults: tables differ" if different else "faults: every table is the same")
    return int(different)


if __name__ == "__main__":
    protect()
    sys.exit(main(sys.argv[1:]))
