"""Which images each step sees: blocks of indices, shuffled for every seed on its own."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from argmax_vae.randomness import generator_for


class TrainingBlocks(IterableDataset[Tensor]):
    """One epoch as index blocks (steps, seeds, batch); the last block may have fewer steps.

    The order of seed s in an epoch is a permutation from the stream of (s, epoch), so it depends on neither the other
    seeds nor the block size. Images left over when the batch size does not divide their number sit the epoch out.
    """

    def __init__(self, images: int, seeds: Sequence[int], batch: int, steps: int, epoch: Callable[[], int]) -> None:
        super().__init__()
        self.images, self.seeds, self.batch, self.steps = images, tuple(seeds), batch, steps
        self.epoch = epoch

    @property
    def steps_per_epoch(self) -> int:
        return self.images // self.batch

    def __len__(self) -> int:
        return math.ceil(self.steps_per_epoch / self.steps)

    def __iter__(self) -> Iterator[Int64[Tensor, "steps seeds batch"]]:
        epoch = self.epoch()
        orders = [torch.randperm(self.images, generator=generator_for(seed, epoch, "order")) for seed in self.seeds]
        used = self.steps_per_epoch * self.batch
        blocks = torch.stack(orders)[:, :used].unflatten(1, (-1, self.batch)).movedim(0, 1)
        yield from blocks.split(self.steps)


class EvaluationBlocks(IterableDataset[Tensor]):
    """A split in order, as index blocks (batch,)."""

    def __init__(self, images: int, batch: int) -> None:
        super().__init__()
        self.images, self.batch = images, batch

    def __len__(self) -> int:
        return math.ceil(self.images / self.batch)

    def __iter__(self) -> Iterator[Int64[Tensor, "batch"]]:
        yield from torch.arange(self.images).split(self.batch)


def loader(blocks: IterableDataset[Tensor]) -> DataLoader[Tensor]:
    """A loader that passes the blocks on as they are."""
    return DataLoader(blocks, batch_size=None)
