"""What a schedule is made of: one request, before it is anybody's."""

from dataclasses import dataclass

from salver.contract import TrafficClass


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: str
    content: str


Prompt = tuple[int, ...] | tuple[Message, ...] | str
"""Token ids, a conversation, or a text to continue."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request. Times are in seconds.

    `at` counts from the start of the schedule; in a closed loop it is the pause after the user's
    previous answer instead. `timeout` and `abandon_after` count from `at`. `number` is unique in
    the schedule, and `session` and `turn` tell conversations. `input_tokens` is None where only a
    tokenizer would know.
    """

    number: int
    at: float
    flow: str
    tenant: str
    traffic_class: TrafficClass
    prompt: Prompt
    input_tokens: int | None
    max_tokens: int
    timeout: float
    abandon_after: float | None = None
    session: str = ""
    turn: int = 0
