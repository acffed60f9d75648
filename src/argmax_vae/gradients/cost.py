"""What an estimate costs: decoder evaluations per image."""

import torch
from jaxtyping import Float
from torch import Tensor

from argmax_vae.estimators import ESTIMATORS
from argmax_vae.estimators.base import CodeLoss, EstimatorConfig
from argmax_vae.models.discrete import Perceptrons
from argmax_vae.models.reconstruction import Reconstruction
from argmax_vae.objective.terms import ObjectiveConfig, training_terms
from argmax_vae.randomness import SeedNoise

STEP = 0


class CountingLoss:
    """A loss that counts the decoder evaluations per image that it is asked for.

    What is asked for, not what is computed: for n = 1 and in an enumeration the same codes serve all images, and a
    linear decoder needs no evaluation for a candidate.
    """

    def __init__(self, loss: CodeLoss, images: int) -> None:
        self.loss = loss
        self.images = images
        self.evaluations = 0.0

    def __call__(self, codes: Float[Tensor, "*rows n k"]) -> Float[Tensor, "*rows"]:
        self.evaluations += codes.shape[:-2].numel() / self.images
        return self.loss(codes)

    def with_candidates(
        self, codes: Float[Tensor, "*rows n k"]
    ) -> tuple[Float[Tensor, "*rows"], Float[Tensor, "*rows n k"]]:
        n, k = codes.shape[-2:]
        self.evaluations += codes.shape[:-2].numel() / self.images * (1 + n * (k - 1))
        return self.loss.with_candidates(codes)

    def shared(self, codes: Float[Tensor, "codes n k"]) -> Float[Tensor, "*leading codes"]:
        self.evaluations += len(codes)
        return self.loss.shared(codes)


def decoder_evaluations(config: EstimatorConfig, n: int, k: int, objective: ObjectiveConfig | None = None) -> float:
    """Decoder evaluations per image that one estimate for latents n × k asks for, by default of the ELBO's gradient."""
    networks = Perceptrons(1, n, k, [], [0])
    counting = CountingLoss(Reconstruction(networks, torch.zeros(1, 1, 1)), 1)
    estimator = ESTIMATORS[config.name](config).prepare(n, k, [0])
    logits = torch.zeros(1, 1, n, k, requires_grad=True)
    noise = estimator.noise((1, 1, n, k), SeedNoise([0], "cpu").restart(0, "noise"))
    training_terms(objective or ObjectiveConfig(), estimator, logits, counting, noise, torch.tensor(STEP))
    return counting.evaluations
