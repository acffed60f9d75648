"""torch.compile traces the terms of every step whole, on the lowest supported version of torch as on the newest."""

import pytest
import torch

from combinations import BATCH, COMBINATIONS, COUNTED, COUNTED_IN_LAYERS, SEEDS, Combination

OFTEN = (
    "deep-direct-analytic-unlabelled",
    "linear-gumbel_softmax-concrete-unlabelled",
    "linear-rebar-analytic-unlabelled",
    "mixture-direct-analytic-both-label",
    "mixture-local_expectation-analytic-both-cross_entropy",
)
"""What every run of the tests sees; the others take a minute together."""
TRACED = [
    each
    for each in COMBINATIONS
    if each.estimator == "direct" or each.model in ("linear", "deep") or (each.model, each.phase) == ("mixture", "both")
]


@pytest.mark.parametrize(
    "combination",
    [pytest.param(each, id=str(each), marks=[] if str(each) in OFTEN else pytest.mark.slow) for each in TRACED],
)
def test_terms_are_traced_without_a_break(combination: Combination) -> None:
    """Nothing changes what was traced: it gives the numbers and gradients of the terms themselves, up to rounding."""
    module = combination.module()
    noise = module.draw()
    inputs = module.inputs(torch.arange(len(SEEDS) * BATCH).view(len(SEEDS), BATCH), noise)
    torch.compiler.reset()
    traced = torch.compile(module.terms, backend="eager", fullgraph=True, dynamic=False)
    found = []
    for terms in (module.terms, traced):
        module.zero_grad()
        objective, *others = terms(inputs, noise, module.steps_done)
        objective.backward()
        found.append((objective, others, [parameter.grad for parameter in module.parameters()]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("combination", [COUNTED, COUNTED_IN_LAYERS], ids=str)
def test_noise_that_a_step_draws_is_traced_without_a_break(combination: Combination) -> None:
    module = combination.module()
    torch.compiler.reset()
    traced = torch.compile(module.draw, backend="eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(traced(), module.draw(), rtol=0, atol=0)
