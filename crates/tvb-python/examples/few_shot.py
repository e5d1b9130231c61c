"""A new task from a few examples: coefficients of known tasks, fitted by gradients.

Three small transformers are fine-tuned on three languages (Markov chains) and compressed. The new language mixes two of them; eight
short texts of it are all that there is. Some ten seconds, from nothing:

    python examples/few_shot.py
"""

from __future__ import annotations

import copy
import sys
import tempfile
from pathlib import Path

import torch
import tvb
import tvb.torch
from torch import nn
from torch.nn.functional import cross_entropy

N_LETTERS, LENGTH = 12, 24


class TinyTransformer(nn.Module):
    """Predicts the next letter; the head is the embedding."""

    def __init__(self, width: int = 32, n_layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(N_LETTERS, width)
        self.position = nn.Parameter(torch.randn(LENGTH, width) * 0.1)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, N_LETTERS, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(LENGTH), persistent=False)

    def forward(self, letters: torch.Tensor) -> torch.Tensor:
        n = letters.shape[1]
        hidden = self.embedding(letters) + self.position[:n]
        logits: torch.Tensor = self.head(self.norm(self.layers(hidden, mask=self.mask[:n, :n], is_causal=True)))
        return logits


def language(random: torch.Generator, sharpness: float) -> torch.Tensor:
    """How often each letter follows each."""
    return torch.softmax(sharpness * torch.randn(N_LETTERS, N_LETTERS, generator=random), dim=1)


def texts(chain: torch.Tensor, n: int, random: torch.Generator) -> torch.Tensor:
    """`n` texts of one letter more than the model reads."""
    letters = [torch.randint(N_LETTERS, (n, 1), generator=random)]
    for _ in range(LENGTH):
        letters.append(torch.multinomial(chain[letters[-1][:, 0]], 1, generator=random))
    return torch.cat(letters, dim=1)


def loss_of(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Nats a letter."""
    return cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


def train(model: nn.Module, chain: torch.Tensor, n_steps: int, random: torch.Generator, rate: float) -> nn.Module:
    """Trains every parameter on fresh texts."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(n_steps):
        optimizer.zero_grad()
        loss_of(model, texts(chain, 16, random)).backward()
        optimizer.step()
    return model


def fit(fitted: tvb.torch.Coefficients, examples: torch.Tensor, n_steps: int = 60) -> float:
    """Fits the coefficients to the same few texts, again and again. Returns the last loss on them."""
    optimizer = torch.optim.Adam(fitted.parameters(), lr=0.05)
    for _ in range(n_steps):
        optimizer.zero_grad()
        loss = loss_of(fitted, examples)
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def run(folder: Path, n_steps: int = 150) -> dict[str, float]:
    """The whole story. Returns the loss on unseen texts of the new language, by the way in which it was met."""
    torch.manual_seed(0)
    # So small a model is slower on several threads.
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(0)
    known = {name: language(random, 2.0) for name in ("anglic", "brittic", "celtic")}
    new = (known["anglic"] + known["brittic"]) / 2

    base = train(TinyTransformer(), language(random, 0.3), n_steps, random, 3e-3)
    tuned = {name: train(copy.deepcopy(base), chain, n_steps, random, 1e-3) for name, chain in known.items()}
    basis = tvb.compress(base, tuned, folder / "basis", bits=4)

    examples, unseen = texts(new, 8, random), texts(new, 512, random)
    with torch.no_grad():
        found = {"zero-shot": float(loss_of(base, unseen))}
        found["sum"] = float(loss_of(tvb.torch.Coefficients(base, basis, init="sum"), unseen))
    for what, blocks in (("fitted", None), ("fitted by block", [r"layers\.0", r"layers\.1", ""])):
        fitted = tvb.torch.Coefficients(base, basis, blocks=blocks)
        fit(fitted, examples)
        with torch.no_grad():
            found[what] = float(loss_of(fitted, unseen))
        if blocks is None:
            print("weights:", ", ".join(f"{name} {weight:.2f}" for name, weight in fitted.weights().items()))
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as top:
        for what, loss in run(Path(top)).items():
            print(f"{what:16} {loss:.3f} nats a letter")
    sys.exit(0)
