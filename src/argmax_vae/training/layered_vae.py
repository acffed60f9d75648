"""The Lightning module of several layers of discrete variables."""

from typing import cast

from jaxtyping import Float, Int64
from torch import Tensor

from argmax_vae.models.layered import LayeredNetworks
from argmax_vae.models.reconstruction import Reconstruction
from argmax_vae.objective.bounds import BoundSums
from argmax_vae.objective.layered import Chain, LayeredLoss, layered_bound_sums, log_prior_of
from argmax_vae.objective.terms import training_terms
from argmax_vae.randomness import SeedNoise
from argmax_vae.training.steps import Noise
from argmax_vae.training.vae import DiscreteVAE


class LayeredVAE(DiscreteVAE):
    """S layered models; the estimator is a `Chain` with one of a kind for each layer."""

    def terms(
        self, inputs: tuple[Tensor, ...], noise: Noise, steps_done: Int64[Tensor, ""]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "seeds"], Float[Tensor, "seeds batch"], dict[str, Tensor]]:
        (images,) = inputs
        networks, chain = cast(LayeredNetworks, self.networks), cast(Chain, self.estimator)
        logits = networks.encode(images)
        own = Reconstruction(networks, images)
        loss = LayeredLoss(own, 0, networks, chain, self.objective_config, noise, steps_done)
        prior = log_prior_of(networks, 0, logits)
        terms = training_terms(self.objective_config, chain, logits, loss, noise, steps_done, prior)
        bound = (terms.reconstruction + terms.kl).mean(-1)
        return terms.objective.mean(-1).sum(), bound, terms.estimate.seen, terms.estimate.metrics

    def bound_sums(
        self,
        networks: LayeredNetworks,
        images: Float[Tensor, "seeds batch pixels"],
        samples: int,
        noise: SeedNoise,
        importance: int,
    ) -> BoundSums:
        return layered_bound_sums(networks, images, samples, noise, importance)
