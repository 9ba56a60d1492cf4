"""One sequence on its way through the engine.

There is no prefill and no decode. A request knows `num_tokens` (prompt and output so far) and
`num_computed_tokens`, those whose KV exists; a step lets the second catch up with the first, and a
request that has caught up gets its next token. A fresh prompt is far behind, a decoding request is
one token behind, a preempted one fell back to zero, a prefix hit starts ahead.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from salver.contract import GenerateRequest, SamplingParams, TokenLogprobs, TrafficClass
from salver.engine.output_text import DecoderFactory, OutputText

Owner = tuple[TrafficClass, str]  # of blocks: one tenant's requests of one class
_GOLDEN_RATIO = 0x9E3779B97F4A7C15  # an odd constant, so that choices get distinct seeds


@dataclass(slots=True)
class Preemptions:
    """How often a request made room, the computed tokens that it gave back, and why it last did."""

    times: int = 0
    tokens: int = 0
    rule: str = ""
    value: int = 0
    limit: int = 0
    heir: str = ""


@dataclass(slots=True, weakref_slot=True)
class CallState:
    """What the requests of one call know of each other: whether a token of any was computed."""

    id: str
    begun: bool = False


class Request:
    """One choice of one GenerateRequest. Mutable, and owned by the scheduler alone."""

    __slots__ = (
        "arrived",
        "cached_tokens",
        "call",
        "cancelled",
        "choice",
        "deadline",
        "ended",
        "expected_tokens",
        "first_token_at",
        "key",
        "leader",
        "num_computed_tokens",
        "output",
        "params",
        "preemptions",
        "prompt",
        "prompt_logprobs",
        "request_id",
        "running",
        "salt",
        "scheduled_at",
        "seed",
        "tenant",
        "text",
        "traffic_class",
    )

    def __init__(
        self,
        source: GenerateRequest,
        choice: int,
        arrived: float,
        text: OutputText,
        leader: "Request | None" = None,
        call: CallState | None = None,
    ) -> None:
        self.key = f"{source.id}#{choice}"
        self.request_id = source.id
        self.choice = choice
        self.params: SamplingParams = source.sampling
        self.seed = (source.sampling.seed + choice * _GOLDEN_RATIO) % 2**64
        self.prompt = source.prompt_token_ids
        self.output: list[int] = []
        self.salt = source.cache_salt
        self.tenant = source.tenant
        self.traffic_class = source.traffic_class
        self.deadline = source.deadline
        self.leader = leader
        self.call = call or CallState(source.call or source.id)
        self.text = text
        self.num_computed_tokens = 0
        # Cached when it is begun, at most, as far as was known when it came.
        self.expected_tokens = 0
        self.cached_tokens = 0
        self.prompt_logprobs: list[TokenLogprobs] = []
        self.preemptions = Preemptions()
        self.cancelled = False
        self.ended = False
        self.running = False
        self.arrived = arrived if source.arrived is None else source.arrived
        self.scheduled_at: float | None = None
        self.first_token_at: float | None = None

    @classmethod
    def choices(
        cls,
        source: GenerateRequest,
        now: float,
        new_decoder: DecoderFactory,
        call: CallState | None = None,
    ) -> "Iterator[Request]":
        """The sequences of a request that comes now; the first leads the others."""
        call = call or CallState(source.call or source.id)
        leader: Request | None = None
        for choice in range(source.n):
            params = source.sampling
            decoder = new_decoder(params.skip_special_tokens)
            text = OutputText(decoder, params.stop, params.include_stop)
            request = cls(source, choice, now, text, leader, call)
            leader = leader or request
            yield request

    @property
    def num_tokens(self) -> int:
        return len(self.prompt) + len(self.output)

    @property
    def num_missing_tokens(self) -> int:
        return self.num_tokens - self.num_computed_tokens

    @property
    def owner(self) -> Owner:
        """Who holds its blocks."""
        return self.traffic_class, self.tenant

    @property
    def was_begun(self) -> bool:
        """Whether a token of it, or of another of its call, was ever computed."""
        return self.call.begun

    def among(self, requests: Iterable["Request"]) -> tuple["Request", ...]:
        """Those of them that are choices of the same request."""
        return tuple(each for each in requests if each.request_id == self.request_id)

    def waits_for_leader(self, block_size: int) -> bool:
        """Choices 1..n-1 wait while choice 0 computes the full blocks they are going to share."""
        if self.leader is None or self.leader.ended:
            return False
        return self.leader.num_computed_tokens < (len(self.prompt) - 1) // block_size * block_size

    def fall_back(self, block_size: int) -> None:
        """It was preempted: nothing is computed, but its full blocks may be found again."""
        found = self.num_computed_tokens // block_size * block_size
        self.expected_tokens = max(self.expected_tokens, found)
        self.num_computed_tokens = 0
        if self.wants_prompt_logprobs:
            self.prompt_logprobs.clear()

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Whether prompt log-probabilities are still owed; they are computed once, by choice 0."""
        return (
            self.params.prompt_logprobs is not None
            and self.choice == 0
            and len(self.prompt_logprobs) < len(self.prompt) - 1
        )

    def take_prompt_logprobs(self) -> tuple[TokenLogprobs | None, ...]:
        """What the first chunk carries: nothing precedes the first prompt token."""
        if self.params.prompt_logprobs is None or self.choice != 0:
            return ()
        return (None, *self.prompt_logprobs)

    def tokens(self, start: int, end: int) -> list[int]:
        """Token ids at positions [start, end)."""
        prompt_length = len(self.prompt)
        if start >= prompt_length:
            return self.output[start - prompt_length : end - prompt_length]
        head = list(self.prompt[start:end])
        return head + self.output[: max(0, end - prompt_length)]

    def expired(self, now: float) -> bool:
        return self.deadline is not None and now >= self.deadline

    def __repr__(self) -> str:
        return (
            f"<Request {self.key} computed {self.num_computed_tokens}/{self.num_tokens} "
            f"(prompt {len(self.prompt)}, output {len(self.output)}/{self.params.max_tokens})>"
        )
