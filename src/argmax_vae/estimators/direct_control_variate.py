"""Direct optimization as a control variate: unbiased for every ε, where direct alone has a bias of order ε.

Direct's losses are those of the mode m = argmax φ and of all its one-coordinate changes: together the codes A. With
Δ_i(j) = θ_i(j) − Σ_l q_i(l) θ_i(l), its expected step is the exact gradient of another loss, one that saturates at 1/ε:

    (softmax(φ_i) − softmax(φ_i − εθ_i))/ε = ∇_{φ_i} E_q[c(z)],  c(z) = Σ_i c_i(z_i),
    c_i(j) = (1 − e^{−εΔ_i(j)}/Z_i)/ε,  Z_i = Σ_l q_i(l) e^{−εΔ_i(l)},

since ∇_{φ_i} Σ_j q_i(j) c_i(j) = q_i ⊙ c_i. So c can stand where REBAR has the relaxed loss. Codes of A are summed, for
their losses are known; M codes w_1 … w_M ~ q(z | z ∉ A) stand for the others. With s(z) = z − softmax(φ) and

    h_m(z) = θ(z) − η c(z) − b_m,  for w_m and for the sum over A that goes with it,
    ∇_φ E_q[θ] = E[η Σ_z q(z) c(z) s(z) + 1/M Σ_m (Σ_{z∈A} q(z) h_m(z) s(z) + q(z ∉ A) h_m(w_m) s(w_m))].

b_m does not depend on w_m: it is θ(m) + Σ_i Σ_j q_i(j) (θ_i(j) − θ(m)), which leaves nothing of A's h for ε → 0 and
η = 1, moved by the mean of the other codes' h. η follows the gradient of E‖g‖², as in REBAR.

From one sampled code and its candidates alone nothing better than local expectation can be made in this way: averaged
over z_i, (θ(z) − c(z)) s_i + ∇_{φ_i} E_q[c] is its gradient whatever c is. Hence the candidates of the mode, the sum,
and codes beyond it. The variance falls with q(z ∉ A): it is low where q is nearly certain, and not where q is uniform.
Exact for n = 1. Cost: n(k − 1) + M + 2 decoder evaluations per image; one code of A is decoded again for the decoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from argmax_vae.errors import require_finite
from argmax_vae.estimators.base import (
    CodeLoss,
    Codes,
    Estimate,
    Estimator,
    Logits,
    Losses,
    Noise,
    SampledConfig,
    Step,
    with_gradient,
)
from argmax_vae.estimators.schedules import Constant, Schedule
from argmax_vae.latents import codes_far_from, codes_near, one_hot_argmax
from argmax_vae.randomness import NoiseSource

LARGEST_EXPONENT = 60.0


@dataclass
class DirectControlVariateConfig(SampledConfig):
    """`epsilon`: schedule of ε; `samples`: M; `initial_eta`: where η starts."""

    name: str = "direct_control_variate"
    epsilon: Schedule = field(default_factory=Constant)
    samples: int = 4
    initial_eta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_finite("estimator.initial_eta", self.initial_eta)

    def describe_schedule(self) -> str:
        return f"{super().describe_schedule()}, M = {self.samples}, η learned"


class DirectControlVariate(Estimator):
    """Candidates summed, the rest sampled, direct's step as the control variate."""

    config_class = DirectControlVariateConfig
    asks_for_codes_alone = False

    def prepare(self, n: int, k: int, seeds: Sequence[int] | None = None) -> "DirectControlVariate":
        shape = () if seeds is None else (len(seeds), 1)
        self.eta = nn.Parameter(torch.full(shape, self.config.initial_eta))
        return self

    def noise(self, shape: tuple[int, ...], source: NoiseSource) -> Noise:
        samples, places = self.config.samples, (*shape[:-2], 2, shape[-2])
        return {
            "uniform": source.uniform(shape, samples=samples),
            "places": source.uniform(places, samples=samples),
            "near": source.uniform(shape),
        }

    def forward(self, logits: Logits, loss: CodeLoss, noise: Noise, step: Step) -> Estimate:
        scheduled = self.scheduled(step)
        frozen = logits.detach()
        mode = one_hot_argmax(frozen)
        far, probability = codes_far_from(mode, frozen, noise["uniform"], noise["places"])
        near = codes_near(mode, frozen, noise["near"])
        losses = loss(torch.cat([near.unsqueeze(0), far]))
        with torch.no_grad():
            _, candidates = loss.with_candidates(mode)
            control = saturated(frozen, candidates, scheduled["epsilon"])
            start, sampled = self.centred(frozen, mode, candidates, losses[1:])
            plain = summed_and_sampled(frozen, mode, start, far, sampled, probability)
            controls = (control * far).sum((-2, -1))
            step_of_direct = frozen.softmax(-1) * control
            change = step_of_direct - summed_and_sampled(frozen, mode, control, far, controls, probability)
            eta = self.eta.to(logits.dtype)
            gradient = plain + eta[..., None, None] * change
            slope = 2 * (gradient * change).sum((-2, -1))
        value = (1 - probability) * losses[0] + probability * losses[1:].mean(0)
        objective = with_gradient(value, logits, gradient) + (self.eta - self.eta.detach()) * slope
        eta = self.eta.detach()
        metrics = scheduled | {"eta": eta.squeeze(-1) if eta.ndim else eta}
        return Estimate(objective=objective, loss=value.detach(), metrics=metrics)

    def centred(self, logits: Logits, mode: Logits, candidates: Logits, losses: Losses) -> tuple[Logits, Losses]:
        """θ of A's codes less their one common baseline, as a sum over coordinates, and θ of the sampled codes less it.

        The sum over coordinates is right for codes of A alone: θ(m) + Σ_i (θ_i(z_i) − θ(m)) − b.
        """
        own = (candidates * mode).sum(-1, keepdim=True)
        probabilities = logits.softmax(-1)
        centred = candidates - (probabilities * candidates).sum(-1, keepdim=True)
        at_mode = own[..., 0, 0]
        baseline = at_mode + (probabilities * (candidates - own)).sum((-2, -1))
        return centred, losses - baseline


def saturated(
    logits: Logits, candidates: Float[Tensor, "*leading n k"], epsilon: Float[Tensor, ""]
) -> Float[Tensor, "*leading n k"]:
    """c_i(j), whose mean over q_i is zero; e^{−εΔ}/Z is held at e⁶⁰, which it exceeds only where q_i(j) < e⁻⁶⁰."""
    change = -epsilon * (candidates - (logits.softmax(-1) * candidates).sum(-1, keepdim=True))
    exponent = change - (logits.log_softmax(-1) + change).logsumexp(-1, keepdim=True)
    return -torch.expm1(exponent.clamp_max(LARGEST_EXPONENT)) / epsilon


def summed_and_sampled(
    logits: Logits,
    mode: Logits,
    near: Float[Tensor, "*leading n k"],
    codes: Codes,
    values: Losses,
    probability: Float[Tensor, "*leading"],
) -> Logits:
    """Σ_{z∈A} q(z) h(z) s(z), where h(z) = Σ_i near_i(z_i), plus the mean over codes of q(z ∉ A) h s; h less its b_m.

    `values`: h of the codes, of which the baseline of each is the sum of the others over M, near zero for few of them.
    """
    number = len(values)
    baseline = (values.sum(0) - values) / number
    scores = logits.log_softmax(-1)
    at_mode = (near * mode).sum((-2, -1)) - baseline.mean(0)
    others = at_mode[..., None, None] + near - (near * mode).sum(-1, keepdim=True)
    own = (scores * mode).sum(-1, keepdim=True)
    weights = (own.sum((-2, -1), keepdim=True) + scores - own).exp() * (1 - mode) * others
    total = weights.sum((-2, -1), keepdim=True) + (own.sum((-2, -1)).exp() * at_mode)[..., None, None]
    summed = total * (mode - scores.exp()) + weights - weights.sum(-1, keepdim=True) * mode
    sampled = ((probability * (values - baseline))[..., None, None] * (codes - scores.exp())).mean(0)
    return summed + sampled
