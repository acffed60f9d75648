"""Hard attention: a model looks at one of twelve pieces and learns which, by any estimator of the package.

Each input has twelve pieces of eight numbers; one piece is marked, and its sign pattern is the class. The model chooses
a piece by its score, sees nothing of the others, and names the class from what it sees.

    python scripts/examples/attention.py direct
"""

import sys

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from argmax_vae import estimator

PIECES, WIDTH, CLASSES, BATCH = 12, 8, 4, 100


def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs (batch, pieces, width) and classes (batch); the first number of the right piece is 3."""
    pieces = torch.randn(BATCH, PIECES, WIDTH, generator=generator)
    classes = torch.randint(CLASSES, (BATCH,), generator=generator)
    right = torch.randint(PIECES, (BATCH,), generator=generator)
    pieces[torch.arange(BATCH), right, 0] = 3
    pieces[torch.arange(BATCH), right, 1 : 1 + CLASSES] += 3 * F.one_hot(classes, CLASSES)
    return pieces, classes


def train(name: str, steps: int = 300) -> float:
    """Share of new inputs that are classified right after training, by the piece with the highest score."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    scorer = nn.Sequential(nn.Linear(WIDTH, 32), nn.ReLU(), nn.Linear(32, 1))
    classifier = nn.Linear(WIDTH, CLASSES)
    look = estimator(name, latents=(1, PIECES)) if name == "relax" else estimator(name)
    optimizer = torch.optim.Adam([*scorer.parameters(), *classifier.parameters(), *look.parameters()], lr=1e-2)
    for _ in range(steps):
        pieces, classes = draw(generator)

        def loss(codes: Tensor, pieces: Tensor = pieces, classes: Tensor = classes) -> Tensor:
            """Cross-entropy (…, batch) of what is seen with codes (…, batch, 1, pieces)."""
            predicted = classifier((codes @ pieces).squeeze(-2)).log_softmax(-1)
            return -(predicted * F.one_hot(classes, CLASSES)).sum(-1)

        optimizer.zero_grad()
        look(scorer(pieces).transpose(-1, -2), loss, generator=generator).mean().backward()
        optimizer.step()
    pieces, classes = draw(generator)
    seen = pieces[torch.arange(BATCH), scorer(pieces).squeeze(-1).argmax(-1)]
    return float((classifier(seen).argmax(-1) == classes).float().mean())


if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) > 1 else "direct"
    print(f"{chosen}: {100 * train(chosen):.0f} % of new inputs right")
