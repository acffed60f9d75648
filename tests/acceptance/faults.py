"""Disturbs a sweep in every way that a long one meets, and checks that its table comes out as if nothing had happened.

    python tests/acceptance/faults.py [--kills 20] [--seed 0] [--only WORDS] [--output results/faults.md]

A small sweep (bundled 8×8 digits) is trained undisturbed. Copies of it are then killed at random moments and in the
middle of writing a file, started twice at once, interrupted, given half a checkpoint, and run on a disk that is full;
after each the same command finishes it. Compared are the rows of runs.csv and curves.csv but for what the clock and the
commit decide.

Then every command that writes files is killed right before or after it puts one of them in its place: while a run ends,
runs are joined, and reports, the page, a search and gradients are written. The same command again has to give the files
of one that was left alone, and nothing else may lie there.

Exits with 1 if any differ, or a fault did not show. Takes about a quarter of a minute a kill.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


KILLED_AT_A_RENAME = """
import os, signal, sys
moment, after = int(sys.argv[1]), sys.argv[2] == "after"
rename, done = os.replace, []
def replace(*arguments, **options):
    done.append(arguments)
    if len(done) == moment and not after:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(*arguments, **options)
    if len(done) == moment:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace
from argmax_vae.cli import main
sys.exit(main(sys.argv[3:]))
"""
"""A command that dies by SIGKILL before or after its n-th file has its name."""

SMALL = (
    *("data=digits", "trainer.epochs=2", "trainer.evaluate_every=1", "trainer.final_samples=2", "trainer.batch=200"),
    *("runtime.checkpoint_every=1", "runtime.compile=false", "runtime.device=cpu", "model.latents=3x2"),
)
TABLE = ("section61", *SMALL, "experiment=written_direct", "model.latents=3x2")
RATES = "optim.learning_rate=0.001,0.01"
FEW = ("laboratory.repeats=2", "laboratory.images=5", "laboratory.adaptation=0", "laboratory.epsilon=[1]")


@dataclass(frozen=True)
class Moments:
    """A command that writes files, those that come before it, and what may differ in its csv files."""

    command: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()
    differs: tuple[str, ...] = (*CLOCK, "device")


AT_A_RENAME = "SIGKILL around a rename: "
MOMENTS = {
    "a run": Moments(("train", *SMALL, "seeds=[0,1]")),
    "joining": Moments(("train", *SMALL, "seeds=[0,1]"), (("train", *SMALL, "seeds=[0]"),)),
    "reproduce": Moments(("reproduce", *TABLE, "seeds=[0]")),
    "report": Moments(("report", "section61"), (("reproduce", *TABLE, "seeds=[0]"),)),
    "page": Moments(("page",), (("reproduce", *TABLE, "seeds=[0]"),)),
    "search": Moments(("search", "train", *SMALL, "seeds=[0]", RATES, "--trials", "2")),
    "gradients": Moments(
        ("gradients", "train", *SMALL, "seeds=[0]", *FEW, "laboratory.temperature=[1]"),
        (("train", *SMALL, "seeds=[0]"),),
        (*CLOCK, "milliseconds"),
    ),
}


def run_in(directory: Path, *command: str) -> int:
    """Run Python with these arguments in a directory, one thread, nothing printed; returns the exit code."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    nowhere = subprocess.DEVNULL
    with subprocess.Popen(
        [sys.executable, *command], cwd=directory, env=environment, stdout=nowhere, stderr=nowhere
    ) as process:
        return process.wait(timeout=LIMIT)


def contents(directory: Path, differs: Sequence[str]) -> dict[str, object]:
    """Every file below a directory but locks: csv files without some columns, and what has times in it by its name."""
    found: dict[str, object] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.is_dir() or path.suffix == ".lock":
            continue
        if path.suffix == ".csv":
            found[name] = pd.read_csv(path).drop(columns=list(differs), errors="ignore").to_csv()
        elif path.suffix in (".ckpt", ".json", ".yaml", ".html", ".md", ".tex") or path.name.startswith("gradients"):
            found[name] = path.stat().st_size > 0
        else:
            found[name] = path.read_bytes()
    return found


def kill_at_renames(top: Path, name: str, moments: Moments, kills: int) -> tuple[int, str]:
    """Kill the command at its renames, evenly spread over all; how many times, and `the same` or what differs."""
    prepared, whole = top / f"{name} before", top / f"{name} whole"
    prepared.mkdir()
    for command in moments.before:
        run_in(prepared, "-m", "argmax_vae", *command)
    shutil.copytree(prepared, whole)
    count = renames(whole, moments.command)
    expected = contents(whole, moments.differs)
    chosen = sorted({count - round(part * (count - 1) / max(1, kills - 1)) for part in range(kills)})
    hits = 0
    for moment in chosen:
        for when in ("before", "after"):
            there = top / f"{name} {moment} {when}"
            shutil.copytree(prepared, there)
            hits += run_in(there, "-c", KILLED_AT_A_RENAME, str(moment), when, *moments.command) == -signal.SIGKILL
            code = run_in(there, "-m", "argmax_vae", *moments.command)
            found = contents(there, moments.differs)
            wrong = [path for path in {**expected, **found} if expected.get(path) != found.get(path)]
            if wrong or code != 0:
                return hits, f"exit code {code}, killed {when} rename {moment}: {', '.join(wrong)} differ"
            shutil.rmtree(there)
    return hits, "the same"


def renames(directory: Path, command: Sequence[str]) -> int:
    """Run a command to its end; returns how many files it put in their places."""
    counting = KILLED_AT_A_RENAME.replace("sys.exit(main(", "code = main(").replace("[3:]))", "[3:])")
    counting += "open('renames.txt', 'w').write(str(len(done)))"
    run_in(directory, "-c", counting, "0", "never", *command)
    counted = directory / "renames.txt"
    number = int(counted.read_text(encoding="utf-8"))
    counted.unlink()
    return number


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
    parser.add_argument("--only", default="", metavar="WORDS", help="only faults with these words in their names")
    parser.add_argument("--output", type=Path, help="also write what is printed, as Markdown")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    top = Path(tempfile.mkdtemp(prefix="faults-"))
    chosen = {name: fault for name, fault in FAULTS.items() if given.only in name}
    undisturbed = Sweep(top / "undisturbed")
    if chosen and undisturbed.finish() != 0:
        print("faults: the undisturbed sweep failed", file=sys.stderr)
        return 1
    expected = undisturbed.rows() if chosen else []
    lines = ["| fault | times | what happened | exit code afterwards | table |", "|---|---|---|---|---|"]
    different = False
    for number, (name, (disturb, counted)) in enumerate(chosen.items()):
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
    for name, moments in MOMENTS.items():
        if given.only not in f"{AT_A_RENAME}{name}":
            continue
        hits, outcome = kill_at_renames(top, name, moments, given.kills)
        different |= outcome != "the same" or hits == 0
        lines.append(f"| {AT_A_RENAME}{name} | {hits} | {hits} processes killed | 0 | {outcome} |")
        print(lines[-1], flush=True)
    for mounted in top.glob("fault*"):
        if mounted.is_mount():
            subprocess.run(["umount", str(mounted)], check=True)
    shutil.rmtree(top)
    if given.output:
        only = f" --only '{given.only}'" if given.only else ""
        about = f"Made by `python tests/acceptance/faults.py --kills {given.kills} --seed {given.seed}{only}`"
        compared = f": {len(expected[0])} rows of runs.csv compared." if chosen else "."
        title = "# A sweep that is disturbed, and finished by the same command"
        write_text(given.output, "\n".join([title, "", *lines, "", f"{about}{compared}", ""]))
    print("faults: tables differ" if different else "faults: every table is the same")
    return int(different)


if __name__ == "__main__":
    protect()
    sys.exit(main(sys.argv[1:]))
