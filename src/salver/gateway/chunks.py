"""The JSON of one streamed event, built around what changes.

A stream repeats its id, its model and its punctuation for every token. They are encoded once;
per token only the new text is. The result is the wire models' own `ChatCompletionChunk` and
`CompletionChunk`, which the tests check every byte against.
"""

import msgspec

from salver.contract import Finish, TokenChunk
from salver.gateway.wire.usage import Usage


class EventFrame:
    """The unchanging parts of a stream's events.

    With `include_usage` every event has a `usage`, null in all but the last, as OpenAI does it;
    with `continuous` it is the usage of the whole call so far, as vLLM calls it.
    """

    def __init__(
        self,
        kind: str,
        *,
        call_id: str,
        created: int,
        model: str,
        release: str,
        prompt_tokens: int = 0,
        include_usage: bool = False,
        continuous: bool = False,
    ) -> None:
        fixed = {
            "id": call_id,
            "object": kind,
            "created": created,
            "model": model,
            "system_fingerprint": release,
        }
        self._include_usage = include_usage
        self._continuous = include_usage and continuous
        self._prompt_tokens = prompt_tokens
        self._output_tokens = 0
        self._head = b"data: " + msgspec.json.encode(fixed)[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"

    def count(self, chunk: TokenChunk) -> None:
        """Let the events from here on count a chunk's tokens, whether it is shown or not."""
        if self._continuous:
            self._output_tokens += chunk.num_tokens
            self._tail = self._usage_tail(self._so_far())

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
        return self._head + self._usage_tail(usage) if self._include_usage else b""

    def _so_far(self) -> Usage:
        prompt, output = self._prompt_tokens, self._output_tokens
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=output,
            total_tokens=prompt + output,
            prompt_tokens_details=None,
        )

    def _usage_tail(self, usage: Usage) -> bytes:
        return b'],"usage":' + usage.model_dump_json().encode() + b"}\n\n"


def json_text(text: str) -> bytes:
    """A text as a JSON string."""
    return msgspec.json.encode(text)


def _ending(finish: Finish) -> bytes:
    return b'"%s","stop_reason":%s}' % (
        finish.reason.value.encode(),
        msgspec.json.encode(finish.matched),
    )
