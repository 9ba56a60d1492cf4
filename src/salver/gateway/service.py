"""What the gateway is told about the service it fronts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Mode = Literal["production", "development"]


@dataclass(frozen=True, slots=True)
class Served:
    """Names of what is served. `release` is the release id; `owner` answers when it breaks."""

    model: str
    deployment: str
    release: str
    owner: str
    mode: Mode = "production"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call, and all calls together, may take from this process.

    The first three come from the contract. `max_choices` bounds prompts times `n` of a call;
    `max_in_flight` bounds calls, and with `max_body_bytes` the memory that bodies can hold.
    """

    max_context_tokens: int
    max_output_tokens: int
    default_timeout_seconds: float
    max_body_bytes: int = 4 * 2**20
    max_choices: int = 128
    max_in_flight: int = 512


class Tokenizer(Protocol):
    """The part of `salver.models.Tokenizer` that the gateway uses."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def max_token_bytes(self) -> int:
        """Length of the longest token, so that B bytes of text are at least B / this tokens."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool, parse_special: bool) -> list[int]: ...

    def decode(self, ids: list[int], *, skip_special_tokens: bool = True) -> str: ...

    def token_bytes(self, token_id: int) -> bytes: ...


class ChatTemplate(Protocol):
    """The part of `salver.models.ChatTemplate` that the gateway uses."""

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
        add_generation_prompt: bool = True,
    ) -> str:
        """The prompt's text. Raises RequestError where the template refuses the messages."""
        ...
