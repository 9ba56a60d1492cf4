"""What is in a session: whose it is, its turns, their lengths and their prompts.

Each of these is drawn from a stream of its own, session by session, so that (say) another output
length leaves every prompt as it was, and the tenth session is the same whatever the rate, but for
what is said in it (`salver.workload.prompts.Contents`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate

import numpy as np

from salver.workload.arrival import Arrival, Prompt
from salver.workload.lengths import draw_length
from salver.workload.mix import Flow, TenantShare
from salver.workload.prompts import Contents, TokenPrompts, conversation
from salver.workload.randomness import stream
from salver.workload.traces import BLOCK_TOKENS, Row

NO_ROW = Row(0.0, 1, 1)
"""Stands for the trace's row where a flow has no trace."""


@dataclass(frozen=True, slots=True)
class _Streams:
    """One generator per part."""

    tenant: np.random.Generator
    turns: np.random.Generator
    think: np.random.Generator
    input: np.random.Generator
    output: np.random.Generator
    prefix: np.random.Generator
    abandoned: np.random.Generator

    @classmethod
    def of(cls, seed: int, *path: str | int) -> "_Streams":
        return cls(*(stream(seed, *path, part.name) for part in fields(cls)))


class SessionDraws:
    """Draws one flow's sessions, in order of their numbers.

    `telling` decides what is said. `path` tells apart several sequences of one flow: the users of
    a closed loop.
    """

    def __init__(
        self,
        flow: Flow,
        texts: Sequence[tuple[str, ...]],
        seed: int,
        telling: str,
        *path: str | int,
    ) -> None:
        self._flow = flow
        self._texts = texts
        self._streams = _Streams.of(seed, flow.name, *path)
        self._shares = np.array(list(accumulate(tenant.share for tenant in flow.tenants)))
        self._order = stream(seed, flow.name, *path, "order").permutation(len(texts))
        contents = Contents(seed, flow.name, telling)
        self._numbers = contents.stream(*path, "number")
        self._tokens = TokenPrompts(*(flow.prompts.tokens or (0, 1)), contents, *path)
        self._name = ".".join(map(str, (flow.name, *path)))

    def session(self, number: int, at: float, row: Row = NO_ROW) -> Iterator[Arrival]:
        """The turns of a session that begins at this time, in order."""
        tenant = self._tenant()
        texts = self._texts[self._order[number % len(self._texts)]] if self._texts else ()
        outputs = [self._output(row) for _ in range(self._turn_count(texts))]
        jsonl = self._flow.prompts.jsonl
        prompts = (
            conversation(texts, jsonl, outputs, self._number())
            if jsonl
            else self._token_prompts(row, outputs)
        )
        for turn, prompt in enumerate(prompts):
            if turn and self._flow.sessions:
                at += self._streams.think.exponential(self._flow.sessions.think)
            yield Arrival(
                number=0,  # the schedule's, given when flows are merged
                at=at,
                flow=self._flow.name,
                tenant=tenant.name,
                traffic_class=tenant.traffic_class,
                prompt=prompt,
                input_tokens=None if jsonl else len(prompt),
                max_tokens=outputs[turn],
                timeout=self._flow.timeout,
                abandon_after=self._abandoned(),
                session=f"{self._name}.{number}",
                turn=turn,
            )

    def _tenant(self) -> TenantShare:
        point = self._streams.tenant.uniform() * self._shares[-1]
        return self._flow.tenants[int(np.searchsorted(self._shares, point, side="right"))]

    def _turn_count(self, texts: Sequence[str]) -> int:
        """A file's conversations have no more turns than are written."""
        if self._flow.sessions is None:
            return 1
        drawn = draw_length(self._flow.sessions.turns, self._streams.turns)
        return min(drawn, len(texts)) if texts else drawn

    def _number(self) -> int:
        """Of ten digits, so that all are as long."""
        return int(self._numbers.integers(10**9, 10**10))

    def _output(self, row: Row) -> int:
        return draw_length(self._flow.output, self._streams.output, row.output_tokens)

    def _token_prompts(self, row: Row, outputs: Sequence[int]) -> Iterator[Prompt]:
        """Each turn is all before it, the answer made up for it, and as much again as `input` says."""
        said = self._prefix()
        for output in outputs:
            said += self._new_tokens(row)
            yield said
            said += self._tokens.draw(output)

    def _prefix(self) -> tuple[int, ...]:
        prefixes = self._flow.prefixes
        if prefixes is None:
            return ()
        chosen = int(self._streams.prefix.integers(prefixes.count))
        return self._tokens.block("prefix", chosen, prefixes.tokens)

    def _new_tokens(self, row: Row) -> tuple[int, ...]:
        lengths = self._flow.input
        if lengths is None:
            raise ValueError("loading a mix makes sure that token prompts have an input length")
        count = draw_length(lengths, self._streams.input, row.input_tokens)
        if not row.blocks:
            return self._tokens.draw(count)
        each = max(1, round(BLOCK_TOKENS * (lengths.trace or 1.0)))
        return self._tokens.content(row.blocks, each, count)

    def _abandoned(self) -> float | None:
        abandoned = self._flow.abandoned
        if abandoned is None:
            return None
        point, after = self._streams.abandoned.uniform(), self._streams.abandoned.exponential()
        return after * abandoned.after if point < abandoned.share else None
