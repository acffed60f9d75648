"""Standard output and error that cannot fail the work: a reader that went away, a full disk, a small character set."""

import codecs
import errno
import io
import os
import select
import sys
import unicodedata
from typing import Any, cast

from argmax_vae.errors import UsageError

READER_GONE = 141
"""The exit code of a command that SIGPIPE ends, 128 and the signal's number."""
PLAIN = {
    **{"−": "-", "–": "-", "—": "-", "…": "...", "±": "+/-", "×": "x", "·": "*", "†": "+", "′": "'"},
    **{"²": "^2", "≤": "<=", "≥": ">=", "→": "->", "∞": "inf"},
}
"""What stands for a sign that the encoding of a stream lacks."""


def plain(character: str) -> str:
    """A character in ASCII: its sign in `PLAIN`, the name of a Greek letter, else an escape such as `\\xfc`."""
    if character in PLAIN:
        return PLAIN[character]
    name = unicodedata.name(character, "").split()
    if name[:1] == ["GREEK"] and name[2:3] == ["LETTER"]:
        return name[3].capitalize() if name[1] == "CAPITAL" else name[3].lower()
    return character.encode("ascii", "backslashreplace").decode("ascii")


def readable(error: UnicodeError) -> tuple[str, int]:
    """The error handler of codecs that puts `plain` in the place of what cannot be encoded."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(plain, error.object[error.start : error.end])), error.end


class Unfailing(io.FileIO):
    """A file to write to whose writes always succeed: what the operating system refuses is dropped.

    `failure` is the first refusal. Once the reader of a pipe is gone, the descriptor leads nowhere, for child processes
    too.
    """

    failure: OSError | None = None

    def write(self, content: Any, /) -> int:
        """Write, or wait until there is room in a pipe that does not block; returns how many bytes are dealt with."""
        try:
            while (written := super().write(content)) is None:
                select.select([], [self.fileno()], [])
        except OSError as error:
            self.failure = self.failure or error
            if error.errno == errno.EPIPE:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.fileno())
                os.close(nowhere)
            return memoryview(content).nbytes
        return written


def descriptor(stream: object) -> io.RawIOBase | None:
    """The unbuffered file behind a text stream, if it is standard output or error of the process itself."""
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    return raw if isinstance(raw, io.FileIO) and raw.fileno() in (1, 2) else None


def protect() -> None:
    """Let nothing that happens to standard output or error raise an exception in this process.

    Characters that their encoding lacks become `plain`; a stream that is closed becomes one that leads nowhere. Streams
    that a test or a notebook put in place of the process's own stay as they are.
    """
    codecs.register_error("readable", readable)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            number = os.open(os.devnull, os.O_WRONLY)
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
            continue
        raw = descriptor(stream)
        if raw is None or isinstance(raw, Unfailing):
            continue
        stream.flush()
        safe = Unfailing(raw.fileno(), "wb", closefd=False)
        whole = io.TextIOWrapper(
            cast(Any, safe) if stream.buffer is raw else io.BufferedWriter(safe),
            encoding=stream.encoding,
            errors="readable",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, whole)
        setattr(sys, f"__{name}__", whole)


def exit_code(code: int) -> int:
    """The exit code of a command whose answer is what it prints, from its own: `READER_GONE` when nobody read that.

    Raises UsageError when it could not be written for another reason.
    """
    raw = descriptor(sys.stdout)
    if not isinstance(raw, Unfailing):
        return code
    sys.stdout.flush()
    if raw.failure is None:
        return code
    if raw.failure.errno == errno.EPIPE:
        return READER_GONE
    raise UsageError(f"cannot write to standard output: {raw.failure.strerror}")
