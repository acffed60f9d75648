"""Ctrl-C, SIGTERM and SIGHUP end the work in the same way: by KeyboardInterrupt, behind which what was done is kept.

Schedulers of clusters announce the end of a job by SIGTERM, a closed terminal sends SIGHUP.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
received: list[int] = []
"""The signals that came within `interruptible`."""


def interrupt(number: int, frame: object) -> None:
    """Handle a signal by KeyboardInterrupt; of later ones only Ctrl-C counts, for what is kept takes time to write."""
    first = not received
    received.append(number)
    if first or number == signal.SIGINT:
        raise KeyboardInterrupt


def listen() -> None:
    """Have `interrupt` called for the signals, except for those that are ignored, as SIGHUP is under nohup."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, interrupt)


def check() -> None:
    """Raise KeyboardInterrupt if a signal came, in case that its own was lost in code that swallows exceptions."""
    if received:
        raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[None]:
    """Within this, and in the main thread, the signals interrupt; afterwards they do what they did before."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    listen()
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if handler is not None:
                    signal.signal(number, handler)
        if before[signal.SIGINT] is not interrupt:
            received.clear()
