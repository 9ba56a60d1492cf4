"""How far a model's predictions are from the reference's: top-1 agreement, KL divergence, perplexity."""

import math
from dataclasses import dataclass

import numpy as np
from quality_formats import Floats

ROWS_AT_ONCE = 50  # so that no copy of a window's logits is large


@dataclass(frozen=True)
class Quality:
    """`top1` is a share, `kl` a mean in nats, `delta` the change of perplexity as a share."""

    name: str
    tokens: int
    top1: float
    kl: float
    perplexity: float
    delta: float


@dataclass
class Tally:
    """Sums over the windows seen so far; `nll` is in nats."""

    tokens: int = 0
    scored: int = 0
    agreed: float = 0.0
    divergence: float = 0.0
    nll: float = 0.0
    reference_nll: float = 0.0

    def add(self, window: list[int], reference: Floats, found: Floats) -> None:
        for start in range(0, len(window), ROWS_AT_ONCE):
            at = slice(start, start + ROWS_AT_ONCE)
            p, q = log_softmax(reference[at]), log_softmax(found[at])
            self.agreed += float((p.argmax(axis=1) == q.argmax(axis=1)).sum())
            self.divergence += float((np.exp(p) * (p - q)).sum(dtype=np.float64))
            targets = window[start + 1 : start + 1 + ROWS_AT_ONCE]
            told = np.arange(len(targets)), targets
            self.nll -= float(q[told].sum())
            self.reference_nll -= float(p[told].sum())
            self.tokens += len(p)
            self.scored += len(targets)

    def read(self, name: str) -> Quality:
        perplexity = math.exp(self.nll / self.scored)
        return Quality(
            name,
            self.tokens,
            self.agreed / self.tokens,
            self.divergence / self.tokens,
            perplexity,
            perplexity / math.exp(self.reference_nll / self.scored) - 1,
        )


def log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    total = np.exp(shifted).sum(axis=1, keepdims=True, dtype=np.float64)
    normal: Floats = shifted - np.log(total).astype(np.float32)
    return normal
