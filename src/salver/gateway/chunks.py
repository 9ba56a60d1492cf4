"""The JSON of one streamed event, built around what changes.

A stream repeats its id, its model and its punctuation for every token. They are encoded once;
per token only the new text is. The result is the wire models' own `ChatCompletionChunk` and
`CompletionChunk`, which the tests check every byte against.
"""

import msgspec

from salver.contract import Finish
from salver.gateway.wire.usage import Usage


class EventFrame:
    """The unchanging parts of a stream's events.

    With `include_usage` every event has a `usage`, null in all but the last, as OpenAI does it.
    """

    def __init__(
        self,
        kind: str,
        *,
        call_id: str,
        created: int,
        model: str,
        release: str,
        include_usage: bool,
    ) -> None:
        fixed = {
            "id": call_id,
            "object": kind,
            "created": created,
            "model": model,
            "system_fingerprint": release,
        }
        self.include_usage = include_usage
        self._head = b"data: " + msgspec.json.encode(fixed)[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"

    def choice(
        self,
        index: int,
        content: bytes,
        *,
        logprobs: bytes = b"null",
        finish: Finish | None = None,
    ) -> bytes:
        """One event about one choice; `content` is its `"text":…` or `"delta":…` member."""
        return b"".join(
            (
                self._head,
                b'{"index":%d,' % index,
                content,
                b',"logprobs":',
                logprobs,
                b',"finish_reason":',
                b"null}" if finish is None else _ending(finish),
                self._tail,
            )
        )

    def usage(self, usage: Usage) -> bytes:
        """The last event, about no choice; empty unless it was asked for."""
        if not self.include_usage:
            return b""
        return self._head + b'],"usage":' + usage.model_dump_json().encode() + b"}\n\n"


def json_text(text: str) -> bytes:
    """A text as a JSON string."""
    return msgspec.json.encode(text)


def _ending(finish: Finish) -> bytes:
    return b'"%s","stop_reason":%s}' % (
        finish.reason.value.encode(),
        msgspec.json.encode(finish.matched),
    )
