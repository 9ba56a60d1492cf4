"""A short run of a real engine: the tokens per second that it reaches when nobody else asks.

Prompts are handed in, ends of sequence are ignored and tokens are the likeliest, so that every run
of a load is the same work.
"""

from collections.abc import Callable, Sequence
from itertools import count

from salver.clock import Clock
from salver.contract import GenerateRequest, SamplingParams
from salver.engine.core import EngineCore

NewPrompts = Callable[[int, int], Sequence[tuple[int, ...]]]
"""So many prompts of so many tokens, new ones each time: the prefix cache is not to know them."""


class Silent:
    """A detokenizer that says nothing: a trial is of tokens."""

    def push(self, _token_id: int, /) -> str:
        return ""

    def flush(self) -> str:
        return ""


class Trial:
    """Runs loads on an engine that has no other work, each for about `seconds`."""

    def __init__(
        self, engine: EngineCore, clock: Clock, new_prompts: NewPrompts, *, seconds: float
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._new_prompts = new_prompts
        self._seconds = seconds
        self._names = map(str, count())

    def decode_rate(self, sequences: int, prompt_tokens: int, max_tokens: int) -> float | None:
        """Tokens/s while all sequences decode: their number over the mean time of a step.

        None where the first ended before the last had begun, or steps are too small for all.
        """
        names = self._add(sequences, prompt_tokens, max_tokens)
        begun: set[str] = set()
        took: list[float] = []
        while self._engine.has_work:
            all_decode = len(begun) == sequences
            seconds, answered = self._step()
            if all_decode and len(answered) == sequences:
                took.append(seconds)
            begun |= answered
            if took and sum(took) >= self._seconds:
                self._cancel(names)
        return sequences * len(took) / sum(took) if took else None

    def prefill_rate(self, sequences: int, prompt_tokens: int) -> float:
        """Prompt tokens/s until every prompt has its first token, over one run or more."""
        took = [self._prefill(sequences, prompt_tokens)]
        while sum(took) < self._seconds:
            took.append(self._prefill(sequences, prompt_tokens))
        return len(took) * sequences * prompt_tokens / sum(took)

    def _prefill(self, sequences: int, prompt_tokens: int) -> float:
        self._add(sequences, prompt_tokens, 1)
        seconds = 0.0
        while self._engine.has_work:
            seconds += self._step()[0]
        return seconds

    def _step(self) -> tuple[float, set[str]]:
        """How long one step took, and which requests it gave a token."""
        began = self._clock.now()
        chunks = self._engine.step()
        seconds = max(self._clock.now() - began, 1e-9)
        return seconds, {chunk.request_id for chunk in chunks if chunk.token_ids}

    def _add(self, sequences: int, prompt_tokens: int, max_tokens: int) -> list[str]:
        sampling = SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)
        names = []
        for prompt in self._new_prompts(sequences, prompt_tokens):
            names.append(next(self._names))
            self._engine.add(GenerateRequest(names[-1], prompt, sampling))
        return names

    def _cancel(self, names: Sequence[str]) -> None:
        for name in names:
            self._engine.cancel(name)
