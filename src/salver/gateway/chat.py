"""POST /v1/chat/completions."""

import msgspec
from fastapi import Request
from fastapi.responses import Response

from salver.contract import Finish, TokenChunk, TokenLogprobs
from salver.errors import InvalidValue, UnsupportedField
from salver.gateway.arrival import Arrival, arrival_of
from salver.gateway.calls import Call
from salver.gateway.chunks import EventFrame, json_text
from salver.gateway.desk import Desk, ended, finish_word
from salver.gateway.logprobs import LogprobShapes
from salver.gateway.sampling import Asked, check_options, resolve_max_tokens, sampling_params
from salver.gateway.sse import EventStream, Write
from salver.gateway.wire.chat import (
    AnswerMessage,
    ChatChoice,
    ChatCompletion,
    ChatCompletionRequest,
)

_ROLE = b'"delta":{"role":"assistant","content":""}'
_NOTHING = b'"delta":{}'


class ChatEndpoint:
    """Answers chats for one service."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def create(self, request: Request, body: ChatCompletionRequest) -> Response:
        """Answer a conversation, whole or as server-sent events."""
        call_id = self._desk.ids.call("chatcmpl")
        call = await self._call(call_id, arrival_of(request), body)
        if body.stream:
            return self._stream(call, body, arrival_of(request))
        answer = await self._answer(call_id, call, body)
        return Response(answer.model_dump_json(), media_type="application/json")

    async def _call(self, call_id: str, arrival: Arrival, body: ChatCompletionRequest) -> Call:
        desk = self._desk
        desk.check_model(body.model)
        n = check_options(body, 1, desk.limits)
        _check_chat_options(body)
        desk.check_ready(arrival)
        asked = _asked(body)
        prompt = await desk.prompts.chat(
            body.messages,
            body.tools or (),
            add_generation_prompt=body.add_generation_prompt is not False,
            add_special_tokens=bool(body.add_special_tokens),
            admit=desk.admit(arrival, choices=n, asked=asked),
        )
        params = sampling_params(
            body,
            max_tokens=resolve_max_tokens(
                asked, default=None, prompt_tokens=len(prompt), limits=desk.limits
            ),
            seed=desk.ids.seed(),
            vocab_size=desk.tokenizer.vocab_size,
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            prompt_logprobs=body.prompt_logprobs,
        )
        return desk.call("chat", call_id, arrival, [(prompt, params)], n, self._messages(body))

    def _messages(self, body: ChatCompletionRequest) -> bytes:
        """The conversation as JSON for whoever tokenizes it anew; none where tools belong to it."""
        if not self._desk.keeps_messages or body.tools:
            return b""
        return msgspec.json.encode([each.model_dump(exclude_none=True) for each in body.messages])

    def _stream(self, call: Call, body: ChatCompletionRequest, arrival: Arrival) -> EventStream:
        frame = self._desk.frame("chat.completion.chunk", call, body)

        async def produce(write: Write) -> None:
            events = _ChatEvents(frame, self._desk.shapes)

            async def deliver(_: int, chunk: TokenChunk) -> None:
                frame.count(chunk)
                await write(events.of(chunk))

            usage = await self._desk.calls.run(call, deliver)
            await write(frame.usage(usage))

        return EventStream(produce, arrival=arrival, refusals=self._desk.refusals)

    async def _answer(
        self, call_id: str, call: Call, body: ChatCompletionRequest
    ) -> ChatCompletion:
        choices = [_Gathered() for _ in range(call.requests[0].n)]
        prompt_logprobs: list[TokenLogprobs | None] = []

        async def deliver(_: int, chunk: TokenChunk) -> None:
            choices[chunk.choice].add(chunk)
            prompt_logprobs.extend(chunk.prompt_logprobs)

        usage = await self._desk.calls.run(call, deliver)
        shapes = self._desk.shapes
        return ChatCompletion(
            id=call_id,
            created=self._desk.created(),
            model=self._desk.served.model,
            system_fingerprint=self._desk.served.release,
            choices=[
                choice.shaped(index, shapes if body.logprobs else None)
                for index, choice in enumerate(choices)
            ],
            usage=usage,
            prompt_logprobs=shapes.prompt(prompt_logprobs) if prompt_logprobs else None,
        )


class _Gathered:
    """One choice of an answer that is sent whole."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._logprobs: list[TokenLogprobs] = []
        self._finish: Finish | None = None

    def add(self, chunk: TokenChunk) -> None:
        self._text.append(chunk.text)
        self._logprobs.extend(chunk.logprobs)
        self._finish = chunk.finish or self._finish

    def shaped(self, index: int, shapes: LogprobShapes | None) -> ChatChoice:
        finish = ended(self._finish)
        return ChatChoice(
            index=index,
            message=AnswerMessage(content="".join(self._text)),
            logprobs=shapes.chat(self._logprobs) if shapes else None,
            finish_reason=finish_word(finish.reason),
            stop_reason=finish.matched,
        )


class _ChatEvents:
    """The events of a streamed chat: each choice's role, its text as it comes, its end."""

    def __init__(self, frame: EventFrame, shapes: LogprobShapes) -> None:
        self._frame = frame
        self._shapes = shapes
        self._started: set[int] = set()

    def of(self, chunk: TokenChunk) -> bytes:
        index = chunk.choice
        events = []
        if index not in self._started:
            self._started.add(index)
            events.append(self._frame.choice(index, _ROLE))
        if chunk.text or chunk.logprobs:
            events.append(self._content(chunk))
        if chunk.finish is not None:
            events.append(self._frame.choice(index, _NOTHING, finish=chunk.finish))
        return b"".join(events)

    def _content(self, chunk: TokenChunk) -> bytes:
        delta = b'"delta":{"content":' + json_text(chunk.text) + b"}"
        if not chunk.logprobs:
            return self._frame.choice(chunk.choice, delta)
        logprobs = self._shapes.chat(chunk.logprobs).model_dump_json().encode()
        return self._frame.choice(chunk.choice, delta, logprobs=logprobs)


def _asked(body: ChatCompletionRequest) -> Asked | None:
    if body.max_completion_tokens is not None:
        return Asked(body.max_completion_tokens, "max_completion_tokens")
    return Asked.of(body.max_tokens, "max_tokens")


def _check_chat_options(body: ChatCompletionRequest) -> None:
    """Options of a chat that only have a meaning together.

    Raises:
        InvalidValue: `top_logprobs` without `logprobs`, or two different output bounds.
        UnsupportedField: tools that the model may call, since its calls are not parsed.
    """
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidValue(
            "top_logprobs: only has a meaning with logprobs: true",
            param="top_logprobs",
            rule="request.top_logprobs",
            value=body.top_logprobs,
        )
    bounds = {body.max_tokens, body.max_completion_tokens} - {None}
    if len(bounds) > 1:
        raise InvalidValue(
            "max_completion_tokens: differs from max_tokens, its older name",
            param="max_completion_tokens",
            rule="request.max_completion_tokens",
            value=body.max_completion_tokens,
            limit=body.max_tokens,
        )
    if body.tools and body.tool_choice != "none":
        raise UnsupportedField(
            "tools: calls are not parsed from the model's answer",
            param="tools",
            rule="request.tools",
            fix='send tool_choice: "none" to show the tools to the model and read its text yourself',
        )
