"""Categorical latent variables: Gumbel-max samples, divergences, and the Concrete densities that relax them.

Logits φ have shape (…, n, k): n independent variables with k values each; a code is one-hot along the last axis.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float, Int
from torch import Tensor

SMALLEST_UNIFORM = 2.0**-25
EXCLUDED = -1e6
"""The logit of a value that no code has: its probability is zero, and no sum or product of such logits is infinite."""


def gumbel_from_uniform(uniform: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Standard Gumbel noise γ = −log(−log u) (Maddison et al. 2016, section 2.1). Zero is moved to 2⁻²⁵."""
    return -torch.log(-torch.log(uniform.clamp_min(SMALLEST_UNIFORM)))


def logistic_from_uniform(uniform: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Standard logistic noise log u − log(1 − u), the difference of two Gumbels (Maddison et al. 2016, appendix B)."""
    uniform = uniform.clamp_min(SMALLEST_UNIFORM)
    return torch.log(uniform) - torch.log1p(-uniform)


def normal_from_uniform(uniform: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Standard normal noise, the inverse distribution function of uniform numbers. Zero is moved to 2⁻²⁵."""
    uniform = uniform.clamp_min(SMALLEST_UNIFORM)
    return normal_by_erfinv(uniform) if uniform.is_cuda else torch.special.ndtri(uniform)


def normal_by_erfinv(uniform: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """√2 erf⁻¹(2u − 1), which Triton fuses, as it does not ndtri. 2u − 1 is exact for u a multiple of 2⁻²⁵."""
    return math.sqrt(2) * torch.erfinv(2 * uniform - 1)


def gaussian_kl(mean: Float[Tensor, "*batch c"], log_variance: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch"]:
    """KL(N(μ, σ²) ‖ N(0, 1)) = ½ Σ (σ² + μ² − 1 − log σ²), in nats (Kingma and Welling 2013, appendix B)."""
    return 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).sum(-1)


def with_excluded(logits: Float[Tensor, "*batch n k"]) -> Float[Tensor, "*batch n k"]:
    """Logits with EXCLUDED in place of −∞, which gets no gradient."""
    return logits.masked_fill(logits == -math.inf, EXCLUDED)


def without_excluded(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Logits, or scores made of them, with 0 for excluded values, for networks and norms that they are not to rule.

    What is infinite or NaN stays so: it is a divergence and no excluded value.
    """
    sizes = values.abs()
    return values.masked_fill((sizes >= -EXCLUDED / 2) & sizes.isfinite(), 0)


def one_hot_argmax(scores: Float[Tensor, "*batch n k"]) -> Float[Tensor, "*batch n k"]:
    """One-hot code of the largest score along the last axis; the first one when several are equal."""
    return F.one_hot(scores.argmax(-1), scores.shape[-1]).to(scores.dtype)


def sample_codes(
    logits: Float[Tensor, "*batch n k"], gumbel: Float[Tensor, "*samples_batch n k"]
) -> Float[Tensor, "*samples_batch n k"]:
    """Gumbel-max samples z = one_hot(argmax(φ + γ)), distributed as softmax(φ) (the paper's Equation 3)."""
    return one_hot_argmax(logits.detach() + gumbel)


def codes_near(
    mode: Float[Tensor, "*batch n k"], logits: Float[Tensor, "*batch n k"], uniform: Float[Tensor, "*batch n k"]
) -> Float[Tensor, "*batch n k"]:
    """Samples of q given that at most one coordinate differs from the code `mode`.

    A place of the table (n, k) is drawn: a value that is not the mode's stands for that change, the n others for none.
    """
    odds = logits - (logits * mode).sum(-1, keepdim=True)
    odds = torch.where(mode > 0, -math.log(logits.shape[-2]), odds)
    scores = (odds + gumbel_from_uniform(uniform)).flatten(-2).unsqueeze(-2)
    place = one_hot_argmax(scores).squeeze(-2).unflatten(-1, logits.shape[-2:])
    return torch.where(place.sum(-1, keepdim=True) > 0, place, mode)


def codes_far_from(
    mode: Float[Tensor, "*batch n k"],
    logits: Float[Tensor, "*batch n k"],
    uniform: Float[Tensor, "samples *batch n k"],
    places: Float[Tensor, "samples *batch 2 n"],
) -> tuple[Float[Tensor, "samples *batch n k"], Float[Tensor, "*batch"]]:
    """Samples of q given that at least two coordinates differ from the code `mode`, and the probability of that.

    The second coordinate that differs is drawn first, then the one before it, then values: those after it are free.
    For n = 1 the probability is zero, and the codes say nothing.
    """
    scores = logits.log_softmax(-1)
    same = (scores * mode).sum(-1)
    others = scores.masked_fill(mode > 0, -math.inf)
    odds = others.logsumexp(-1) - same
    one_before = F.pad(odds.logcumsumexp(-1)[..., :-1], (1, 0), value=-math.inf)
    second_scores = same.cumsum(-1) + odds + one_before
    gumbel = gumbel_from_uniform(places)
    second = (second_scores + gumbel[..., 0, :]).argmax(-1, keepdim=True)
    index = torch.arange(logits.shape[-2], device=logits.device)
    first = (odds.masked_fill(index >= second, -math.inf) + gumbel[..., 1, :]).argmax(-1, keepdim=True)
    values = gumbel_from_uniform(uniform)
    codes = torch.where((index > second).unsqueeze(-1), one_hot_argmax(scores + values), mode)
    changed = ((index == first) | (index == second)).unsqueeze(-1)
    return torch.where(changed, one_hot_argmax(others + values), codes), second_scores.logsumexp(-1).exp()


class Sticks:
    """Variables as k − 1 questions each, the rarest value first: is it this one, if none before (Dong et al. 2021)?

    `log_odds`: α_j = φ_(j) − log Σ_{l>j} e^{φ_(l)}, of stick j, φ_(1) ≤ … ≤ φ_(k); `weights`: q(l | none up to j).
    No α but the last can exceed log ½, the last is at most zero.
    """

    def __init__(self, logits: Float[Tensor, "*batch n k"]) -> None:
        self.order = logits.argsort(-1)
        self.ranks = self.order.argsort(-1)
        self.sorted = logits.gather(-1, self.order)
        self.rest = self.sorted.flip(-1).logcumsumexp(-1).flip(-1)[..., 1:]
        self.log_odds = self.sorted[..., :-1] - self.rest

    def codes(self, answers: Bool[Tensor, "*samples_batch n sticks"]) -> Float[Tensor, "*samples_batch n k"]:
        """Codes whose value is that of the first stick taken, or the most frequent one if none is."""
        answers = F.pad(answers, (0, 1), value=True)
        first = one_hot_argmax(answers.to(self.sorted.dtype))
        return torch.take_along_dim(first, self.ranks.expand(first.shape), -1)

    def taken(self, codes: Float[Tensor, "*samples_batch n k"]) -> Int[Tensor, "*samples_batch n"]:
        """The place of each value in the order of sticks, k − 1 for the most frequent one."""
        return torch.take_along_dim(codes, self.order.expand(codes.shape), -1).argmax(-1)

    def to_logits(self, slope: Float[Tensor, "*batch n sticks"]) -> Float[Tensor, "*batch n k"]:
        """The derivative in φ of what has this derivative in α."""
        shares = (self.sorted.unsqueeze(-2) - self.rest.unsqueeze(-1)).exp()
        later = torch.einsum("...j,...jl->...l", slope, shares.triu(1))
        return (F.pad(slope, (0, 1)) - later).gather(-1, self.ranks)


def beam_search(
    logits: Float[Tensor, "*batch n k"], number: int, uniform: Float[Tensor, "samples *batch n k"] | None = None
) -> tuple[Float[Tensor, "found *batch n k"], Float[Tensor, "found *batch"]]:
    """The most probable codes of q, or with noise codes drawn without replacement, and their log-probabilities.

    At most `number` of the kⁿ codes. With noise they are those of the largest log q(z) + γ_z, exactly: a prefix has the
    largest of its codes, and its children are drawn given that (stochastic beam search, Kool et al. 2019).
    """
    scores = logits.log_softmax(-1)
    n, k = logits.shape[-2:]
    gumbel = None if uniform is None else gumbel_from_uniform(uniform)
    total = torch.zeros_like(scores[..., 0, 0]).unsqueeze(0)
    largest, steps = total, []
    for i in range(n):
        child = total.unsqueeze(-1) + scores[..., i, :]
        perturbed = child
        if gumbel is not None:
            perturbed = given_largest(child + gumbel[: len(total), ..., i, :], largest)
        width = min(number, k * len(total))
        largest, index = perturbed.movedim(-1, 0).flatten(0, 1).topk(width, dim=0)
        value = index // len(total)
        steps.append((value, index - value * len(total)))
        total = child.movedim(-1, 0).flatten(0, 1).gather(0, index)
    place, found = torch.arange(len(total), device=logits.device), []
    place = place.reshape(-1, *[1] * (total.dim() - 1)).expand_as(total)
    for value, parent in reversed(steps):
        found.append(value.gather(0, place))
        place = parent.gather(0, place)
    values = torch.eye(k, dtype=logits.dtype, device=logits.device)
    return values[torch.stack(found[::-1], -1)], total


def given_largest(scores: Float[Tensor, "*batch k"], largest: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch k"]:
    """Perturbed scores moved so that the largest is this one (Kool et al. 2019, appendix B.3)."""
    top = scores.amax(-1, keepdim=True)
    moved = largest.unsqueeze(-1) - scores + (-torch.expm1(scores - top)).log()
    return largest.unsqueeze(-1) - moved.relu() - F.softplus(-moved.abs())


def kl_to_uniform(logits: Float[Tensor, "*batch n k"]) -> Float[Tensor, "*batch"]:
    """KL(q ‖ uniform) = Σ_i Σ_j q_i(j) log q_i(j) + n log k, in nats; between 0 and n log k."""
    log_probabilities = logits.log_softmax(-1)
    n, k = logits.shape[-2:]
    return (log_probabilities.exp() * log_probabilities).sum((-2, -1)) + n * math.log(k)


def kl_to_prior(
    logits: Float[Tensor, "*batch n k"], log_prior: Float[Tensor, "*#batch n k"] | None
) -> Float[Tensor, "*batch"]:
    """KL(q ‖ p) = Σ_i Σ_j q_i(j) (log q_i(j) − log p_i(j)) in nats; `log_prior` is log p, None for the uniform one."""
    if log_prior is None:
        return kl_to_uniform(logits)
    log_probabilities = logits.log_softmax(-1)
    return (log_probabilities.exp() * (log_probabilities - log_prior)).sum((-2, -1))


def log_probability(
    logits: Float[Tensor, "*batch n k"], codes: Float[Tensor, "*samples_batch n k"]
) -> Float[Tensor, "*samples_batch"]:
    """log q(z) = Σ_i log softmax(φ_i)[z_i] in nats."""
    return (logits.log_softmax(-1) * codes).sum((-2, -1))


def all_codes(n: int, k: int, device: torch.device | None = None) -> Float[Tensor, "codes n k"]:
    """Every one of the kⁿ codes, the last variable running fastest."""
    values = torch.cartesian_prod(*[torch.arange(k, device=device)] * n).reshape(-1, n)
    return F.one_hot(values, k).to(torch.get_default_dtype())


def exp_concrete_sample(
    logits: Float[Tensor, "*batch n k"],
    gumbel: Float[Tensor, "*samples_batch n k"],
    temperature: Float[Tensor, ""] | float,
) -> Float[Tensor, "*samples_batch n k"]:
    """Logarithm of a Gumbel-Softmax sample, y = log softmax((φ + γ)/τ): an ExpConcrete sample

    (Maddison et al. 2016, section 3.3 and appendix C.3). exp(y) is the Concrete sample; gradients flow into φ.
    """
    return ((logits + gumbel) / temperature).log_softmax(-1)


def log_temperature(temperature: Float[Tensor, ""] | float, logits: Tensor) -> Float[Tensor, ""] | float:
    """log τ, on the device of the logits and of their kind, or a number if τ is one."""
    return temperature.to(logits.dtype).log() if isinstance(temperature, Tensor) else math.log(temperature)


def exp_concrete_log_density(
    log_codes: Float[Tensor, "*samples_batch n k"],
    logits: Float[Tensor, "*batch n k"],
    temperature: Float[Tensor, ""] | float,
) -> Float[Tensor, "*samples_batch n"]:
    """log ρ(y) of ExpConcrete(α = exp φ, τ) for each variable (Maddison et al. 2016, Equation 26):

    log (k−1)! + (k−1) log τ + Σ_j (φ_j − τ y_j) − k log Σ_j exp(φ_j − τ y_j).
    """
    k = logits.shape[-1]
    score = logits - temperature * log_codes
    scale = math.lgamma(k) + (k - 1) * log_temperature(temperature, logits)
    return scale + score.sum(-1) - k * score.logsumexp(-1)


def concrete_log_density(
    codes: Float[Tensor, "*samples_batch n k"],
    logits: Float[Tensor, "*batch n k"],
    temperature: Float[Tensor, ""] | float,
) -> Float[Tensor, "*samples_batch n"]:
    """log p(x) of Concrete(α = exp φ, τ) on the simplex for each variable (Maddison et al. 2016, Equation 10):

    (k−1)! τ^(k−1) Π_j α_j x_j^(−τ−1) / Σ_i α_i x_i^(−τ); the ExpConcrete density at log x, less Σ_j log x_j.
    """
    log_codes = codes.log()
    return exp_concrete_log_density(log_codes, logits, temperature) - log_codes.sum(-1)


def binary_logits(logits: Float[Tensor, "*batch n 2"]) -> Float[Tensor, "*batch n"]:
    """The one logit log(p/(1−p)) of a two-valued variable, p the probability of value 1."""
    return logits[..., 1] - logits[..., 0]


def binary_codes(on: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n 2"]:
    """The code (1 − b, b) of two-valued variables b, hard or relaxed."""
    return torch.stack([1 - on, on], -1)


def conditional_gumbel_scores(
    logits: Float[Tensor, "*batch n k"],
    codes: Float[Tensor, "*samples_batch n k"],
    uniform: Float[Tensor, "*more_samples_batch n k"],
) -> Float[Tensor, "*more_samples_batch n k"]:
    """Scores z̃ = log q + γ given that their arg max is `codes`, differentiable in the logits.

    With e = −log v: z̃_b = −log e_b for the largest, z̃_j = −log(e_j/q_j + e_b) for the others (Tucker et al. 2017;
    Paulus et al. 2020), computed from logarithms.
    """
    log_exponential = -gumbel_from_uniform(uniform)
    of_largest = (log_exponential * codes).sum(-1, keepdim=True)
    others = -torch.logaddexp(log_exponential - logits.log_softmax(-1), of_largest)
    return torch.where(codes > 0, -of_largest, others)


def conditional_logistic_scores(
    logits: Float[Tensor, "*batch n"],
    on: Float[Tensor, "*batch n"],
    uniform: Float[Tensor, "*batch n"],
) -> Float[Tensor, "*batch n"]:
    """Scores z̃ = a + logistic noise of binary variables given b = [z̃ > 0], differentiable in the one logit a.

    z̃ = log(v/((1 − v)(1 − p)) + 1) for b = 1 and −log(v/((1 − v)p) + 1) for b = 0, p = σ(a) (Tucker et al. 2017;
    Grathwohl et al. 2018), written with softplus.
    """
    logistic = logistic_from_uniform(uniform)
    above = F.softplus(logistic + F.softplus(logits))
    return torch.where(on > 0, above, -F.softplus(logistic + F.softplus(-logits)))


def logistic_log_density(
    scores: Float[Tensor, "*samples_batch n"],
    logits: Float[Tensor, "*batch n"],
    temperature: Float[Tensor, ""] | float,
) -> Float[Tensor, "*samples_batch n"]:
    """log density of y = (log α + log u − log(1−u))/τ, whose sigmoid is BinConcrete(α, τ)

    (Maddison et al. 2016, appendix B): log τ − τy + log α − 2 log(1 + exp(−τy + log α)), log α the one logit.
    """
    centred = logits - temperature * scores
    return log_temperature(temperature, logits) + centred - 2 * F.softplus(centred)


def relaxed_kl(
    log_codes: Float[Tensor, "*samples_batch n k"],
    logits: Float[Tensor, "*batch n k"],
    temperature: Float[Tensor, ""] | float,
    prior_temperature: float,
    log_prior: Float[Tensor, "*#batch n k"] | None = None,
) -> Float[Tensor, "*samples_batch"]:
    """One-sample estimate of the relaxed divergence Σ_i log ρ_{φ,τ}(y_i) − log ρ_{log p,τ_prior}(y_i) in nats

    (Maddison et al. 2016, Equation 20 in ExpConcrete form), p uniform without `log_prior`. It is not the divergence of
    the discrete variables.
    """
    posterior = exp_concrete_log_density(log_codes, logits, temperature)
    of_prior = torch.zeros_like(logits) if log_prior is None else log_prior
    prior = exp_concrete_log_density(log_codes, of_prior, prior_temperature)
    return (posterior - prior).sum(-1)


Loss = Callable[[Float[Tensor, "*rows n k"]], Float[Tensor, "*rows"]]


def one_coordinate_codes(codes: Float[Tensor, "*batch n k"]) -> Float[Tensor, "n k *batch n k"]:
    """Every code that differs from the given one in at most one coordinate, n·k of them, on two new leading axes."""
    n, k = codes.shape[-2:]
    changed = codes.expand(n, k, *codes.shape).clone()
    values = torch.eye(k, dtype=codes.dtype, device=codes.device)
    for i in range(n):
        changed[i, ..., i, :] = values.view(k, *[1] * (codes.ndim - 2), k)
    return changed


def dense(loss: Loss, codes: Float[Tensor, "*batch n k"]) -> Float[Tensor, "*batch n k"]:
    """Candidate losses by evaluating `loss` on every changed code, for any loss; the slow reference."""
    return loss(one_coordinate_codes(codes)).movedim((0, 1), (-2, -1))
