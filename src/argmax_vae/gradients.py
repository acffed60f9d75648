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

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from argmax_vae.checks import require_all_positive, require_count
from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS, Estimator, EstimatorConfig
from argmax_vae.estimators.base import SYMBOLS
from argmax_vae.estimators.exact import Exact, ExactConfig
from argmax_vae.estimators.local_expectation import LocalExpectation, LocalExpectationConfig
from argmax_vae.networks import Networks
from argmax_vae.randomness import SeedNoise
from argmax_vae.reconstruction import CodeLoss, Reconstruction
from argmax_vae.schedules import Constant, Schedule

ADAPTATION_RATE = 0.01
STEP = 0


@dataclass
class LaboratoryConfig:
    """What the gradient laboratory does with a trained model; no part of the run's identity.

    `repeats`: estimates per setting; `images`: of the validation split, in one batch; `epsilon` and `temperature`:
    values for the estimators that have such a schedule; `variants`: further estimators with choices of their own, such
    as {name: direct, direction: away}, beside every registered one with its defaults; `adaptation`: steps in which
    learned control variates and moving averages settle before they are measured; `reference_repeats`: long-run average
    of local expectations that stands for the exact gradient where `limit` codes are not enough to enumerate.
    """

    repeats: int = 500
    images: int = 100
    epsilon: list[float] = field(default_factory=lambda: [0.01, 0.03, 0.1, 0.3, 1.0, 3.0])
    temperature: list[float] = field(default_factory=lambda: [0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0])
    variants: list[Any] = field(default_factory=list)
    adaptation: int = 500
    reference_repeats: int = 5000
    limit: int = 4096

    def __post_init__(self) -> None:
        for name, smallest in (
            ("repeats", 2),
            ("images", 1),
            ("adaptation", 0),
            ("reference_repeats", 2),
            ("limit", 2),
        ):
            require_count(f"laboratory.{name}", getattr(self, name), smallest)
        for name in ("epsilon", "temperature"):
            require_all_positive(f"laboratory.{name}", getattr(self, name))
        for index, variant in enumerate(self.variants):
            variant_config(variant)
            if len(variant) < 2 or variant in self.variants[:index]:
                raise UsageError(f"laboratory.variants: {variant} is measured already; give it a choice of its own")


def variant_config(variant: Any) -> EstimatorConfig:
    """The estimator that a variant {name: …, choice: …} stands for. Raises UsageError for an unknown name or choice."""
    if not isinstance(variant, dict) or variant.get("name") not in ESTIMATORS:
        raise UsageError(
            f"laboratory.variants: {variant} must be {{name: ESTIMATOR, …}}, one of {', '.join(ESTIMATORS)}"
        )
    config_class = ESTIMATORS[variant["name"]].config_class
    known = {inner.name: inner.type for inner in fields(config_class) if inner.type is not Schedule}
    for key, value in variant.items():
        if key not in known:
            raise UsageError(f"laboratory.variants: {variant['name']} has no choice {key!r}; it has {', '.join(known)}")
        if not fits(value, known[key]):
            raise UsageError(f"laboratory.variants: {variant['name']} {key}={value} must be {TYPE_NAMES[known[key]]}")
    return config_class(**variant)


TYPE_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a word",
    list[int]: "a list of whole numbers",
}


def fits(value: Any, kind: Any) -> bool:
    """Whether a value from a YAML file is of a field's type."""
    if kind == list[int]:
        return isinstance(value, list) and all(fits(item, int) for item in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


@dataclass(frozen=True)
class Setting:
    """One estimator to measure: its choices that are no defaults, and the ε or τ it is measured at, if it has one."""

    config: EstimatorConfig
    choices: str = ""
    parameter: str = ""
    value: float = math.nan

    @property
    def label(self) -> str:
        at = f"{self.parameter} = {self.value:g}" if self.parameter else ""
        return " ".join(filter(None, (self.config.name, self.choices, at)))


def settings(laboratory: LaboratoryConfig, n: int, k: int) -> list[Setting]:
    """Everything to measure for latents n × k: what does not apply to them is left out."""
    found = []
    for variant in [{"name": name} for name in ESTIMATORS] + list(laboratory.variants):
        choices = ", ".join(f"{key}={value}" for key, value in variant.items() if key != "name")
        chosen = variant_config(variant)
        try:
            chosen.validate_latents(n, k)
        except UsageError:
            continue
        config_class, swept = type(chosen), chosen.schedules_in_use()
        if not swept:
            found.append(Setting(chosen, choices))
        for name in swept:
            for value in getattr(laboratory, name):
                config = config_class(**{**variant, name: Constant(value=value)})
                found.append(Setting(config, choices, SYMBOLS[name], value))
    return found


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


def decoder_evaluations(config: EstimatorConfig, n: int, k: int) -> float:
    """Decoder evaluations per image that one estimate for latents n × k asks for."""
    networks = Networks(1, n, k, [], [0])
    counting = CountingLoss(Reconstruction(networks, torch.zeros(1, 1, 1)), 1)
    estimator = ESTIMATORS[config.name](config).prepare(n, k, [0])
    logits = torch.zeros(1, 1, n, k, requires_grad=True)
    noise = estimator.noise((1, 1, n, k), SeedNoise([0], "cpu").restart(0, "noise"))
    estimator(logits, counting, noise, torch.tensor(STEP))
    return counting.evaluations


class Moments:
    """Running moments of errors g − e of S seeds: (seeds, coordinates) each, in float64.

    `exact_error` is the standard error of e as a fraction of its norm.
    """

    def __init__(
        self, exact: Float[Tensor, "seeds coordinates"], exact_error: Float[Tensor, "seeds"] | float = 0.0
    ) -> None:
        self.exact = exact.double()
        self.exact_error = torch.as_tensor(exact_error, device=exact.device).expand(len(exact))
        self.first = torch.zeros_like(self.exact)
        self.second = torch.zeros_like(self.exact)
        self.cosine = self.exact.new_zeros(len(exact))
        self.number = 0

    def add(self, gradient: Float[Tensor, "seeds coordinates"]) -> None:
        gradient = gradient.double()
        error = gradient - self.exact
        self.first += error
        self.second += error.square()
        self.cosine += torch.nan_to_num(torch.cosine_similarity(gradient, self.exact, dim=-1, eps=0.0))
        self.number += 1

    def relative_error(self) -> Float[Tensor, "seeds"]:
        """Standard error of the mean of what was added, as a fraction of that mean's norm, where `exact` is zero."""
        mean = self.first / self.number
        variance = (self.second / self.number - mean.square()).clamp_min(0).sum(-1)
        return (variance / self.number / mean.square().sum(-1)).sqrt()

    def results(self) -> dict[str, Float[Tensor, "seeds"]]:
        """The quantities of the module's docstring, for each seed."""
        mean = self.first / self.number
        variance = (self.second / self.number - mean.square()).clamp_min(0) * (self.number / (self.number - 1))
        deviation, size = variance.sqrt().mean(-1), self.exact.square().sum(-1)
        total = variance.sum(-1)
        return {
            "gradient_norm": size.sqrt(),
            "bias": mean.abs().mean(-1),
            "bias_noise": math.sqrt(2 / (math.pi * self.number)) * deviation,
            "standard_deviation": deviation,
            "squared_bias": (mean.square().sum(-1) - total / self.number) / size - self.exact_error.square(),
            "variance": total / size,
            "mean_squared_error": self.second.sum(-1) / self.number / size,
            "cosine": self.cosine / self.number,
        }


class Laboratory:
    """Fixed networks of S seeds and a fixed batch of images, the same for all: what gradients are measured on."""

    def __init__(
        self, networks: Networks, images: Float[Tensor, "batch pixels"], seeds: list[int], config: LaboratoryConfig
    ) -> None:
        self.networks, self.seeds, self.config = networks.requires_grad_(True), seeds, config
        self.images = images.expand(len(seeds), *images.shape)
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
        """An estimator whose learned and remembered values have settled on these networks and images."""
        n, k = self.logits.shape[-2:]
        estimator = ESTIMATORS[config.name](config).prepare(n, k, self.seeds).to(self.logits.device)
        parameters = list(estimator.parameters())
        if not parameters and not list(estimator.buffers()):
            return estimator.eval()
        optimizer = torch.optim.Adam(parameters, lr=ADAPTATION_RATE) if parameters else None
        step = torch.tensor(STEP, device=self.logits.device)
        for repeat in range(self.config.adaptation):
            drawn = estimator.noise(tuple(self.logits.shape), self.noise(repeat, "adaptation"))
            estimate = estimator(self.logits, self.loss, drawn, step)
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
