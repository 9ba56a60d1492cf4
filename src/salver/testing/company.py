"""Prompts computed together, in chunks: what law 3 compares with each of them computed alone."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from salver.engine.plan import SchedulerOutput
from salver.testing.steps import Piece, lay_out

Chunks = Iterable[Mapping[int, int]]  # per step: prompt -> how many of its tokens, in batch order


class Forward(Protocol):
    def forward(self, plan: SchedulerOutput) -> NDArray[np.float32]: ...


def hidden_in_company(
    runner: Forward,
    prompts: Sequence[Sequence[int]],
    tables: Sequence[Sequence[int]],
    chunks: Chunks,
) -> list[NDArray[np.float32]]:
    """The last hidden states [tokens, hidden] of each prompt, whose blocks are those of its table."""
    parts: list[list[NDArray[np.float32]]] = [[] for _ in prompts]
    done = [0] * len(prompts)
    for counts in chunks:
        pieces = []
        for i, count in counts.items():
            pieces.append(Piece(str(i), prompts[i][done[i] : done[i] + count], done[i], tables[i]))
            done[i] += count
        plan = lay_out(pieces)
        hidden = runner.forward(plan)
        for sequence in plan.sequences:
            parts[int(sequence.key)].append(hidden[sequence.start : sequence.end])
    return [np.concatenate(part) for part in parts]


def random_chunks(lengths: Sequence[int], chance: random.Random) -> Iterator[dict[int, int]]:
    """Steps that together cover prompts of these lengths: any batch, any order, any chunk."""
    left = dict(enumerate(lengths))
    largest = chance.choice([2, 9, 40, 140])
    while left:
        batch = chance.sample(sorted(left), k=chance.randint(1, len(left)))
        counts = {i: min(chance.randint(1, largest), left[i]) for i in batch}
        left = {i: rest for i in left if (rest := left[i] - counts.get(i, 0))}
        yield counts
