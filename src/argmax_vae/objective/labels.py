"""What labels do to training: which images have one, and the loss ℓ(z, z_{φ+γ}) that they add (Equation 11)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from argmax_vae.data.binarization import rows_at
from argmax_vae.data.images import Dataset, Images
from argmax_vae.errors import (
    POSITIVE,
    UsageError,
    is_positive,
    require,
    require_count,
    require_one_of,
    require_positive,
)
from argmax_vae.estimators.base import CodeLoss, Estimate, Estimator, EstimatorConfig
from argmax_vae.estimators.schedules import Constant, Schedule
from argmax_vae.randomness import generator_for

TRAININGS = ("none", "sequential", "joint", "sequential_joint")
LABELS_FIRST = ("sequential", "sequential_joint")
BOTH_IN_A_STEP = ("joint", "sequential_joint")
WITH_LABELS = "joint, sequential or sequential_joint"
LOSSES = ("label", "augmented", "cross_entropy", "relaxed_cross_entropy")
CROSS_ENTROPIES = ("cross_entropy", "relaxed_cross_entropy")
SOURCES = ("train", "train_and_validation")
SELECTIONS = ("bound", "accuracy", "perturbed_accuracy")
SAMPLINGS = ("with_replacement", "without_replacement")
LABELLED_CLASSES = ("balanced", "stratified")
SCHEDULE_STARTS = ("with_training", "after_labels")
CERTAIN = 1e9
"""A loss beside which every other is nothing."""


@dataclass
class SupervisionConfig:
    """How labels take part in training.

    `training`: none; `sequential`, the labelled images alone until each was seen `labelled_visits` times, and none of
    them afterwards, as the paper's code does; `joint`, `labelled_batch` labelled images in every step beside the others
    (Equation 11); or `sequential_joint`, the first phase of sequential and then joint.
    `sampling`: how the labelled images of a step are drawn. `with_replacement`: alone they are seen `labelled_visits`
    times on average, rounded up to whole epochs; `without_replacement`: in exactly so many passes, each in an order of
    its own, as in the paper's code, and the last epoch of labelled images is as short as the passes leave it.
    `labels`: how many images have a label, drawn per seed from `source`: the images trained with, or with sequential
    training the validation images too, as in the paper's code.
    `labelled_classes`: of which classes these are. `balanced`, the same number of every class; or `stratified`, each
    class with its share of the images, so that labels of rare classes are rare.
    `loss`: what a label y adds for its image.
        `label`: the perturbed arg max of direct optimization is the label itself (section 6.1), as if ℓ were infinite;
        `augmented`: θ(z) + `weight`·[z ≠ y], by any estimator;
        `cross_entropy`: −`weight`·log q(y), by any estimator;
        `relaxed_cross_entropy`: that of the relaxed sample in place of q, for Gumbel-Softmax, as in the paper's code.
    `labelled_weight`: weight of the labelled images' mean loss ℓ beside the others' objective in a step: ℓ alone,
    since Equation 11 has θ and KL once for every image, labelled or not (a folded KL stays with `label` and
    `augmented`, whose estimate it is a part of). Without effect where labelled images are seen alone.
    `labelled_value`: ε or τ while labelled images are seen alone; 0 for that of the estimator's schedule.
    `schedule_starts`: whether the schedule of ε or τ counts all steps, `with_training`, or `after_labels`, those behind
    the labelled images that are seen alone, during which it stays where it starts.
    `binarize`: whether labelled images are made binary like the rest; the paper's code does not.
    `select`: by what on validation images the networks kept are the best: `bound`, `accuracy` of the arg max of the
    logits, or `perturbed_accuracy` of one perturbed arg max, by which the paper counts; at a high τ the two differ.
    """

    training: str = "none"
    labels: int = 0
    source: str = "train"
    loss: str = "label"
    weight: float = 1.0
    labelled_weight: float = 1.0
    labelled_classes: str = "balanced"
    labelled_batch: int = 100
    labelled_visits: int = 1500
    labelled_value: float = 0.0
    schedule_starts: str = "with_training"
    sampling: str = "with_replacement"
    binarize: bool = True
    select: str = "bound"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("training", TRAININGS),
            ("loss", LOSSES),
            ("source", SOURCES),
            ("select", SELECTIONS),
            ("sampling", SAMPLINGS),
            ("labelled_classes", LABELLED_CLASSES),
            ("schedule_starts", SCHEDULE_STARTS),
        ):
            require_one_of(f"supervision.{name}", getattr(self, name), allowed)
        for name in ("weight", "labelled_weight"):
            require_positive(f"supervision.{name}", getattr(self, name))
        for name, smallest in (("labels", 0), ("labelled_batch", 1), ("labelled_visits", 1)):
            require_count(f"supervision.{name}", getattr(self, name), smallest)
        value = self.labelled_value
        require(value == 0 or is_positive(value), "supervision.labelled_value", value, f"0, or {POSITIVE}")
        if (self.labels > 0) != (self.training != "none"):
            raise UsageError(
                f"supervision.labels={self.labels} does not fit supervision.training={self.training}: "
                f"labels need supervision={WITH_LABELS}, and these need labels"
            )
        if self.sampling == "without_replacement" and self.training != "none" and self.labels % self.batch:
            raise UsageError(
                f"supervision.labelled_batch={self.labelled_batch} must be a divisor of supervision.labels="
                f"{self.labels} with supervision.sampling=without_replacement"
            )
        if self.schedule_starts == "after_labels" and self.training not in ("none", *LABELS_FIRST):
            raise UsageError(
                f"supervision.schedule_starts=after_labels needs supervision={' or '.join(LABELS_FIRST)}, "
                f"not {self.training}"
            )

    @property
    def batch(self) -> int:
        """Labelled images in a step: as many as there are, if they are few."""
        return min(self.labelled_batch, self.labels)

    def labelled_epochs(self, steps_per_epoch: int) -> int:
        """Epochs in which the labelled images are seen alone."""
        if self.training not in LABELS_FIRST:
            return 0
        return math.ceil(self.labelled_visits * self.labels / self.batch / steps_per_epoch)

    def labelled_steps(self, steps_per_epoch: int) -> int:
        """Steps in which the labelled images are seen alone."""
        if self.sampling == "with_replacement" or self.training not in LABELS_FIRST:
            return self.labelled_epochs(steps_per_epoch) * steps_per_epoch
        return self.labelled_visits * self.labels // self.batch

    def validate(self, estimator: EstimatorConfig, model: str, k: int, mixture: bool) -> None:
        """Raise UsageError when these choices do not fit the estimator or the model."""
        if self.training == "none":
            if self.select != "bound":
                raise UsageError(f"supervision.select={self.select} needs labels: supervision={WITH_LABELS}")
            return
        if not mixture:
            raise UsageError(
                f"supervision.training={self.training} needs model=mixture or attributes, not model.name={model}"
            )
        if self.labelled_classes == "balanced" and self.labels % k:
            raise UsageError(
                f"supervision.labels={self.labels} must be divisible by the {k} classes (model.latents), or "
                "supervision.labelled_classes be stratified"
            )
        direct = estimator.name in ("direct", "direct_rao_blackwell")
        if self.loss == "label" and not (direct and estimator.direction == "toward"):  # type: ignore[attr-defined]
            raise UsageError(
                "supervision.loss=label needs estimator=direct with direction=toward; "
                "use cross_entropy or augmented with others"
            )
        if self.loss == "relaxed_cross_entropy" and estimator.name != "gumbel_softmax":
            raise UsageError("supervision.loss=relaxed_cross_entropy needs estimator=gumbel_softmax; use cross_entropy")
        schedules = [value for value in vars(estimator).values() if isinstance(value, Schedule)]
        if self.labelled_value and not (schedules and self.training in LABELS_FIRST):
            raise UsageError(
                f"supervision.labelled_value={self.labelled_value} needs an estimator with ε or τ and "
                f"supervision={' or '.join(LABELS_FIRST)}, not estimator={estimator.name} and {self.training}"
            )
        if self.training in BOTH_IN_A_STEP and self.source != "train":
            raise UsageError(
                f"supervision.source={self.source} needs supervision=sequential: in {self.training} training every "
                "labelled image is also one of those without, which validation images must not be"
            )
        if self.training in BOTH_IN_A_STEP and getattr(estimator, "baseline", "") == "moving_average":
            raise UsageError(
                f"estimator.baseline=moving_average does not fit supervision={self.training}, where labelled images "
                "have other losses than the rest; use leave_one_out or none"
            )


def labelled_quotas(members: Int64[Tensor, "k"], number: int, labelled_classes: str) -> list[int]:
    """How many of `number` labelled images are of each class, whose images are counted in `members`.

    `stratified`: the quotas of the largest remainders, so that each is less than one image off its class's share.
    """
    if labelled_classes == "balanced":
        return [number // len(members)] * len(members)
    shares = number * members.double() / members.sum()
    quotas = shares.floor().long()
    largest = (shares - quotas).argsort(descending=True, stable=True)[: number - int(quotas.sum())]
    quotas[largest] += 1
    return quotas.tolist()


def labelled_subset(
    labels: Int64[Tensor, "images"], number: int, k: int, seed: int, labelled_classes: str = "balanced"
) -> Int64[Tensor, "labelled"]:
    """Indices of `number` images of the k classes, as many of each as `labelled_quotas`, from the stream of the seed.

    Raises UsageError when a class has too few images, or there are other classes.
    """
    classes = int(labels.max()) + 1
    if classes != k:
        raise UsageError(f"model.latents has k = {k}, the data set has {classes} classes: they must be equal")
    generator = generator_for(seed, 0, "labels")
    chosen = []
    for value, quota in enumerate(labelled_quotas(labels.bincount(minlength=k), number, labelled_classes)):
        members = (labels == value).nonzero().squeeze(-1)
        if quota > len(members):
            raise UsageError(
                f"supervision.labels={number}: class {value} has {len(members)} images, not {quota}; use fewer"
            )
        chosen.append(members[torch.randperm(len(members), generator=generator)[:quota]])
    return torch.cat(chosen)


class Leading:
    """θ of the first images of a batch, which are all that `loss` knows, and zero for the others behind them."""

    def __init__(self, loss: CodeLoss, number: int, behind: int) -> None:
        self.loss, self.number, self.behind = loss, number, behind

    def __call__(self, codes: Float[Tensor, "*rows n k"]) -> Float[Tensor, "*rows"]:
        return F.pad(self.loss(codes[..., : self.number, :, :]), (0, self.behind))

    def with_candidates(
        self, codes: Float[Tensor, "*rows n k"]
    ) -> tuple[Float[Tensor, "*rows"], Float[Tensor, "*rows n k"]]:
        loss, changed = self.loss.with_candidates(codes[..., : self.number, :, :])
        return F.pad(loss, (0, self.behind)), F.pad(changed, (0, 0, 0, 0, 0, self.behind))

    def shared(self, codes: Float[Tensor, "codes n k"]) -> Float[Tensor, "*leading codes"]:
        return F.pad(self.loss.shared(codes), (0, 0, 0, self.behind))


class Supervised:
    """θ with the label's loss ℓ for the images that have one; for n = 1.

    `penalties` is weight·[j ≠ y] for labelled images and 0 for others. With `only_candidates` it reaches only the
    losses that the perturbed arg max compares, which then chooses the label.
    """

    def __init__(self, loss: CodeLoss, penalties: Float[Tensor, "*leading 1 k"], only_candidates: bool) -> None:
        self.loss, self.penalties, self.only_candidates = loss, penalties, only_candidates

    def added(self, codes: Float[Tensor, "*rows 1 k"]) -> Float[Tensor, "*rows"] | float:
        return 0.0 if self.only_candidates else (self.penalties * codes).sum((-2, -1))

    def __call__(self, codes: Float[Tensor, "*rows 1 k"]) -> Float[Tensor, "*rows"]:
        return self.loss(codes) + self.added(codes)

    def with_candidates(
        self, codes: Float[Tensor, "*rows 1 k"]
    ) -> tuple[Float[Tensor, "*rows"], Float[Tensor, "*rows 1 k"]]:
        loss, changed = self.loss.with_candidates(codes)
        return loss + self.added(codes), changed + self.penalties

    def shared(self, codes: Float[Tensor, "codes 1 k"]) -> Float[Tensor, "*leading codes"]:
        return self.loss.shared(codes) + torch.einsum("...ij,cij->...c", self.penalties, codes)


def supervised(config: SupervisionConfig, loss: CodeLoss, labels: Float[Tensor, "*leading 1 k"]) -> CodeLoss:
    """θ as the estimator sees it; `labels` are one-hot, or all zeros for images without one."""
    if config.loss not in ("label", "augmented"):
        return loss
    has_label = labels.sum(-1, keepdim=True)
    size = CERTAIN if config.loss == "label" else config.weight
    return Supervised(loss, size * (has_label - labels), config.loss == "label")


def cross_entropy(
    config: SupervisionConfig,
    estimate: Estimate,
    logits: Float[Tensor, "*leading 1 k"],
    labels: Float[Tensor, "*leading 1 k"],
) -> Float[Tensor, "*leading"]:
    """The weighted cross-entropy of q or of the relaxed sample, in nats; 0 for images without a label."""
    if config.loss == "cross_entropy":
        return -config.weight * (logits.log_softmax(-1) * labels).sum((-2, -1))
    if config.loss == "relaxed_cross_entropy":
        assert estimate.relaxed_log_codes is not None
        return -config.weight * (estimate.relaxed_log_codes.mean(0) * labels).sum((-2, -1))
    return torch.zeros_like(estimate.loss)


def with_replacement(uniform: Float[Tensor, "seeds batch"], labelled: int) -> Int64[Tensor, "seeds batch"]:
    """Positions among the labelled images, from uniform numbers on [0, 1)."""
    return (uniform * labelled).long().clamp_max(labelled - 1)


class Passes:
    """Positions among the labelled images, drawn without replacement: a pass sees each once, in an order of its own.

    The order of a pass of seed s is from the stream of s in which the number of the pass takes the place of an epoch's.
    """

    def __init__(self, seeds: Sequence[int], labelled: int, batch: int) -> None:
        self.seeds, self.labelled, self.batch = seeds, labelled, batch
        self.number = -1

    def of_step(self, step: int) -> Int64[Tensor, "seeds batch"]:
        """Those of a step, counted among the steps with labelled images."""
        number, place = divmod(step, self.labelled // self.batch)
        if number != self.number:
            generators = [generator_for(seed, number, "passes") for seed in self.seeds]
            self.orders = torch.stack([torch.randperm(self.labelled, generator=generator) for generator in generators])
            self.number = number
        return self.orders[:, place * self.batch : (place + 1) * self.batch]


def take_labelled(
    pixels: UInt8[Tensor, "seeds labelled pixels"],
    classes: Int64[Tensor, "seeds labelled"],
    chosen: Int64[Tensor, "seeds batch"],
) -> tuple[UInt8[Tensor, "seeds batch pixels"], Int64[Tensor, "seeds batch"]]:
    """The labelled images at these positions and their classes."""
    first = torch.arange(len(classes), device=classes.device).unsqueeze(1) * classes.shape[1]
    return rows_at(pixels.flatten(0, 1), first + chosen), classes.gather(1, chosen)


def labelled_config(estimator: Estimator, supervision: SupervisionConfig) -> EstimatorConfig:
    """The estimator's configuration while labelled images are seen alone."""
    config: EstimatorConfig = estimator.config
    if not supervision.labelled_value:
        return config
    value = Constant(value=supervision.labelled_value)
    names = [inner.name for inner in fields(config) if isinstance(getattr(config, inner.name), Schedule)]
    changes: dict[str, Any] = dict.fromkeys(names, value)
    return replace(config, **changes)


def labelled_source(dataset: Dataset, supervision: SupervisionConfig) -> tuple[list[Images], Int64[Tensor, "images"]]:
    """The splits that labelled images are drawn from, and their classes, one split after the other.

    Raises UsageError for a data set without labels.
    """
    splits = [dataset.train]
    if supervision.source == "train_and_validation":
        splits.append(dataset.validation)
    classes = [split.labels for split in splits if split.labels is not None]
    if len(classes) < len(splits):
        raise UsageError(f"data.name={dataset.name} has no labels, which supervision={supervision.training} needs")
    return splits, torch.cat(classes)


def labelled_images(
    dataset: Dataset, supervision: SupervisionConfig, k: int, seeds: list[int]
) -> tuple[UInt8[Tensor, "seeds labelled pixels"], Int64[Tensor, "seeds labelled"]]:
    """The labelled images of every seed and their classes; none without supervision. Raises UsageError."""
    if supervision.training == "none":
        nothing = torch.zeros(len(seeds), 0, dtype=torch.int64)
        return dataset.train.pixels[:0].expand(len(seeds), -1, -1), nothing
    splits, classes = labelled_source(dataset, supervision)
    chosen = torch.stack(
        [labelled_subset(classes, supervision.labels, k, seed, supervision.labelled_classes) for seed in seeds]
    )
    first = len(splits[0].pixels)
    pixels = splits[0].pixels[chosen.clamp_max(first - 1)]
    if len(splits) > 1:
        later = chosen >= first
        pixels[later] = splits[1].pixels[chosen[later] - first]
    return pixels, classes[chosen]
