"""The Lightning module of the mixture of discrete and Gaussian latents, with or without labels, S seeds at once."""

import math
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from argmax_vae.config.schema import TrainerConfig
from argmax_vae.data.binarization import prepare, prepare_for_evaluation, rows_at
from argmax_vae.data.images import Dataset
from argmax_vae.errors import UsageError
from argmax_vae.estimators.base import CodeLoss
from argmax_vae.latents import normal_from_uniform
from argmax_vae.models.discrete import ModelConfig
from argmax_vae.models.mixture import (
    IN_THETA,
    GaussianMixtureConfig,
    GaussianMixtureNetworks,
    MixtureConfig,
    MixtureNetworks,
    MixtureReconstruction,
)
from argmax_vae.objective.bounds import Evaluation, mixture_bound_sums
from argmax_vae.objective.labels import (
    BOTH_IN_A_STEP,
    CROSS_ENTROPIES,
    Leading,
    Passes,
    SupervisionConfig,
    cross_entropy,
    labelled_config,
    labelled_images,
    labelled_source,
    labelled_subset,
    supervised,
    take_labelled,
    with_replacement,
)
from argmax_vae.objective.terms import training_terms
from argmax_vae.randomness import NoiseSource, SeedNoise
from argmax_vae.training.steps import Noise
from argmax_vae.training.vae import DiscreteVAE


class MixtureVAE(DiscreteVAE):
    """S mixtures of k Gaussians, one per seed; the labels z of some images take part as `supervision` says.

    In a step, labelled images follow the others in the batch. `phase` says which of the two the step has.
    """

    purposes = (*DiscreteVAE.purposes, "gaussian", "dropout", "supervision")
    labelled_pixels: Tensor
    labelled_classes: Tensor
    labelled_order: Tensor
    epoch_start: Tensor

    def __init__(
        self,
        dataset: Dataset,
        supervision: SupervisionConfig,
        model: GaussianMixtureConfig,
        seeds: list[int],
        **others: Any,
    ) -> None:
        self.supervision, self.mixture = supervision, model
        super().__init__(dataset, model=model, seeds=seeds, **others)
        self.labels = {
            split: images.labels for split, images in (("validation", dataset.validation), ("test", dataset.test))
        }
        self.classes = self.number_of_classes(dataset)
        self.counts: dict[str, list[Tensor]] = {}
        self.phase = "unlabelled"
        steps_per_epoch = len(dataset.train.pixels) // self.trainer_config.batch
        self.labelled_epochs = supervision.labelled_epochs(steps_per_epoch)
        self.labelled_steps = supervision.labelled_steps(steps_per_epoch)
        self.passes = Passes(seeds, supervision.labels, supervision.batch)
        self.later_config = self.estimator.config
        self.labelled_config = labelled_config(self.estimator, supervision)
        pixels, classes = labelled_images(dataset, supervision, model.k, seeds)
        self.register_buffer("labelled_pixels", pixels, persistent=False)
        self.register_buffer("labelled_classes", classes, persistent=False)
        if supervision.sampling == "without_replacement":
            order = torch.zeros(steps_per_epoch, len(seeds), supervision.batch, dtype=torch.int64)
            self.register_buffer("labelled_order", order, persistent=False)
            self.register_buffer("epoch_start", torch.zeros((), dtype=torch.int64), persistent=False)

    def make_networks(self, dataset: Dataset, model: ModelConfig) -> Any:
        m = cast(MixtureConfig, self.mixture)
        return MixtureNetworks(
            dataset.train.pixels.shape[1],
            m.k,
            m.gaussian,
            m.hidden,
            m.discrete_hidden,
            m.row,
            m.component_hidden,
            m.decoder_hidden,
            m.activation,
            m.decoder_activation,
            m.dropout,
            self.seeds,
            m.negative_slope,
            m.component_negative_slope,
            m.component_bias,
        )

    def number_of_classes(self, dataset: Dataset) -> int:
        """How many classes the labels of all splits have, 0 without labels."""
        splits = (dataset.train, dataset.validation, dataset.test)
        return 1 + max((int(split.labels.max()) for split in splits if split.labels is not None), default=-1)

    def phase_of(self, epoch: int) -> str:
        """Which images the steps of an epoch see: labelled, unlabelled or both."""
        if epoch < self.labelled_epochs:
            return "labelled"
        return "both" if self.supervision.training in BOTH_IN_A_STEP else "unlabelled"

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        phase = self.phase_of(self.current_epoch)
        if phase != self.phase:
            self.phase = phase
            self.estimator.config = self.labelled_config if phase == "labelled" else self.later_config
            self.compiled_terms.expect_new_shapes()
            self.prepare_steps(self.optimizer)
            super().on_train_epoch_start()
        if self.phase != "unlabelled" and self.supervision.sampling == "without_replacement":
            start = int(self.steps_done)
            self.epoch_start.fill_(start)
            order = [self.passes.of_step(start + step) for step in range(len(self.labelled_order))]
            self.labelled_order.copy_(torch.stack(order))

    def draw(self) -> Noise:
        seeds, k = len(self.seeds), self.mixture.k
        unlabelled = 0 if self.phase == "labelled" else self.trainer_config.batch
        labelled = 0 if self.phase == "unlabelled" else self.supervision.batch
        whole = [size for size in (unlabelled, labelled) if size]
        batch = sum(whole) // self.share.count

        def source(purpose: str) -> NoiseSource:
            return self.share.noise(self.noise.of_step(purpose), *whole)

        noise = self.estimator.noise((seeds, batch, 1, k), source("noise"))
        components = () if self.mixture.gaussian_noise == "shared" else (k,)
        gaussian = source("gaussian").uniform((seeds, batch, *components, self.mixture.gaussian))
        noise["gaussian"] = normal_from_uniform(gaussian)
        if self.mixture.dropout and self.mixture.component_hidden:
            width = self.mixture.component_hidden[-1]
            noise["dropout"] = source("dropout").uniform((seeds, batch, k, width))
        if labelled:
            noise["labelled"] = self.draw_labelled(labelled)
        if self.binarization == "dynamic":
            noise["pixels"] = source("binarization").uniform((seeds, batch, self.train_pixels.shape[1]))
        return noise

    def draw_labelled(self, batch: int) -> Int64[Tensor, "seeds batch"]:
        """Which labelled images this process sees in the step, of those of the whole batch."""
        if self.supervision.sampling == "without_replacement":
            place = (self.steps_done - self.epoch_start) % len(self.labelled_order)
            return self.labelled_order.index_select(0, place.reshape(1)).squeeze(0)[:, self.share.rows(batch)]
        drawn = self.share.noise(self.noise.of_step("supervision"), batch)
        uniform = drawn.uniform((len(self.seeds), batch // self.share.count))
        return with_replacement(uniform, self.supervision.labels)

    def inputs(self, indices: Int64[Tensor, "seeds batch"], noise: Noise) -> tuple[Tensor, ...]:
        """Images, the labelled ones last, and their labels (seeds, batch, 1, k), one-hot or all zeros."""
        parts, labels = [], []
        uniform = noise.get("pixels")
        if self.phase != "labelled":
            first = None if uniform is None else uniform[:, : indices.shape[1]]
            parts.append(prepare(rows_at(self.train_pixels, indices), self.binarization, first))
            labels.append(torch.zeros(*indices.shape, self.mixture.k, device=parts[0].device))
        if self.phase != "unlabelled":
            pixels, classes = take_labelled(self.labelled_pixels, self.labelled_classes, noise["labelled"])
            last = None if uniform is None else uniform[:, -pixels.shape[1] :]
            how = self.binarization if self.supervision.binarize else "none"
            parts.append(prepare(pixels, how, last))
            labels.append(F.one_hot(classes, self.mixture.k).to(parts[-1].dtype))
        return torch.cat(parts, 1), torch.cat(labels, 1).unsqueeze(-2)

    def terms(
        self, inputs: tuple[Tensor, ...], noise: Noise, steps_done: Int64[Tensor, ""]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "seeds"], Float[Tensor, "seeds batch"], dict[str, Tensor]]:
        """As in DiscreteVAE. The bound is that of the unlabelled images where there are any; while labelled ones are
        seen alone it contains the loss ℓ that `augmented` adds.
        """
        images, labels = inputs
        networks = cast(GaussianMixtureNetworks, self.networks)
        kind, first = self.mixture.gaussian_kl, self.with_theta(images.shape[1])
        logits, mean, log_variance = networks.encode(images, noise.get("dropout"))
        reconstruction = MixtureReconstruction(
            networks, images[:, :first], mean[:, :first], log_variance[:, :first], noise["gaussian"][:, :first], kind
        )
        loss: CodeLoss = reconstruction
        if self.phase == "both":
            loss = Leading(reconstruction, first, images.shape[1] - first)
        if self.phase != "unlabelled":
            loss = supervised(self.supervision, loss, labels)
        if self.supervision.schedule_starts == "after_labels":
            steps_done = (steps_done - self.labelled_steps).clamp_min(0)
        terms = training_terms(self.objective_config, self.estimator, logits, loss, noise, steps_done)
        values, bound = terms.objective, (terms.reconstruction + terms.kl)[:, :first]
        divergence = (logits[:, :first].softmax(-1).squeeze(-2) * reconstruction.divergences).sum(-1)
        if kind not in IN_THETA:
            bound = bound + divergence.detach()
        total = values[:, :first].mean(-1).sum()
        if kind == "expected":
            total = total + divergence.mean(-1).sum()
        if self.phase != "unlabelled":
            extra = cross_entropy(self.supervision, terms.estimate, logits, labels)
        if self.phase == "labelled":
            total = total + extra.mean(-1).sum()
        if self.phase == "both":
            behind = extra if self.supervision.loss in CROSS_ENTROPIES else terms.estimate.objective
            total = total + self.supervision.labelled_weight * behind[:, first:].mean(-1).sum()
        return total, bound.mean(-1), terms.estimate.seen, terms.estimate.metrics

    def training_step(self, block: Int64[Tensor, "steps seeds batch"], batch_index: int) -> None:
        """As in DiscreteVAE, but no more steps on labelled images alone than `supervision` says."""
        if self.phase == "labelled":
            block = block[: max(0, self.labelled_steps - int(self.steps_done))]
        if len(block):
            super().training_step(block, batch_index)

    def with_theta(self, batch: int) -> int:
        """How many images of a batch, from the first on, take part with θ and KL, and not with their label alone."""
        return self.trainer_config.batch // self.share.count if self.phase == "both" else batch

    def may_keep(self) -> bool:
        return self.phase_of(self.current_epoch) != "labelled"

    def score(self, validation: Evaluation) -> Float[Tensor, "seeds"]:
        if self.supervision.select == "bound":
            return validation.bound
        accuracy, perturbed = self.accuracies("validation")
        return -(accuracy if self.supervision.select == "accuracy" else perturbed)

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.counts = {}

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        self.counts = {}

    def evaluate_chunk(
        self, networks: Any, split: str, indices: Tensor, samples: int, noise: SeedNoise, importance: int = 0
    ) -> None:
        pixels = getattr(self, f"{split}_pixels")[indices]
        images = prepare_for_evaluation(pixels, self.binarization).expand(len(self.seeds), -1, -1)
        labels = self.labels[split]
        chosen = None if labels is None else labels[indices.cpu()].to(pixels.device)
        sums, counts = mixture_bound_sums(networks, images, chosen, self.classes, samples, noise)
        self.chunks.setdefault(split, []).append(sums)
        if counts is not None:
            self.counts.setdefault(split, []).append(counts)

    def confusion(self, split: str) -> Float[Tensor, "2 seeds classes k"]:
        """Images of each class by the value that the arg max, and one perturbed arg max, gives them."""
        return torch.stack(self.counts[split]).sum(0).double().cpu()

    def accuracies(self, split: str) -> Float[Tensor, "2 seeds"]:
        """Shares of images whose arg max, and perturbed arg max, is their class."""
        counts = self.confusion(split)
        return counts.diagonal(dim1=-2, dim2=-1).sum(-1) / counts.sum((-2, -1))

    def more_metrics(self, split: str, index: int) -> dict[str, float]:
        if split not in self.counts:
            return {}
        accuracy, perturbed = self.accuracies(split)[:, index].tolist()
        clustering = clustering_accuracy(self.confusion(split)[0, index].numpy())
        return {
            f"{split}_accuracy": accuracy,
            f"{split}_perturbed_accuracy": perturbed,
            f"{split}_clustering_accuracy": clustering,
        }

    def confusion_rows(self) -> list[dict[str, Any]]:
        if "test" not in self.counts:
            return []
        counts = self.confusion("test")[0].long()
        return [
            {"seed": seed, "class": label, "value": value, "images": int(images)}
            for index, seed in enumerate(self.seeds)
            for label, row in enumerate(counts[index])
            for value, images in enumerate(row)
        ]

    def final_columns(self, index: int) -> dict[str, Any]:
        diverged = int(self.diverged_epoch[index]) >= 0 or int(self.best_epoch[index]) < 0
        (best,) = [
            row
            for row in self.history
            if row["seed"] == self.seeds[index] and row["epoch"] == int(self.best_epoch[index])
        ] or [{}]
        kept = {name: value for name, value in best.items() if name.startswith("validation_") and "accuracy" in name}
        return {
            "labels": self.supervision.labels,
            "training": self.supervision.training,
            "labelled_epochs": self.labelled_epochs,
            "gaussian": self.mixture.gaussian,
            **kept,
            **{name: math.nan if diverged else value for name, value in self.more_metrics("test", index).items()},
        }


def check_labels(
    dataset: Dataset,
    supervision: SupervisionConfig,
    model: GaussianMixtureConfig,
    trainer: TrainerConfig,
    seeds: list[int],
) -> None:
    """Raise UsageError when the data set cannot give the labels, or there are too few epochs to see them first."""
    if supervision.training == "none":
        return
    _, classes = labelled_source(dataset, supervision)
    for seed in seeds:
        labelled_subset(classes, supervision.labels, model.k, seed, supervision.labelled_classes)
    epochs = supervision.labelled_epochs(len(dataset.train.pixels) // trainer.batch)
    if epochs >= trainer.epochs:
        raise UsageError(
            f"trainer.epochs={trainer.epochs} must be more than the {epochs} epochs that "
            f"supervision.labelled_visits={supervision.labelled_visits} of {supervision.labels} images take"
        )


def clustering_accuracy(counts: np.ndarray) -> float:
    """Share of images in their class when values of z are named after classes in the best way (Hungarian method)."""
    rows, columns = linear_sum_assignment(-counts)
    return float(counts[rows, columns].sum() / counts.sum())
