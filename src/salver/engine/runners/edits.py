"""What happens to logits before a draw, as sparse lists that grow with their sequences.

A penalty concerns every token of a context, and going through a long one for each token drawn costs
as much as a step. So a sequence's edits are kept, and a step adds the tokens drawn since: the same
numbers as from scratch, to the bit. Only what the latest step had is kept. A sequence that was away
for a step is gone through again, and so is one that is not provably the same: its lists must be the
very same objects, which nobody else can have while they are held here.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from salver.engine.plan import SampleSpec
from salver.engine.runners.read_out import LogitRow, PromptTarget
from salver.engine.sampling import in_vocabulary

Doubles = NDArray[np.float64]

NO_EDITS: Doubles = np.empty((0, 4))
_ID, _REPETITION, _TAKEN = 0, 2, 3


@dataclass(slots=True)
class _Kept:
    """`edits` with the first `length` tokens of `spec.output` taken in, which held `counts`."""

    spec: SampleSpec
    length: int
    counts: Counter[int]
    edits: Doubles

    def goes_on_in(self, spec: SampleSpec) -> bool:
        """Whether `spec` is of the same sequence, some tokens on."""
        mine = self.spec
        return (
            mine.prompt is spec.prompt
            and mine.output is spec.output
            and mine.params == spec.params
            and mine.banned == spec.banned
            and self.length <= len(spec.output)
        )

    def take_in(self, token_id: int) -> None:
        """One more token of the output, in the vocabulary."""
        params, edits = self.spec.params, self.edits
        at = int(np.searchsorted(edits[:, _ID], token_id))
        if at == len(edits) or edits[at, _ID] != token_id:
            edits = self.edits = np.insert(edits, at, (token_id, 0.0, 1.0, 0.0), axis=0)
        self.counts[token_id] += 1
        edits[at, _REPETITION] = params.repetition_penalty
        if params.presence_penalty or params.frequency_penalty:
            counted = params.frequency_penalty * self.counts[token_id]
            edits[at, _TAKEN] = params.presence_penalty + counted


class EditBook:
    """The edits of every row of a step, with those of the step before at hand."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._kept: dict[str, _Kept] = {}

    def of(self, rows: Sequence[LogitRow]) -> list[Doubles]:
        """[tokens, (id, added, repetition, taken)] of each row, in rising order of id: see `Edit` in
        `sampler.h`. Valid until the next call."""
        before, self._kept = self._kept, {}
        return [self._edits(row, before.get(row.key)) for row in rows]

    def _edits(self, row: LogitRow, kept: _Kept | None) -> Doubles:
        spec = row.purpose
        if isinstance(spec, PromptTarget) or not _looks_back(spec):
            return edits_of(spec, self._vocab_size)
        if kept is None or not kept.goes_on_in(spec):
            counts = Counter(in_vocabulary(spec.output, self._vocab_size).tolist())
            kept = _Kept(spec, len(spec.output), counts, edits_of(spec, self._vocab_size))
        for token_id in self._drawn_since(kept.length, spec.output):
            kept.take_in(token_id)
        kept.length = len(spec.output)
        self._kept[row.key] = kept
        return kept.edits

    def _drawn_since(self, length: int, output: Sequence[int]) -> Iterator[int]:
        return (token for token in output[length:] if 0 <= token < self._vocab_size)


def edits_of(purpose: PromptTarget | SampleSpec, vocab_size: int) -> Doubles:
    """The edits of one row from scratch: the definition."""
    if isinstance(purpose, PromptTarget) or not _has_edits(purpose):
        return NO_EDITS
    params, none = purpose.params, np.empty(0, np.int64)
    repeats = params.repetition_penalty != 1.0
    counted = bool(params.presence_penalty or params.frequency_penalty)
    output = in_vocabulary(purpose.output, vocab_size) if repeats or counted else none
    prompt = in_vocabulary(purpose.prompt, vocab_size) if repeats else none
    seen = np.union1d(prompt, output) if repeats else none
    drawn, counts = np.unique(output, return_counts=True) if counted else (none, none)
    bias = {i: added for i, added in params.logit_bias.items() if 0 <= i < vocab_size}
    biased, banned = np.fromiter(bias, np.int64), in_vocabulary(purpose.banned, vocab_size)
    ids = np.unique(np.concatenate([biased, banned, seen, drawn]))
    edits = np.zeros((len(ids), 4))
    edits[:, 0], edits[:, 2] = ids, 1.0
    edits[np.searchsorted(ids, biased), 1] = np.fromiter(bias.values(), float)
    edits[np.searchsorted(ids, banned), 1] = -np.inf
    edits[np.searchsorted(ids, seen), 2] = params.repetition_penalty
    penalty = params.presence_penalty + params.frequency_penalty * counts
    edits[np.searchsorted(ids, drawn), 3] = penalty
    return edits


def _has_edits(spec: SampleSpec) -> bool:
    return bool(spec.banned or spec.params.logit_bias or _looks_back(spec))


def _looks_back(spec: SampleSpec) -> bool:
    """Whether what was seen before changes the draw."""
    params = spec.params
    return bool(
        params.presence_penalty or params.frequency_penalty or params.repetition_penalty != 1.0
    )
