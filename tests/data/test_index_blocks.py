"""Index blocks: every seed shuffles on its own, whatever runs beside it and however the epoch is cut."""

import pytest
import torch

from argmax_vae.data.index_blocks import EvaluationBlocks, TrainingBlocks, loader


def epoch_of(seeds: list[int], steps: int = 4, epoch: int = 0, images: int = 103, batch: int = 10) -> torch.Tensor:
    """All index batches of an epoch, (steps, seeds, batch)."""
    return torch.cat(list(TrainingBlocks(images, seeds, batch, steps, lambda: epoch)))


def test_an_epoch_visits_images_once_and_leaves_out_what_no_batch_holds() -> None:
    blocks = epoch_of([0, 1, 5])
    assert blocks.shape == (10, 3, 10)
    for order in blocks.movedim(1, 0).flatten(1):
        assert len(order.unique()) == 100
        assert 0 <= int(order.min()) <= int(order.max()) < 103


@pytest.mark.parametrize("steps", [1, 3, 10, 1000])
def test_the_block_size_does_not_change_the_order(steps: int) -> None:
    assert torch.equal(epoch_of([3, 4], steps), epoch_of([3, 4], 4))


@pytest.mark.parametrize(("steps", "lengths"), [(1, [1] * 10), (4, [4, 4, 2]), (10, [10]), (99, [10])])
def test_only_the_last_block_is_short(steps: int, lengths: list[int]) -> None:
    blocks = TrainingBlocks(103, [0], 10, steps, lambda: 0)
    assert [len(block) for block in blocks] == lengths
    assert len(blocks) == len(lengths)
    assert blocks.steps_per_epoch == 10


def test_a_seed_has_the_same_order_whatever_runs_beside_it() -> None:
    together = epoch_of([7, 2, 9])
    for position, seed in enumerate([7, 2, 9]):
        assert torch.equal(together[:, position], epoch_of([seed])[:, 0])
    assert not torch.equal(together[:, 0], together[:, 1])


def test_epochs_differ_and_repeat() -> None:
    assert not torch.equal(epoch_of([0], epoch=0), epoch_of([0], epoch=1))
    assert torch.equal(epoch_of([0], epoch=1), epoch_of([0], epoch=1))


def test_the_epoch_is_read_when_iteration_starts() -> None:
    current = 0
    blocks = TrainingBlocks(103, [0], 10, 4, lambda: current)
    current = 6
    assert torch.equal(torch.cat(list(blocks)), epoch_of([0], epoch=6))


@pytest.mark.parametrize("batch", [1, 7, 20, 50])
def test_evaluation_goes_through_the_split_in_order(batch: int) -> None:
    blocks = EvaluationBlocks(20, batch)
    assert torch.equal(torch.cat(list(blocks)), torch.arange(20))
    assert len(list(blocks)) == len(blocks)
    assert all(len(block) <= batch for block in blocks)


def test_the_loader_passes_blocks_on_as_they_are() -> None:
    blocks = TrainingBlocks(103, [0, 1], 10, 4, lambda: 0)
    loaded = list(loader(blocks))
    assert [block.shape for block in loaded] == [(4, 2, 10), (4, 2, 10), (2, 2, 10)]
    assert torch.equal(torch.cat(loaded), epoch_of([0, 1]))
