"""A Backend that says what it is told to, and remembers what it was asked.

It speaks bytes: the token ids of a piece are its UTF-8 bytes, so a byte-level tokenizer reads them
back. Everything that can go wrong with a real backend can be scripted by one attribute.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator

from salver.clock import Clock, MonotonicClock
from salver.contract import (
    Decision,
    Finish,
    FinishReason,
    GenerateRequest,
    LatencyModel,
    LoadSnapshot,
    Outcome,
    SamplingParams,
    TenantQueue,
    Timings,
    TokenChunk,
    TokenLogprobs,
)
from salver.errors import BackendLost, BackendUnavailable, Refused


class FakeBackend:
    """Answers every choice with `pieces`, one chunk each, cut at `max_tokens`.

    Attributes to script it, read anew by each request:
        ready: False raises BackendUnavailable.
        refusal: a Decision to refuse with.
        gate: a semaphore of which every chunk takes one permit; none left is a slow backend.
        dies_after: raise BackendLost once this many chunks were yielded.
        outcome, matched, cached_tokens: what every Finish says.
        latency, queue_seconds, told_at: what `load` says of them.

    Attributes that record: `requests` (all of them), `cancelled` (ids closed before their end) and
    `active` (ids in flight).
    """

    def __init__(self, *pieces: str, name: str = "fake", clock: Clock | None = None) -> None:
        self.name = name
        self.pieces = pieces or ("Hello", " there")
        self.ready = True
        self.refusal: Decision | None = None
        self.gate: asyncio.Semaphore | None = None
        self.dies_after: int | None = None
        self.outcome = Outcome.FINISHED
        self.matched: str | int | None = None
        self.cached_tokens = 0
        self.preempted: Decision | None = None
        self.latency: LatencyModel | None = None
        self.queue_seconds = 0.0
        self.told_at: float | None = None
        self.requests: list[GenerateRequest] = []
        self.cancelled: list[str] = []
        self.active: set[str] = set()
        self._clock = clock or MonotonicClock()

    def check_ready(self, request_id: str) -> None:
        if not self.ready:
            raise BackendUnavailable("the fake backend is not ready", rule="backend.ready")

    def load(self) -> LoadSnapshot:
        return LoadSnapshot(
            requests_running=len(self.active),
            queues=(TenantQueue(seconds=self.queue_seconds),),
            kv_blocks_total=8,
            kv_blocks_owned=2,
            latency=self.latency,
            told_at=self.told_at,
        )

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenChunk, None]:
        self._admit(request)
        self.active.add(request.id)
        ended = False
        try:
            for number, chunk in enumerate(self._chunks(request)):
                if self.gate is not None:
                    await self.gate.acquire()
                if self.dies_after == number:
                    raise BackendLost("the fake backend died", rule="backend.alive")
                yield chunk
            ended = True
        except BackendLost:
            ended = True
            raise
        finally:
            self.active.discard(request.id)
            if not ended:
                self.cancelled.append(request.id)

    def _admit(self, request: GenerateRequest) -> None:
        self.requests.append(request)
        self.check_ready(request.id)
        if self.refusal is not None:
            raise Refused(self.refusal)

    def _chunks(self, request: GenerateRequest) -> Iterator[TokenChunk]:
        """Piece by piece, every choice in turn, as a batched engine would."""
        arrived = self._clock.now()
        budget = request.sampling.max_tokens
        for number, piece in enumerate(self.pieces):
            taken = tuple(piece.encode())[:budget]
            budget -= len(taken)
            last = number + 1 == len(self.pieces) or budget == 0
            for choice in range(request.n):
                finish = self._finish(arrived, full=budget == 0) if last else None
                first = number == 0 and choice == 0
                yield _chunk(request, choice, taken, finish, with_prompt=first)
            if last:
                return

    def _finish(self, arrived: float, *, full: bool) -> Finish:
        now = self._clock.now()
        reason = FinishReason.LENGTH if full else FinishReason.STOP
        if self.outcome is not Outcome.FINISHED:
            reason = FinishReason.ABORT
        timings = Timings(arrived=arrived, scheduled=arrived, first_token=now, ended=now)
        failed = self.outcome is Outcome.FAILED
        return Finish(
            self.outcome,
            reason,
            timings,
            self.matched,
            self.cached_tokens,
            problem="the fake backend could not go on" if failed else "",
            rule="fake.failure" if failed else "",
            preempted=self.preempted,
        )


def _chunk(
    request: GenerateRequest,
    choice: int,
    token_ids: tuple[int, ...],
    finish: Finish | None,
    *,
    with_prompt: bool,
) -> TokenChunk:
    return TokenChunk(
        request_id=request.id,
        choice=choice,
        token_ids=token_ids,
        text=bytes(token_ids).decode(errors="ignore"),
        logprobs=_logprobs(token_ids, request.sampling.logprobs),
        prompt_logprobs=_prompt_logprobs(request) if with_prompt else (),
        finish=finish,
    )


def _logprobs(token_ids: tuple[int, ...], top: int | None) -> tuple[TokenLogprobs, ...]:
    """Half a nat for the token itself, then one nat less for each of its neighbours."""
    if top is None:
        return ()
    return tuple(
        TokenLogprobs(token, -0.5, tuple(((token + i) % 256, -0.5 - i) for i in range(top)))
        for token in token_ids
    )


def _prompt_logprobs(request: GenerateRequest) -> tuple[TokenLogprobs | None, ...]:
    params: SamplingParams = request.sampling
    if params.prompt_logprobs is None:
        return ()
    return (None, *_logprobs(request.prompt_token_ids[1:], params.prompt_logprobs))
