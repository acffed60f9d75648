"""One run by several processes of this machine: each trains on its part of every batch, gradients are averaged.

As in distributed data parallelism every process holds all parameters. Noise is drawn for the whole batch and cut, so a
run's numbers do not depend on how many processes share it, up to the rounding of sums in another order.
"""

import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from argmax_vae import streams
from argmax_vae.errors import UsageError
from argmax_vae.interruption import interruptible
from argmax_vae.randomness import NoiseSource


@dataclass(frozen=True)
class Share:
    """The part of every batch that belongs to process `rank` of `count`."""

    rank: int = 0
    count: int = 1

    def rows(self, batch: int) -> slice:
        """The images of a batch that are this process's. `count` divides `batch`."""
        size = batch // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def noise(self, source: NoiseSource, *batches: int) -> NoiseSource:
        """A source that draws for whole batches, which follow each other, and returns the rows of this process."""
        return source if self.count == 1 else ShareOfNoise(source, self, batches)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its mean over the processes."""
        if self.count == 1 or not tensors:
            return
        joined = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(joined)
        joined /= self.count
        for tensor, mean in zip(tensors, joined.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def gather(self, losses: Tensor) -> Tensor:
        """The losses (…, rows) of all processes, in the order of their ranks."""
        if self.count == 1:
            return losses
        parts = [torch.empty_like(losses) for _ in range(self.count)]
        dist.all_gather(parts, losses.contiguous())
        return torch.cat(parts, -1)


INTERRUPTED = 130
"""The exit code of a process that a signal interrupted."""
SECONDS_TO_END = 60.0
"""How long processes that are asked to end may take."""
WHOLE = Share()
"""All of a batch, for a run in one process."""


class ShareOfNoise:
    """Draws as its source does for the whole of some batches, one after the other, and returns one process's rows."""

    def __init__(self, source: NoiseSource, share: Share, batches: Sequence[int]) -> None:
        self.source, self.share, self.batches = source, share, batches

    def uniform(self, shape: Sequence[int], samples: int | None = None) -> Tensor:
        """Uniform numbers on [0, 1) for the rows, the second axis of `shape`, that this process has of all."""
        whole = self.source.uniform((shape[0], sum(self.batches), *shape[2:]), samples)
        axis = 1 if samples is None else 2
        parts = whole.split(list(self.batches), axis)
        rows = [part.movedim(axis, 0)[self.share.rows(part.shape[axis])].movedim(0, axis) for part in parts]
        return torch.cat(rows, axis)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def in_processes(count: int, function: Callable[..., object], *arguments: Any) -> None:
    """Call `function(share, *arguments)` in that many new processes, and wait for them.

    Raises UsageError when one of them does, KeyboardInterrupt when this process or one of them is interrupted, and an
    exception of torch.multiprocessing, with its traceback, when one fails otherwise; the others are ended.
    """
    threads = max(1, torch.get_num_threads() // count)
    refusals = torch.multiprocessing.get_context("spawn").SimpleQueue()
    given = (count, free_port(), threads, refusals, function, arguments)
    context = torch.multiprocessing.spawn(enter, given, nprocs=count, join=False)
    try:
        while not context.join():
            pass
    except torch.multiprocessing.ProcessRaisedException:
        if not refusals.empty():
            raise UsageError(refusals.get()) from None
        raise
    except torch.multiprocessing.ProcessExitedException as error:
        if error.exit_code in (INTERRUPTED, -signal.SIGTERM):
            raise KeyboardInterrupt from None
        raise
    finally:
        end(context.processes)


def end(processes: Sequence[BaseProcess]) -> None:
    """Ask processes that still run to end, as SIGTERM does, and give them time to write what they keep."""
    try:
        for process in processes:
            if process.is_alive():
                process.terminate()
        for process in processes:
            process.join(SECONDS_TO_END)
    finally:
        for process in processes:
            process.kill()


def enter(
    rank: int,
    count: int,
    port: int,
    threads: int,
    refusals: "SimpleQueue[str]",
    function: Callable[..., object],
    arguments: tuple[Any, ...],
) -> None:
    """What a new process does: say in the environment, for Lightning, which one it is, and call the function."""
    streams.protect()
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "LOCAL_RANK": str(rank)}
    torch.set_num_threads(threads)
    try:
        with interruptible():
            function(Share(rank, count), *arguments)
    except UsageError as error:
        refusals.put(str(error))
        raise
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
