"""Runs whose steps draw their own noise, from counters: the same numbers however cut, and never two sources in one."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from argmax_vae.data.datasets import load_dataset
from argmax_vae.errors import UsageError
from argmax_vae.runs.directory import RunDirectory
from argmax_vae.training import build
from argmax_vae.training.vae import DiscreteVAE
from helpers import SMALL_MIXTURE, cell, metrics, raise_after, same_numbers, train

COUNTER = ("runtime.noise=counter", "seeds=[3,5]")
MIXTURE = (*SMALL_MIXTURE, "supervision=joint", "supervision.labels=50")
KINDS = {
    "pixels": ("estimator=relax", "model.latents=2x3", "data.binarization=dynamic"),
    "mixture": (*MIXTURE, "data.binarization=dynamic"),
    "passes": (*MIXTURE, "data.binarization=dynamic", "supervision.sampling=without_replacement"),
}


def module(tmp_path: Path, *overrides: str) -> DiscreteVAE:
    """A module at the first step of its third epoch."""
    found = build.build(cell(tmp_path, *overrides).config, load_dataset("digits", Path()))
    found.prepare_steps(found.configure_optimizers())
    found.on_train_epoch_start()
    found.noise.restart(2)
    return found


def steps_of(found: DiscreteVAE) -> torch.Tensor:
    """The losses of its first two steps."""
    order = torch.randint(1200, (2, len(found.seeds), 200), generator=torch.Generator().manual_seed(0))
    return found.runner.run(order)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_draws_the_same_numbers_beside_others(kind: str, tmp_path: Path) -> None:
    together, alone = (
        module(tmp_path, *KINDS[kind], "runtime.noise=counter", f"seeds={seeds}") for seeds in ("[4,7,9]", "[7]")
    )
    drawn, expected = together.draw(), alone.draw()
    assert drawn.keys() == expected.keys()
    assert drawn.keys() >= {"pixels"} | ({"conditional"} if kind == "pixels" else {"gaussian", "dropout", "labelled"})
    assert len({tuple(values.flatten()[:5].tolist()) for values in drawn.values()}) == len(drawn)
    for name, values in expected.items():
        axis = 0 if values.shape[0] == 1 and drawn[name].shape[0] == 3 else 1
        assert torch.equal(drawn[name].narrow(axis, 1, 1), values), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_draws_other_numbers_than_the_one_before(kind: str, tmp_path: Path) -> None:
    found = module(tmp_path, *KINDS[kind], *COUNTER)
    first = found.draw()
    steps_of(found)
    assert int(found.steps_done) == 2
    assert all(not torch.equal(values, first[name]) for name, values in found.draw().items())


def test_compiled_draws_equal_eager_ones(tmp_path: Path) -> None:
    """To the last bit, with Inductor's loops."""
    found = module(tmp_path, *KINDS["pixels"], *COUNTER)
    compiled = torch.compile(lambda: found.noise.of_step("noise").uniform((2, 30, 5), samples=3), fullgraph=True)
    assert torch.equal(compiled(), found.noise.of_step("noise").uniform((2, 30, 5), samples=3))


@pytest.mark.parametrize(
    ("kind", "backend"),
    [
        ("pixels", "eager"),
        *(pytest.param("passes", backend, marks=pytest.mark.slow) for backend in ("eager", "aot_eager")),
    ],
)
def test_a_step_is_traced_with_its_noise(kind: str, backend: str, tmp_path: Path) -> None:
    """torch.compile finds no break in a step that draws, and the traced step has the numbers of the eager one."""
    eager, traced = (module(tmp_path, *KINDS[kind], *COUNTER) for _ in range(2))
    traced.compiled_terms.run = torch.compile(traced.step_terms, backend=backend, fullgraph=True, dynamic=False)
    torch.testing.assert_close(steps_of(traced), steps_of(eager), rtol=1e-5, atol=1e-5)


def test_numbers_do_not_depend_on_chunks_or_interruptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = (*COUNTER, "data.binarization=dynamic", "trainer.epochs=3", "runtime.checkpoint_every=1")
    whole = train(tmp_path / "whole", *chosen, "runtime.chunk=7")
    with monkeypatch.context() as context:
        raise_after(context, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "parts", *chosen, "runtime.chunk=1")
    same_numbers(whole, train(tmp_path / "parts", *chosen, "runtime.chunk=2", "runtime.noise=auto"))
    rows = pd.read_csv(whole.path / "seeds.csv")
    assert rows["path"].str.contains("noise from counters").all()


def test_a_run_keeps_to_the_noise_that_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = ("seeds=[3]", "runtime.checkpoint_every=1")
    with monkeypatch.context() as context:
        raise_after(context, 1, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, *chosen)
    run = RunDirectory.of(cell(tmp_path, *chosen).config_dict)
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    with pytest.raises(UsageError) as refused:
        train(tmp_path, *chosen, "runtime.noise=counter")
    assert str(refused.value) == (
        f"runtime.noise=counter must be auto or generator, with which {run.path} began; remove that directory to train "
        "with counter"
    )
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before
    assert train(tmp_path, *chosen).noise == "generator"
    assert not pd.read_csv(run.path / "seeds.csv")["path"].str.contains("counters").any()


def test_more_epochs_and_seeds_have_the_noise_of_what_they_go_on_with(tmp_path: Path) -> None:
    """One that asks for the other noise is trained from its start."""
    train(tmp_path, "seeds=[3]", "trainer.epochs=1", "runtime.noise=counter")
    longer = train(tmp_path, "seeds=[3]", "trainer.epochs=2")
    more = train(tmp_path, "seeds=[3,5]", "trainer.epochs=2")
    for run, part in ((longer, "continues"), (more, "joins")):
        assert (run.noise, part in run.provenance()) == ("counter", True)
        assert pd.read_csv(run.path / "seeds.csv")["path"].str.contains("counters").all()
    assert [part["noise"] for part in more.provenance()["joins"]] == ["counter"] * 2
    others = [
        train(tmp_path, *given, "runtime.noise=generator")
        for given in (("seeds=[3]", "trainer.epochs=3"), ("seeds=[3,6]", "trainer.epochs=2"))
    ]
    for run in others:
        assert run.noise == "generator"
        assert not {"continues", "joins"} & run.provenance().keys()
    assert not metrics(others[1]).equals(metrics(more))


def test_runs_of_different_noise_are_not_joined(tmp_path: Path) -> None:
    for given in ("seeds=[1,2]", "seeds=[3]"):
        noise = "generator" if given == "seeds=[1,2]" else "counter"
        train(tmp_path, given, "trainer.epochs=1", f"runtime.noise={noise}")
    with pytest.raises(UsageError, match=r"noise from a generator, .* from a counter: they cannot be one run; remove"):
        train(tmp_path, "seeds=[1,2,3]", "trainer.epochs=1")
    assert not RunDirectory.of(cell(tmp_path, "seeds=[1,2,3]", "trainer.epochs=1").config_dict).path.exists()


def test_noise_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^runtime.noise=white must be one of auto, generator, counter$"):
        cell(tmp_path, "runtime.noise=white")
