"""The gradient laboratory: bias, spread and cost of every estimator's gradient at fixed parameters.

The gradient measured is that of E_q[θ(z)] on a fixed batch, with respect to the logits of every image and, averaged
over the batch, to the weights of the encoder; the KL term has no noise and is left out. With estimates g_1 … g_R, their
mean m, and the exact gradient e, over coordinates c:

    bias                 mean_c |m_c − e_c|
    standard deviation   mean_c std_r(g_rc)
    mean-squared error   mean_r ‖g_r − e‖²  =  squared bias + variance + squared error of e, divided by ‖e‖² in the file
    cosine               mean_r of g_r·e / (‖g_r‖ ‖e‖)

The first two are the paper's Figure 1, which has "the average difference from REINFORCE gradient" in place of that
from the exact one. A finite R makes |m − e| positive without any bias: `bias_noise` is what an unbiased estimator of
the same spread would show, √(2/π) std/√R, and `squared_bias` has the like, variance/R, taken off, and the squared
standard error of e where e is itself a long-run average. The mean-squared error keeps the latter, which is the square
of `reference_error` and 0 where e is enumerated.
"""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from argmax_vae.estimators import ESTIMATORS
from argmax_vae.estimators.base import CodeLoss, Estimator, EstimatorConfig
from argmax_vae.estimators.exact import Exact, ExactConfig
from argmax_vae.estimators.local_expectation import LocalExpectation, LocalExpectationConfig
from argmax_vae.gradients.cost import STEP, CountingLoss
from argmax_vae.gradients.moments import Moments
from argmax_vae.gradients.settings import LaboratoryConfig, Setting, settings
from argmax_vae.models.discrete import Networks
from argmax_vae.models.reconstruction import Reconstruction
from argmax_vae.randomness import SeedNoise

ADAPTATION_RATE = 0.01


Batches = Callable[[int], Float[Tensor, "batch pixels"]]


class Laboratory:
    """Fixed networks of S seeds and a fixed batch of images, the same for all: what gradients are measured on.

    `others` gives batches of other images, by number, on which estimators that learn do so: a baseline that had learned
    the images measured would know their losses by heart.
    """

    def __init__(
        self,
        networks: Networks,
        images: Float[Tensor, "batch pixels"],
        seeds: list[int],
        config: LaboratoryConfig,
        others: Batches,
    ) -> None:
        self.networks, self.seeds, self.config = networks.requires_grad_(True), seeds, config
        self.images, self.others = images.expand(len(seeds), *images.shape), others
        self.loss = Reconstruction(networks, self.images)
        self.encoded = networks.encode(self.images)
        self.logits = self.encoded.detach().requires_grad_()
        self.parameters = list(networks.encoder.parameters())
        self.exact, self.reference, self.reference_errors = self.exact_gradient()

    def noise(self, repeat: int, purpose: str) -> SeedNoise:
        return SeedNoise(self.seeds, self.logits.device).restart(repeat, purpose)

    def gradient(self, estimator: Estimator, loss: CodeLoss, noise: SeedNoise) -> Float[Tensor, "seeds batch n k"]:
        """One estimate of the gradient with respect to the logits of every image."""
        step = torch.tensor(STEP, device=self.logits.device)
        drawn = estimator.noise(tuple(self.logits.shape), noise)
        (gradient,) = torch.autograd.grad(estimator(self.logits, loss, drawn, step).objective.sum(), self.logits)
        return gradient

    def encoder_gradient(self, gradient: Float[Tensor, "seeds batch n k"]) -> Float[Tensor, "seeds coordinates"]:
        """The same estimate with respect to the encoder's weights, for the mean loss of the batch."""
        grads = torch.autograd.grad(self.encoded, self.parameters, gradient / gradient.shape[1], retain_graph=True)
        return torch.cat([grad.flatten(1) for grad in grads], 1)

    def exact_gradient(self) -> tuple[Float[Tensor, "seeds batch n k"], str, dict[str, Float[Tensor, "seeds"]]]:
        """The exact gradient, how it was found, and for each target its standard error as a fraction of its norm."""
        n, k = self.logits.shape[-2:]
        if k**n <= self.config.limit:
            gradient = self.gradient(Exact(ExactConfig(limit=self.config.limit)), self.loss, self.noise(0, "reference"))
            none = torch.zeros(len(self.seeds), device=gradient.device)
            return gradient, "enumeration", {"logits": none, "encoder": none}
        estimator = LocalExpectation(LocalExpectationConfig())
        moments = {
            "logits": Moments(torch.zeros_like(self.logits).flatten(1)),
            "encoder": Moments(torch.zeros_like(self.encoder_gradient(self.logits.detach()))),
        }
        for repeat in range(self.config.reference_repeats):
            gradient = self.gradient(estimator, self.loss, self.noise(repeat, "reference"))
            moments["logits"].add(gradient.flatten(1))
            moments["encoder"].add(self.encoder_gradient(gradient))
        mean = (moments["logits"].first / self.config.reference_repeats).float().reshape(self.logits.shape)
        how = f"mean of {self.config.reference_repeats} local expectations"
        return mean, how, {target: of_target.relative_error() for target, of_target in moments.items()}

    def adapted(self, config: EstimatorConfig) -> Estimator:
        """An estimator whose learned and remembered values have settled on these networks, with other images."""
        n, k = self.logits.shape[-2:]
        estimator = ESTIMATORS[config.name](config).prepare(n, k, self.seeds).to(self.logits.device)
        parameters = list(estimator.parameters())
        if not parameters and not list(estimator.buffers()):
            return estimator.eval()
        optimizer = torch.optim.Adam(parameters, lr=ADAPTATION_RATE) if parameters else None
        step = torch.tensor(STEP, device=self.logits.device)
        for repeat in range(self.config.adaptation):
            images = self.others(repeat).expand_as(self.images)
            logits = self.networks.encode(images).detach()
            drawn = estimator.noise(tuple(logits.shape), self.noise(repeat, "adaptation"))
            estimate = estimator(logits, Reconstruction(self.networks, images), drawn, step)
            if optimizer is not None:
                optimizer.zero_grad()
                estimate.objective.mean(-1).sum().backward(inputs=parameters)
                optimizer.step()
            estimator.observe(estimate.seen)
        return estimator.requires_grad_(False).eval()

    def wait(self) -> None:
        """Until the device has done what it was given, so that times are of what lies between."""
        if self.logits.device.type == "cuda":
            torch.cuda.synchronize()

    def measure(self, setting: Setting) -> list[dict[str, Any]]:
        """A row for every target (logits, encoder) and seed."""
        estimator = self.adapted(setting.config)
        exact = {"logits": self.exact.flatten(1), "encoder": self.encoder_gradient(self.exact)}
        moments = {target: Moments(exact[target], self.reference_errors[target]) for target in exact}
        counting = CountingLoss(self.loss, self.images.shape[:2].numel())
        seconds = []
        for repeat in range(self.config.repeats):
            noise = self.noise(repeat, "noise")
            self.wait()
            start = time.perf_counter()
            gradient = self.gradient(estimator, counting, noise)
            self.wait()
            seconds.append(time.perf_counter() - start)
            moments["logits"].add(gradient.flatten(1))
            moments["encoder"].add(self.encoder_gradient(gradient))
        rows = []
        for target, of_target in moments.items():
            results = {name: values.tolist() for name, values in of_target.results().items()}
            for index, seed in enumerate(self.seeds):
                row: dict[str, Any] = {
                    "estimator": setting.config.name,
                    "choices": setting.choices,
                    "parameter": setting.parameter,
                    "value": setting.value,
                    "target": target,
                    "seed": seed,
                }
                row |= {name: float(f"{values[index]:.6g}") for name, values in results.items()}
                row |= {
                    "decoder_evaluations": counting.evaluations / self.config.repeats,
                    "milliseconds": round(1000 * sorted(seconds)[len(seconds) // 2], 4),
                    "repeats": self.config.repeats,
                    "images": self.images.shape[1],
                    "reference": self.reference,
                    "reference_error": float(f"{self.reference_errors[target][index].item():.3g}"),
                }
                rows.append(row)
        return rows

    def run(self, is_done: Callable[[Setting], bool]) -> Iterator[list[dict[str, Any]]]:
        """The rows of one setting after the other, those done left out, telling on standard error how far it is."""
        chosen = settings(self.config, *self.logits.shape[-2:])
        for number, setting in enumerate(chosen, 1):
            if is_done(setting):
                continue
            rows = self.measure(setting)
            first = rows[0]
            numbers = f"bias {first['bias']:.3g}, standard deviation {first['standard_deviation']:.3g}"
            print(f"{number}/{len(chosen)} {setting.label}: {numbers}", file=sys.stderr, flush=True)
            yield rows
