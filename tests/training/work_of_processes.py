"""What tests let other processes do; apart, so that these import no more than they need."""

import os
import signal
import time
from pathlib import Path

from argmax_vae.errors import UsageError
from argmax_vae.training.processes import Share


def refuse(part: Share) -> None:
    """What a process does that finds something wrong."""
    if part.rank == 1:
        raise UsageError("key=value must be another")


def wait(part: Share, directory: Path, interrupted: int) -> None:
    """Wait for a signal, which the process of rank `interrupted` sends itself, and write a file when it comes."""
    (directory / f"{part.rank} waits").touch()
    try:
        while part.rank != interrupted or not (directory / f"{1 - part.rank} waits").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        (directory / f"{part.rank} was interrupted").touch()
        raise
