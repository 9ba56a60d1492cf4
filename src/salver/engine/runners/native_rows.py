"""The rows of a step that need logits, as the arrays in which the core takes and returns them.

A row is drawn from, or scored against a prompt token that is given. What changes its logits first is
a sparse list of edits, one per token concerned; most rows have none (see `edits`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import InitVar, dataclass, field
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from salver import _native
from salver.contract import TokenLogprobs
from salver.engine.plan import SampleSpec
from salver.engine.runners.edits import NO_EDITS, EditBook
from salver.engine.runners.read_out import LogitRow, PromptTarget
from salver.engine.sampling import uniform

Ints = NDArray[np.int32]
Doubles = NDArray[np.float64]

GREEDY = (0.0, 0.0, 1.0, 0.0, 0.0)
DRAWN = -1  # in `given`: no token is given
UNSCORED = -1  # in `tops`: no log-probabilities


@dataclass(slots=True)
class NativeRows:
    """Arguments of the core's `step`, then its results. See `draw_arrays.h` for their shapes.

    `book` has the edits of the step before, if there was one.
    """

    wanted: Sequence[LogitRow]
    vocab_size: int
    book: InitVar[EditBook | None] = None
    rows: Ints = field(init=False)
    draws: Doubles = field(init=False)
    edit_starts: Ints = field(init=False)
    edits: Doubles = field(init=False)
    given: Ints = field(init=False)
    tops: Ints = field(init=False)
    tokens: Ints = field(init=False)
    logprobs: Doubles = field(init=False)
    top_tokens: Ints = field(init=False)
    top_logprobs: Doubles = field(init=False)

    def __post_init__(self, book: EditBook | None) -> None:
        purposes = [row.purpose for row in self.wanted]
        edits = (book or EditBook(self.vocab_size)).of(self.wanted)
        self.rows = np.array([row.row for row in self.wanted], np.int32)
        self.draws = np.array([_draw(each) for each in purposes]).reshape(-1, 5)
        self.edit_starts = np.fromiter(accumulate(map(len, edits), initial=0), np.int32)
        self.edits = np.concatenate([NO_EDITS, *edits])
        self.given = np.array([_given(each) for each in purposes], np.int32)
        self.tops = np.array([_top(each, self.vocab_size) for each in purposes], np.int32)
        scored = int(np.maximum(self.tops, 0).sum())
        self.tokens, self.logprobs = np.empty(len(purposes), np.int32), np.zeros(len(purposes))
        self.top_tokens, self.top_logprobs = np.empty(scored, np.int32), np.empty(scored)

    def arrays(self) -> _native.DrawArrays:
        """The core's view of these arrays, results included."""
        return _native.DrawArrays(
            draws=self.draws,
            edit_starts=self.edit_starts,
            edits=self.edits,
            given=self.given,
            tops=self.tops,
            tokens=self.tokens,
            logprobs=self.logprobs,
            top_tokens=self.top_tokens,
            top_logprobs=self.top_logprobs,
        )

    def found(self) -> Iterator[tuple[LogitRow, TokenLogprobs | None]]:
        """What came out of each row; None where its logits allow nothing."""
        first = 0
        results = zip(
            self.wanted,
            self.tokens.tolist(),
            self.logprobs.tolist(),
            self.tops.tolist(),
            strict=True,
        )
        for wanted, token, logprob, top in results:
            end = first + max(0, top)
            ids, logprobs = (
                self.top_tokens[first:end].tolist(),
                self.top_logprobs[first:end].tolist(),
            )
            first = end
            best = tuple(zip(ids, logprobs, strict=True))
            yield wanted, TokenLogprobs(token, logprob, best) if token >= 0 else None


def _draw(purpose: PromptTarget | SampleSpec) -> tuple[float, float, float, float, float]:
    if isinstance(purpose, PromptTarget):
        return GREEDY
    params = purpose.params
    drawn = uniform(purpose.seed, len(purpose.output)) if params.temperature else 0.0
    return params.temperature, params.top_k, params.top_p, params.min_p, drawn


def _given(purpose: PromptTarget | SampleSpec) -> int:
    return purpose.token_id if isinstance(purpose, PromptTarget) else DRAWN


def _top(purpose: PromptTarget | SampleSpec, vocab_size: int) -> int:
    wanted = purpose.num_top if isinstance(purpose, PromptTarget) else purpose.params.logprobs
    return UNSCORED if wanted is None else min(wanted, vocab_size)
