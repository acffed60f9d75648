"""A contextual bandit: an action for each context from the reward of the actions that were tried, nothing else.

The reward is a black box, so only estimators that ask for losses of hard codes are of use here: REINFORCE, local
expectation, direct optimization and their relatives.

    python scripts/examples/bandit.py reinforce
"""

import sys

import torch
from torch import Tensor, nn

from argmax_vae import estimator

CONTEXT, ACTIONS, BATCH = 6, 5, 100


def train(name: str, steps: int = 300) -> float:
    """Mean reward, of at most 1, that the best actions of the trained policy earn in new contexts."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    truth = torch.randn(CONTEXT, ACTIONS, generator=generator)
    policy = nn.Linear(CONTEXT, ACTIONS)
    act = estimator(name)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)

    def reward(contexts: Tensor, actions: Tensor) -> Tensor:
        """1 for the best action of a context, else 0; actions (…, batch) are numbers."""
        return (actions == (contexts @ truth).argmax(-1)).float()

    for _ in range(steps):
        contexts = torch.randn(BATCH, CONTEXT, generator=generator)
        logits = policy(contexts).unsqueeze(-2)

        def cost(codes: Tensor, contexts: Tensor = contexts) -> Tensor:
            """Minus the reward (…, batch) of actions as codes (…, batch, 1, actions)."""
            return -reward(contexts, codes.squeeze(-2).argmax(-1))

        optimizer.zero_grad()
        act(logits, cost, generator=generator).mean().backward()
        optimizer.step()
    contexts = torch.randn(10 * BATCH, CONTEXT, generator=generator)
    return float(reward(contexts, policy(contexts).argmax(-1)).mean())


if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) > 1 else "reinforce"
    print(f"{chosen}: mean reward {train(chosen):.2f}")
