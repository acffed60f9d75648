"""Whatever happens to standard output and error: the work goes on, and what can be read is readable."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import pytest

from argmax_vae import streams
from argmax_vae.runs.directory import RunDirectory
from helpers import TINY, cell

WRITER = """
import sys
from argmax_vae import streams
streams.protect()
streams.protect()
{body}
"""


Completed: TypeAlias = "subprocess.CompletedProcess[bytes]"


def python(code: str, redirections: str = "", *options: str, **environment: str) -> Completed:
    """Run code behind `protect` in a shell that redirects its output; the shell's status is that of the code."""
    command = [sys.executable, *options, "-c", WRITER.format(body=code)]
    return shell(f'"$@" {redirections}', command, **environment)


def shell(script: str, command: Sequence[str], **environment: str) -> Completed:
    """Run a bash script that calls a command as `"$@"`."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", script, "bash", *command],
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        timeout=300,
        check=False,
    )


MANY = "for number in range(20000): print(number, flush=True); print(number, file=sys.stderr)"
"""More than a pipe holds."""


@pytest.mark.parametrize(
    ("redirections", "option"), [("2>&1 | true", "-u"), (">&- 2>&-", "-s"), ("2>/dev/full | true", "-B")]
)
def test_nothing_that_happens_to_the_streams_is_an_error(redirections: str, option: str, tmp_path: Path) -> None:
    end = tmp_path / "end"
    code = f"{MANY}\nimport subprocess\nsubprocess.run(['echo', 'child'], check=True)"
    found = python(f"{code}\nopen({str(end)!r}, 'w').close()", redirections, option)
    assert (found.returncode, found.stderr) == (0, b"")
    assert end.exists()


def test_a_pipe_that_does_not_block_gets_everything() -> None:
    code = "import os; os.set_blocking(1, False)\nfor number in range(20000): print(number, flush=True)"
    found = python(code, "| (sleep 0.2; cat)")
    assert found.stdout.split() == [b"%d" % number for number in range(20000)]


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", b"epsilon = 1, Delta, +/- 2, 20x10, \\u4e2d \\xfc \\udcff\n"),
        ("latin-1", b"epsilon = 1, Delta, \xb1 2, 20\xd710, \\u4e2d \xfc \\udcff\n"),
        ("utf-8", "ε = 1, Δ, ± 2, 20×10, 中 ü \\udcff\n".encode()),
    ],
)
def test_what_an_encoding_lacks_is_written_out(encoding: str, expected: bytes) -> None:
    text = "'ε = 1, Δ, ± 2, 20×10, 中 ü \\udcff'"
    found = python(f"print({text}); print({text}, file=sys.stderr)", PYTHONIOENCODING=encoding)
    assert (found.stdout, found.stderr) == (expected, expected)


def test_the_streams_of_a_test_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    streams.protect()
    assert (sys.stdout, sys.stderr) == before
    assert streams.exit_code(1) == 1


@pytest.fixture(scope="module")
def command() -> list[str]:
    return [sys.executable, "-m", "argmax_vae"]


def test_training_without_a_reader_is_done(tmp_path: Path, command: list[str]) -> None:
    arguments = [*command, "train", *TINY, f"paths.runs={tmp_path}", "estimator=gumbel_softmax"]
    found = shell('"$@" 2>&1 >/dev/full | true', arguments, PYTHONIOENCODING="ascii")
    assert (found.returncode, found.stderr) == (0, b"")
    run = RunDirectory.of(cell(tmp_path, "estimator=gumbel_softmax").config_dict)
    assert run.has_ended
    assert list(run.seeds()["status"]) == ["done"]


def test_who_stops_reading_an_answer_ends_it_quietly(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "a").mkdir()
    text = "{model: {}, estimator: {}, trainer: {epochs: 1}, seeds: [0]}"
    (tmp_path / "a" / "config.yaml").write_text(text)
    listing = [*command, "runs", "--runs", str(tmp_path)]
    found = shell('"$@" | true', listing)
    assert (found.returncode, found.stdout, found.stderr) == (streams.READER_GONE, b"", b"")
    found = shell('"$@" >/dev/full', listing)
    line = b"argmax-vae: cannot write to standard output: No space left on device\n"
    assert (found.returncode, found.stderr) == (2, line)
    assert shell('"$@"', listing).stdout.splitlines()[1].split()[0] == b"interrupted"
