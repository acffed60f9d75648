"""Runs the tour of README.md in an empty directory, and compares what it prints with what the page shows.

    python tests/acceptance/tour.py [COMMAND]      (default: the argmax-vae beside this python)

Texts must be the same, bounds within 0.3 nats: other processors round otherwise. Takes about two minutes.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
NUMBER = re.compile(r"[+-]?\d+\.\d+")
TOLERANCE = 0.3


def steps(text: str) -> list[tuple[str, list[str]]]:
    """The commands of the tour, each with the lines that it prints."""
    tour = text.split("## A tour")[1].split("\n## ", maxsplit=1)[0]
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```sh\n(.*?)```", tour, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line.removeprefix("$ "), []))
            else:
                found[-1][1].append(line)
    return found


def differences(expected: list[str], printed: list[str]) -> list[str]:
    """What a command printed otherwise than the page shows."""
    if len(expected) != len(printed):
        return [f"{len(printed)} lines, the page has {len(expected)}:", *printed]
    found = []
    for ours, theirs in zip(expected, printed, strict=True):
        numbers = zip(map(float, NUMBER.findall(ours)), map(float, NUMBER.findall(theirs)), strict=False)
        words = [NUMBER.sub("#", line).split() for line in (ours, theirs)]
        if words[0] != words[1] or any(abs(a - b) > TOLERANCE for a, b in numbers):
            found += [f"the page: {ours}", f"printed:  {theirs}"]
    return found


def main() -> int:
    command = sys.argv[1] if len(sys.argv) > 1 else str(Path(sys.executable).parent / "argmax-vae")
    wrong = 0
    with tempfile.TemporaryDirectory() as directory:
        for line, expected in steps(README.read_text(encoding="utf-8")):
            print(f"$ {line}", flush=True)
            asked = re.sub(r"^argmax-vae", command, line)
            done = subprocess.run(asked, shell=True, cwd=directory, capture_output=True, text=True, check=False)
            found = differences(expected, done.stdout.splitlines())
            if done.returncode != 0:
                found = [f"exit code {done.returncode}", *done.stderr.splitlines()[-3:]]
            print("\n".join(found) or "as shown", flush=True)
            wrong += bool(found)
        if not (Path(directory) / "results" / "report.html").exists():
            print("results/report.html is not there")
            wrong += 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
