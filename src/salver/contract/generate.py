"""The values that cross the boundary between an edge and whatever computes tokens.

    wire JSON -> GenerateRequest -> ... -> TokenChunk -> SSE

All are frozen, hold plain data only, and survive a round trip through msgpack unchanged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from salver.contract.decision import Decision
from salver.contract.traffic_class import TrafficClass


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one request's tokens are chosen. The edge has validated every range given here.

    The order is fixed: logit bias, bans (`min_tokens`), repetition, presence and frequency
    penalties, temperature, top-k, top-p, min-p, draw. Log-probabilities are those of the raw
    model distribution, before any of it.
    """

    max_tokens: int  # >= 1
    min_tokens: int = 0  # no end-of-sequence or stop token before this many
    temperature: float = 1.0  # 0 is greedy
    top_k: int = 0  # 0 is off
    top_p: float = 1.0  # (0, 1]
    min_p: float = 0.0  # [0, 1]
    presence_penalty: float = 0.0  # [-2, 2]
    frequency_penalty: float = 0.0  # [-2, 2]
    repetition_penalty: float = 1.0  # > 0; counts the prompt too
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # token id -> added logit
    seed: int = 0  # 64 bits; the edge draws one when the caller gave none
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop: bool = False  # keep the stop string in the text
    ignore_eos: bool = False
    skip_special_tokens: bool = True  # leave control tokens out of the text
    logprobs: int | None = None  # None is off; k also returns the k likeliest alternatives
    prompt_logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One accepted call: a prompt and `n` answers to it.

    `deadline` is an instant on the machine's monotonic clock (see `salver.clock`), or None; so is
    `arrived`, when the caller asked, where that is known.
    `call` is what the requests of one call share, that live and die together; empty where there is one.
    `cache_salt` comes from the authenticated tenant, never from the caller (law 7). `messages` is the
    conversation as JSON, for a backend that has a tokenizer of its own; empty where there is none.
    """

    id: str
    prompt_token_ids: tuple[int, ...]
    sampling: SamplingParams
    n: int = 1
    tenant: str = "default"
    cache_salt: str = ""
    deadline: float | None = None
    messages: bytes = b""
    traffic_class: TrafficClass = TrafficClass.STANDARD
    arrived: float | None = None
    call: str = ""


class Outcome(StrEnum):
    """How an accepted request ended. Exactly one per request (law 1)."""

    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    SHED = "shed"  # while it waited, for the sake of others; its caller hears a refusal


class FinishReason(StrEnum):
    """Why generation ended, in OpenAI's words where it has one."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class Timings:
    """Instants in one sequence's life, on the machine's monotonic clock. None: never reached."""

    arrived: float
    scheduled: float | None
    first_token: float | None
    ended: float


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of one choice.

    `matched` is the stop string or stop token id that ended it; `problem` and `rule` say why it
    failed, where it did; `preempted` that it gave its room to others meanwhile, if it did. What was
    not `computed` is a fixed text, for which nobody is charged.
    """

    outcome: Outcome
    reason: FinishReason
    timings: Timings
    matched: str | int | None = None
    cached_tokens: int = 0  # prompt tokens that a prefix hit saved on first scheduling
    problem: str = ""
    rule: str = ""
    preempted: Decision | None = None
    computed: bool = True


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural-log probability of one token, and the likeliest alternatives in falling order."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """What one step produced for one choice of one request.

    `text` is what became final with these tokens: it may lag behind `token_ids` while a UTF-8
    character is incomplete or a stop string may be starting, and never has to be taken back.
    `prompt_logprobs` arrives once, with the first chunk; its first entry is None, since nothing
    precedes the first token. `unnamed_tokens` are those whose ids a backend does not tell.
    """

    request_id: str
    choice: int
    token_ids: tuple[int, ...] = ()
    text: str = ""
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs | None, ...] = ()
    finish: Finish | None = None
    unnamed_tokens: int = 0

    @property
    def num_tokens(self) -> int:
        """How many tokens it stands for."""
        return len(self.token_ids) + self.unnamed_tokens
