"""Labels in training: the gradient that a label makes, the phases, and what the classifier learns."""

import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from argmax_vae.commands.evaluate import evaluate_run
from argmax_vae.commands.gradients import measure_gradients
from argmax_vae.data.datasets import load_dataset
from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.estimators.base import CodeLoss, Estimate
from argmax_vae.estimators.direct import Direct, DirectConfig
from argmax_vae.estimators.exact import Exact, ExactConfig
from argmax_vae.estimators.schedules import Constant
from argmax_vae.objective.labels import (
    SupervisionConfig,
    cross_entropy,
    supervised,
)
from argmax_vae.randomness import PlainNoise
from argmax_vae.training import build
from argmax_vae.training.mixture_vae import MixtureVAE, clustering_accuracy
from chance import FALSE_ALARM, mean_p_value
from helpers import cell, metrics, raise_after, same_numbers, seeds, train
from supervised_mixture import JOINT, MIXTURE, PASSES, SEQUENTIAL, SEQUENTIAL_JOINT, started
from tabular import TabularLoss

STEP = torch.tensor(0)
K = 4
TRAININGS = pytest.mark.parametrize(
    "overrides", [JOINT, SEQUENTIAL, SEQUENTIAL_JOINT, ()], ids=["joint", "sequential", "sequential_joint", "none"]
)


def tiny(generator: torch.Generator, rows: int = 1) -> tuple[Tensor, TabularLoss, Tensor]:
    """Logits and losses of K codes for some images, of which the first half has labels."""
    logits = torch.randn(rows, 1, K, generator=generator, dtype=torch.float64)
    loss = TabularLoss(torch.randn(rows, K, generator=generator, dtype=torch.float64), 1, K)
    labels = one_hot(torch.randint(K, (rows, 1), generator=generator), K).double()
    return logits, loss, labels


def gradients(estimator: Direct, logits: Tensor, loss: CodeLoss, number: int) -> Tensor:
    """Gradients of `number` samples of one image: (number, K)."""
    batch = logits.expand(number, 1, K).clone().requires_grad_()
    noise = estimator.noise((number, 1, K), PlainNoise(torch.Generator().manual_seed(1), torch.float64))
    (found,) = torch.autograd.grad(estimator(batch, loss, noise, STEP).objective.sum(), batch)
    return found.squeeze(-2)


@pytest.mark.parametrize("weight", [0.5, 3.0])
def test_augmented_direct_against_the_exact_gradient_of_the_expected_loss(
    weight: float, generator: torch.Generator
) -> None:
    """∇E_q[θ(z) + w·[z ≠ y]]: a million samples of the symmetric difference at ε = 0.05, whose bias is of order ε².

    Chi-square with false alarms 1e-6; a gradient without the label's part is rejected.
    """
    logits, plain, labels = tiny(generator)
    choices = SupervisionConfig(training="joint", labels=10, loss="augmented", weight=weight)
    loss = supervised(choices, plain, labels)
    table = TabularLoss(plain.table + weight * (1 - labels.squeeze(1)), 1, K)
    variable = logits.clone().requires_grad_()
    exact = (variable.softmax(-1).squeeze(1) * table.table).sum()
    (truth,) = torch.autograd.grad(exact, variable)
    without = torch.autograd.grad((variable.softmax(-1).squeeze(1) * plain.table).sum(), variable)[0]
    direct = Direct(DirectConfig(epsilon=Constant(value=0.05), direction="symmetric"))
    found = gradients(direct, logits, loss, 1_000_000)
    assert mean_p_value(found, truth.flatten()) > FALSE_ALARM
    assert mean_p_value(found, without.flatten()) < FALSE_ALARM


def test_label_gradient_of_direct_is_that_of_a_classifier(generator: torch.Generator) -> None:
    """The perturbed arg max is y, so the mean of (z − y)/ε is (q − y)/ε: cross-entropy's gradient over ε."""
    logits, plain, labels = tiny(generator)
    loss = supervised(SupervisionConfig(training="joint", labels=10, loss="label"), plain, labels)
    found = gradients(Direct(DirectConfig(epsilon=Constant(value=0.2))), logits, loss, 200_000)
    truth = (logits.softmax(-1) - labels) / 0.2
    assert mean_p_value(found, truth.flatten()) > FALSE_ALARM
    assert set(((found * 0.2).abs().sum(-1)).round().int().tolist()) <= {0, 2}


@pytest.mark.parametrize("loss_name", ["label", "augmented"])
def test_images_without_a_label_are_left_alone(loss_name: str, generator: torch.Generator) -> None:
    _, plain, labels = tiny(generator, rows=4)
    labels[2:] = 0
    loss = supervised(SupervisionConfig(training="joint", labels=10, loss=loss_name, weight=2.0), plain, labels)
    codes = one_hot(torch.tensor([[0], [1], [2], [3]]), K).double()
    torch.testing.assert_close(loss(codes)[2:], plain(codes)[2:])
    chosen, changed = loss.with_candidates(codes)
    expected, candidates = plain.with_candidates(codes)
    torch.testing.assert_close(chosen[2:], expected[2:])
    torch.testing.assert_close(changed[2:], candidates[2:])
    every = torch.eye(K, dtype=torch.float64).unsqueeze(1)
    torch.testing.assert_close(loss.shared(every)[2:], plain.shared(every)[2:])
    if loss_name == "augmented":
        torch.testing.assert_close(changed[:2] - candidates[:2], 2.0 * (1 - labels[:2]))
        torch.testing.assert_close(loss.shared(every)[:2], changed.squeeze(1)[:2])
    else:
        assert torch.equal(changed[:2].argmin(-1), labels[:2].argmax(-1))


def test_cross_entropies(generator: torch.Generator) -> None:
    logits, plain, labels = tiny(generator, rows=3)
    labels[2:] = 0
    chosen = SupervisionConfig(training="joint", labels=10, loss="cross_entropy", weight=2.0)
    estimate = Exact(ExactConfig())(logits, plain, {}, STEP)
    expected = 2 * torch.nn.functional.cross_entropy(logits[:2, 0], labels[:2, 0], reduction="none")
    found = cross_entropy(chosen, estimate, logits, labels)
    torch.testing.assert_close(found[:2], expected)
    assert found[2] == 0
    relaxed = torch.randn(1, 3, 1, K, generator=generator, dtype=torch.float64).log_softmax(-1)
    chosen = SupervisionConfig(training="joint", labels=10, loss="relaxed_cross_entropy", weight=2.0)
    zeros = torch.zeros(3, dtype=torch.float64)
    found = cross_entropy(chosen, Estimate(zeros, zeros, relaxed), logits, labels)
    torch.testing.assert_close(found, -2 * (relaxed[0] * labels).sum((-2, -1)))


@pytest.mark.parametrize("overrides", [JOINT, SEQUENTIAL, SEQUENTIAL_JOINT, (), PASSES])
def test_interrupted_and_resumed_equals_uninterrupted(
    overrides: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run with two phases is stopped once within its first, or within a pass, and once behind it."""
    chosen = (*MIXTURE, *overrides, "trainer.epochs=4", "runtime.checkpoint_every=1")
    whole = train(tmp_path / "whole", *chosen)
    for stop in (1, 3):
        with monkeypatch.context() as interrupted:
            raise_after(interrupted, stop, KeyboardInterrupt())
            with pytest.raises(KeyboardInterrupt):
                train(tmp_path / "parts", *chosen)
    same_numbers(whole, train(tmp_path / "parts", *chosen))


def test_a_seed_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    together = train(tmp_path / "together", *MIXTURE, *JOINT, "seeds=[2,6]")
    alone = train(tmp_path / "alone", *MIXTURE, *JOINT, "seeds=[6]")
    both, one = seeds(together), seeds(alone)
    numbers = ["test_bound", "test_accuracy", "test_perturbed_accuracy", "validation_accuracy"]
    expected = both[both["seed"] == 6][numbers].reset_index(drop=True)
    pd.testing.assert_frame_equal(expected, one[numbers], rtol=1e-4)


@TRAININGS
@pytest.mark.parametrize("kind", ["selected", "candidate", "expected"])
def test_gradient_of_a_step_is_that_of_the_bound_and_the_cross_entropy_written_out(
    kind: str, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    """With the exact gradient of the component; `selected` is a divergence that the component's gradient misses."""
    choices = ("estimator=exact", f"model.gaussian_kl={kind}", "seeds=[0,1]")
    if overrides:
        choices += ("supervision.loss=cross_entropy", "supervision.weight=2", "supervision.labelled_weight=3")
    module = started(tmp_path, *overrides, *choices)
    noise = module.draw()
    images, labels = module.inputs(torch.arange(400).view(2, 200), noise)
    nets, parameters = module.networks, list(module.networks.parameters())
    found = torch.autograd.grad(module.terms((images, labels), noise, module.steps_done)[0], parameters)

    logits, mean, log_variance = nets.encode(images, noise["dropout"])
    gaussian = mean + (log_variance / 2).exp() * noise["gaussian"].unsqueeze(-2)
    log_q = logits.squeeze(-2).log_softmax(-1)
    q, losses = log_q.exp(), []
    for value in range(10):
        code = one_hot(torch.full((2, images.shape[1], 1), value), 10).float()
        outputs = nets.decode(code, gaussian)
        losses.append(binary_cross_entropy_with_logits(outputs, images, reduction="none").sum(-1))
    divergences = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(-1)
    reconstruction = (q * torch.stack(losses, -1)).sum(-1)
    gaussian_kl = ((q.detach() if kind == "selected" else q) * divergences).sum(-1)
    discrete_kl = (q * (log_q - math.log(1 / 10))).sum(-1)
    label_loss = -2 * (log_q * labels.squeeze(-2)).sum(-1)
    rest = 0 if module.phase == "labelled" else 200
    first = rest or images.shape[1]
    total = (reconstruction + gaussian_kl + discrete_kl)[:, :first].mean(-1).sum()
    if overrides:
        total = total + (3 if rest else 1) * label_loss[:, rest:].mean(-1).sum()
    for one, other in zip(found, torch.autograd.grad(total, parameters), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


@pytest.mark.parametrize("loss_name", ["label", "augmented", "cross_entropy"])
@pytest.mark.parametrize("kind", ["selected", "candidate", "expected"])
def test_jointly_the_objective_has_theta_once_and_the_label_beside_it(
    loss_name: str, kind: str, tmp_path: Path
) -> None:
    """Equation 11: a step's objective is that of its unlabelled images plus a term that trains only the classifier."""
    module = started(tmp_path, *JOINT, f"supervision.loss={loss_name}", f"model.gaussian_kl={kind}")
    noise = module.draw()
    pixels, labels = module.inputs(torch.arange(200).unsqueeze(0), noise)
    nets = module.networks
    generative = [*nets.decoder.parameters(), *nets.rows.parameters(), *nets.component.parameters()]
    classifier = list(nets.discrete.parameters())

    def slopes(inputs: tuple[Tensor, Tensor], drawn: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        total = module.terms(inputs, drawn, module.steps_done)[0]
        found = torch.autograd.grad(total, [*generative, *classifier])
        return list(found[: len(generative)]), list(found[len(generative) :])

    both = slopes((pixels, labels), noise)
    module.phase = "unlabelled"
    unlabelled = {
        name: value[:, :, :200] if name == "uniform" else value[:, :200]
        for name, value in noise.items()
        if name != "labelled"
    }
    alone = slopes((pixels[:, :200], labels[:, :200]), unlabelled)
    for one, other in zip(both[0], alone[0], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert not all(torch.allclose(one, other) for one, other in zip(both[1], alone[1], strict=True))


@pytest.mark.parametrize("kl", ["analytic", "none", "concrete"])
def test_jointly_no_divergence_reaches_labelled_images(kl: str, tmp_path: Path) -> None:
    """With a label's loss of almost nothing, its weight changes no slope."""
    slopes = []
    for weight in (1e-6, 1e3):
        module = started(
            tmp_path,
            *(*JOINT, "estimator=gumbel_softmax", f"objective={kl}", "supervision.loss=cross_entropy"),
            *("supervision.weight=1e-12", f"supervision.labelled_weight={weight}"),
        )
        noise = module.draw()
        total = module.terms(module.inputs(torch.arange(200).unsqueeze(0), noise), noise, module.steps_done)[0]
        slopes.append(torch.autograd.grad(total, list(module.networks.discrete.parameters())))
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_labelled_images_that_are_seen_alone_have_no_weight(tmp_path: Path) -> None:
    """A weight there would only scale Adam's second moments, and so the steps of the phase behind."""
    slopes = []
    for weight in (1, 1000):
        module = started(tmp_path, *SEQUENTIAL_JOINT, f"supervision.labelled_weight={weight}")
        assert module.phase == "labelled"
        noise = module.draw()
        total = module.terms(module.inputs(torch.arange(200).unsqueeze(0), noise), noise, module.steps_done)[0]
        slopes.append(torch.autograd.grad(total, list(module.networks.discrete.parameters())))
    for one, other in zip(*slopes, strict=True):
        assert torch.equal(one, other)


def test_phases_see_the_images_they_name(tmp_path: Path) -> None:
    dataset = load_dataset("digits", Path())
    chosen = cell(
        tmp_path,
        *MIXTURE,
        *SEQUENTIAL,
        "trainer.epochs=4",
        "supervision.labelled_batch=30",
        "supervision.labelled_visits=6",
    )
    module = build.build(chosen.config, dataset)
    assert isinstance(module, MixtureVAE)
    assert [module.phase_of(epoch) for epoch in range(4)] == ["labelled", "labelled", "unlabelled", "unlabelled"]
    then_joint = build.build(cell(tmp_path, *MIXTURE, *SEQUENTIAL_JOINT).config, dataset)
    assert isinstance(then_joint, MixtureVAE)
    assert [then_joint.phase_of(epoch) for epoch in range(4)] == ["labelled", "labelled", "both", "both"]
    joint = started(tmp_path, *JOINT)
    pixels, labels = joint.inputs(torch.arange(200).unsqueeze(0), joint.draw())
    assert pixels.shape == (1, 240, 64)
    assert labels.shape == (1, 240, 1, 10)
    assert labels[:, :200].sum() == 0
    for image, label in zip(pixels[0, 200:], labels[0, 200:, 0], strict=True):
        twins = ((dataset.train.pixels >= 128).float() == image).all(-1)
        assert dataset.train.labels is not None
        assert int(label.argmax()) in dataset.train.labels[twins].tolist()


def test_sequential_joint_begins_as_sequential_does_and_then_sees_both(tmp_path: Path) -> None:
    """The losses of the labelled phase, at its ε, are those of sequential training; ε is the schedule's behind it."""
    chosen = (*MIXTURE, "estimator=direct", "supervision.labelled_value=0.5", "trainer.epochs=3")
    sequential = metrics(train(tmp_path / "sequential", *chosen, *SEQUENTIAL, "supervision.labelled_batch=50"))
    then_joint = metrics(train(tmp_path / "then_joint", *chosen, *SEQUENTIAL_JOINT))
    same = [name for name in sequential if name != "epsilon"]
    pd.testing.assert_frame_equal(sequential[same][:2], then_joint[same][:2])
    assert not sequential[same][2:].equals(then_joint[same][2:])
    assert then_joint["epsilon"].tolist()[:2] == [0.5, 0.5]
    assert then_joint["epsilon"].tolist()[2] != 0.5


@pytest.mark.parametrize(
    "choices",
    [
        ("estimator=direct", "supervision.loss=label"),
        ("estimator=exact", "supervision.loss=cross_entropy", "supervision.weight=1000"),
        ("estimator=gumbel_softmax", "supervision.loss=relaxed_cross_entropy", "supervision.weight=1000"),
    ],
)
def test_with_all_labels_the_classifier_learns(choices: tuple[str, ...], tmp_path: Path) -> None:
    """90 of the images of every class have a label, and the label outweighs everything."""
    run = train(
        tmp_path,
        *(*MIXTURE, *choices, "supervision=sequential", "supervision.labels=900", "supervision.labelled_visits=35"),
        *(
            "trainer.epochs=54",
            "trainer.evaluate_every=54",
            "optim.learning_rate=5e-3",
            "objective=none",
            "data.binarization=none",
        ),
    )
    assert seeds(run)["test_accuracy"].item() > 0.8


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_for_ten_components_trains(name: str, tmp_path: Path) -> None:
    chosen: tuple[str, ...] = (*MIXTURE, *JOINT, f"estimator={name}", "supervision.loss=cross_entropy")
    try:
        run = train(tmp_path, *chosen, "trainer.epochs=1")
    except UsageError as error:
        assert "binary" in str(error)
        return
    assert seeds(run)["status"].tolist() == ["done"]
    assert metrics(run)["validation_accuracy"].between(0, 1).all()


@pytest.mark.parametrize("select", ["accuracy", "perturbed_accuracy"])
def test_files_of_a_run(select: str, tmp_path: Path) -> None:
    run = train(tmp_path, *MIXTURE, *JOINT, f"supervision.select={select}", "trainer.epochs=3")
    row = seeds(run).iloc[0]
    assert (row["labels"], row["training"], row["labelled_epochs"], row["gaussian"]) == (50, "joint", 0, 4)
    best = metrics(run).set_index("epoch").loc[row["best_epoch"]]
    assert best[f"validation_{select}"] == metrics(run)[f"validation_{select}"].max()
    assert row["validation_accuracy"] == pytest.approx(best["validation_accuracy"])
    assert row["validation_bound"] == pytest.approx(best["validation_bound"])
    counts = pd.read_csv(run.path / "confusion.csv")
    assert counts["images"].sum() == 300
    right = counts[counts["class"] == counts["value"]]["images"].sum()
    assert right / 300 == pytest.approx(row["test_accuracy"])


def test_evaluate_and_gradients_of_a_run(tmp_path: Path) -> None:
    run = train(tmp_path, *MIXTURE, *JOINT, "trainer.epochs=1")
    table = evaluate_run(run.path, ["trainer.final_samples=1"]).set_index("split")
    assert table.loc["test", "accuracy"] == pytest.approx(seeds(run)["test_accuracy"].item())
    with pytest.raises(UsageError, match="not on model=mixture"):
        measure_gradients(str(run.path), [])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@TRAININGS
def test_a_captured_graph_equals_step_by_step(overrides: tuple[str, ...], tmp_path: Path) -> None:
    """A run with two phases captures a second graph when its phase changes. 1e-3 nats of 45 at the end."""
    chosen = (*MIXTURE, *overrides, "trainer.epochs=3", "runtime.device=cuda", "seeds=[0,1]")
    captured, eager = (
        train(tmp_path / graph, *chosen, f"runtime.graph={graph}", "runtime.compile=false")
        for graph in ("true", "false")
    )
    assert seeds(captured)["path"].str.contains("captured as a CUDA graph").all()
    numbers = ["epoch", "seed", "validation_bound", "validation_accuracy"]
    pd.testing.assert_frame_equal(metrics(captured)[numbers], metrics(eager)[numbers], rtol=0, atol=1e-2)


def test_clustering_accuracy_names_values_in_the_best_way() -> None:
    counts = torch.tensor([[0, 9, 1], [8, 0, 2], [0, 0, 10]]).numpy()
    assert clustering_accuracy(counts) == pytest.approx(27 / 30)
