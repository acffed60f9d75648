"""A loss that is a table over all codes: the truth of an expectation over codes is a finite sum."""

import itertools

import torch
from torch import Tensor


class TabularLoss:
    """θ(z) looked up in `table` (*leading, kⁿ), the last variable running fastest; `leading` may be empty.

    Between the codes it is extended multilinearly: θ(y) = Σ_z θ(z) Π_i y_i(z_i), its expectation under y.
    """

    def __init__(self, table: Tensor, n: int, k: int) -> None:
        self.table = table
        self.values = torch.tensor(list(itertools.product(range(k), repeat=n)))
        self.codes = torch.eye(k, dtype=table.dtype)[self.values]

    def factors(self, codes: Tensor) -> Tensor:
        """y_i(z_i) for every z: (*rows, kⁿ, n)."""
        return codes[..., torch.arange(codes.shape[-2]), self.values]

    def __call__(self, codes: Tensor) -> Tensor:
        return (self.table * self.factors(codes).prod(-1)).sum(-1)

    def with_candidates(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        return self(codes), self.candidates(codes)

    @torch.no_grad()
    def candidates(self, codes: Tensor) -> Tensor:
        factors = self.factors(codes)
        n = codes.shape[-2]
        changed = []
        for i in range(n):
            others = factors[..., [other for other in range(n) if other != i]].prod(-1)
            changed.append((self.table * others) @ self.codes[:, i])
        return torch.stack(changed, -2)

    def shared(self, codes: Tensor) -> Tensor:
        return self.table @ self.factors(codes).prod(-1).T


def code_probabilities(logits: Tensor, loss: TabularLoss) -> Tensor:
    """q(z) of every code of the table: (*leading, kⁿ)."""
    return loss.factors(logits.softmax(-1)).prod(-1)


def expected_loss(logits: Tensor, loss: TabularLoss) -> Tensor:
    """E_q[θ(z)] by enumeration, differentiable."""
    return (code_probabilities(logits, loss) * loss.table).sum(-1)


def exact_gradient(logits: Tensor, loss: TabularLoss) -> Tensor:
    """∇_φ E_q[θ(z)] by enumeration."""
    variable = logits.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(expected_loss(variable, loss).sum(), variable)
    return gradient
