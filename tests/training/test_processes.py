"""A run that several processes share: each sees its part of every batch, and the numbers stay the same."""

import os
import signal
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from work_of_processes import refuse, wait

from argmax_vae.counter_noise import streams_of
from argmax_vae.errors import UsageError
from argmax_vae.interruption import interruptible
from argmax_vae.randomness import NoiseSource
from argmax_vae.training.processes import Share, in_processes
from helpers import SMALL_MIXTURE, cell, metrics, train

COMMON = ("estimator=reinforce", "data.binarization=dynamic", "seeds=[3,4]")
LABELS = (*SMALL_MIXTURE, "supervision=joint", "supervision.labels=100", "supervision.loss=cross_entropy")
CHOICES = {
    "moving average, noise from counters": (*COMMON, "estimator.baseline=moving_average", "runtime.noise=counter"),
    "labels first, then all images": (
        *(*COMMON, *LABELS),
        *("supervision=sequential_joint", "supervision.labelled_visits=1"),
    ),
}


def test_parts_make_the_whole() -> None:
    rows = [index for rank in range(4) for index in range(12)[Share(rank, 4).rows(12)]]
    assert rows == list(range(12))


@pytest.mark.parametrize("samples", [None, 3])
@pytest.mark.parametrize("noise", ["generator", "counter"])
def test_noise_of_the_parts_is_that_of_the_whole(noise: str, samples: int | None) -> None:
    axis = 1 if samples is None else 2

    def source() -> NoiseSource:
        streams = streams_of(noise, ["noise"], [0, 5], torch.tensor(0))
        streams.restart(0)
        return streams.of_step("noise")

    whole = source().uniform((2, 12, 7), samples)
    parts = [Share(rank, 2).noise(source(), 8, 4).uniform((2, 6, 7), samples) for rank in range(2)]
    first, last = (
        torch.cat([part.narrow(axis, start, size) for part in parts], axis) for start, size in ((0, 4), (4, 2))
    )
    assert torch.equal(torch.cat([first, last], axis), whole)


def test_alone_nothing_is_averaged_or_gathered() -> None:
    values = torch.arange(3.0)
    Share().average([values])
    assert torch.equal(Share().gather(values), torch.arange(3.0))


def test_what_one_process_refuses_is_told_in_one_line() -> None:
    with pytest.raises(UsageError, match=r"^key=value must be another$"):
        in_processes(2, refuse)


@pytest.mark.parametrize(
    "interrupted",
    [pytest.param(1, marks=pytest.mark.slow), 2],
    ids=["one of them", "the one that started them"],
)
def test_who_interrupts_one_process_interrupts_all(interrupted: int, tmp_path: Path) -> None:
    """SIGTERM reaches the process that started the others, or one of them alone; all end by KeyboardInterrupt."""

    def send() -> None:
        while len(list(tmp_path.glob("* waits"))) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    if interrupted == 2:
        threading.Thread(target=send).start()
    with interruptible(), pytest.raises(KeyboardInterrupt):
        in_processes(2, wait, tmp_path, interrupted)
    assert len(list(tmp_path.glob("* was interrupted"))) == 2


@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES)
def test_two_processes_equal_one(choices: tuple[str, ...], tmp_path: Path) -> None:
    alone, shared = train(tmp_path / "alone", *choices), train(tmp_path / "shared", *choices, "runtime.processes=2")
    assert alone.path.name == shared.path.name
    pd.testing.assert_frame_equal(metrics(alone), metrics(shared), rtol=1e-4)
    first, second = (torch.load(run.best, weights_only=True)["networks"] for run in (alone, shared))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=1e-5, msg=name)
    assert pd.read_csv(shared.path / "seeds.csv")["path"].str.contains("2 processes").all()
    assert sorted(path.name for path in shared.path.iterdir()) == sorted(path.name for path in alone.path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("runtime.processes=3",), "runtime.processes=3 must be a divisor of trainer.batch=200"),
        (
            (*COMMON, *LABELS, "supervision.labelled_batch=25", "runtime.processes=2"),
            "runtime.processes=2 must be a divisor of supervision.labelled_batch=25",
        ),
        (
            ("estimator=rebar", "estimator.reduction=batch", "runtime.processes=2"),
            "runtime.processes=2 must be 1 with estimator.reduction=batch",
        ),
        (("runtime.processes=0",), "runtime.processes=0 must be at least 1"),
    ],
)
def test_what_cannot_be_shared(tmp_path: Path, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        cell(tmp_path, *overrides)
