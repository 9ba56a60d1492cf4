"""What the gateway is told about the service it fronts."""

from dataclasses import dataclass
from typing import Literal

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
    `max_in_flight` bounds calls for inference, and with `max_body_bytes` the memory that bodies can hold.
    It has to be more than the backend runs and keeps waiting, which knows better who has to give way.
    """

    max_context_tokens: int
    max_output_tokens: int
    default_timeout_seconds: float
    max_body_bytes: int = 4 * 2**20
    max_choices: int = 128
    max_in_flight: int = 512
