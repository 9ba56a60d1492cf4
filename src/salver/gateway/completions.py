"""POST /v1/completions."""

import asyncio
from collections.abc import Sequence

from fastapi import Request
from fastapi.responses import Response

from salver.contract import Finish, SamplingParams, TokenChunk, TokenLogprobs
from salver.errors import InvalidValue
from salver.gateway.arrival import Arrival, arrival_of
from salver.gateway.calls import Call
from salver.gateway.chunks import EventFrame, json_text
from salver.gateway.desk import Desk, ended, finish_word
from salver.gateway.logprobs import LogprobShapes, TextOffsets
from salver.gateway.prompts import EncodedPrompt
from salver.gateway.sampling import Asked, check_options, resolve_max_tokens, sampling_params
from salver.gateway.sse import EventStream, Write
from salver.gateway.wire.completion import (
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
)

DEFAULT_MAX_TOKENS = 16  # OpenAI's


class CompletionEndpoint:
    """Continues prompts for one service."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def create(self, request: Request, body: CompletionRequest) -> Response:
        """Continue one or several prompts, whole or as server-sent events."""
        desk = self._desk
        arrival = arrival_of(request)
        desk.check_model(body.model)
        wanted = _prompts_of(body)
        n = check_options(body, len(wanted), desk.limits)
        desk.check_ready(arrival)
        prompts = [await self._read(wanted, i, body, arrival, n) for i in range(len(wanted))]
        call_id = desk.ids.call("cmpl")
        call = self._call(call_id, arrival, body, prompts, n)
        choices = _Choices(prompts, n, desk.shapes, body)
        if body.stream:
            return self._stream(call, choices, body, arrival)
        answer = await self._answer(call_id, call, choices)
        return Response(answer.model_dump_json(), media_type="application/json")

    async def _read(
        self,
        wanted: Sequence[str | Sequence[int]],
        index: int,
        body: CompletionRequest,
        arrival: Arrival,
        n: int,
    ) -> EncodedPrompt:
        if index:
            await asyncio.sleep(0)  # the tokens of other calls pass between the prompts of one
        return await self._desk.prompts.read(
            wanted[index],
            add_special_tokens=body.add_special_tokens is not False,
            param="prompt" if len(wanted) == 1 else f"prompt[{index}]",
            admit=self._desk.admit(arrival, choices=n, asked=_asked(body)),
        )

    def _call(
        self,
        call_id: str,
        arrival: Arrival,
        body: CompletionRequest,
        prompts: Sequence[EncodedPrompt],
        n: int,
    ) -> Call:
        work = [(prompt.token_ids, self._params(body, prompt)) for prompt in prompts]
        return self._desk.call("completion", call_id, arrival, work, n)

    def _params(self, body: CompletionRequest, prompt: EncodedPrompt) -> SamplingParams:
        desk = self._desk
        max_tokens = resolve_max_tokens(
            _asked(body),
            default=DEFAULT_MAX_TOKENS,
            prompt_tokens=len(prompt.token_ids),
            limits=desk.limits,
        )
        echoed = body.logprobs if body.echo else None
        wanted = [k for k in (echoed, body.prompt_logprobs) if k is not None]
        return sampling_params(
            body,
            max_tokens=max_tokens,
            seed=desk.ids.seed(),
            vocab_size=desk.tokenizer.vocab_size,
            logprobs=body.logprobs,
            prompt_logprobs=max(wanted, default=None),
        )

    def _stream(
        self, call: Call, choices: "_Choices", body: CompletionRequest, arrival: Arrival
    ) -> EventStream:
        frame = self._desk.frame("text_completion", call, body)

        async def produce(write: Write) -> None:
            async def deliver(request: int, chunk: TokenChunk) -> None:
                index, choice = choices.of(request, chunk)
                frame.count(chunk)
                await write(choice.event(frame, index, chunk))

            usage = await self._desk.calls.run(call, deliver)
            await write(frame.usage(usage))

        return EventStream(produce, arrival=arrival, refusals=self._desk.refusals)

    async def _answer(self, call_id: str, call: Call, choices: "_Choices") -> Completion:
        async def deliver(request: int, chunk: TokenChunk) -> None:
            _, choice = choices.of(request, chunk)
            choice.add(chunk)

        usage = await self._desk.calls.run(call, deliver)
        return Completion(
            id=call_id,
            created=self._desk.created(),
            model=self._desk.served.model,
            system_fingerprint=self._desk.served.release,
            choices=choices.shaped(),
            usage=usage,
        )


class _Choices:
    """Every choice of a call: those of prompt i are numbered [i * n, (i + 1) * n)."""

    def __init__(
        self,
        prompts: Sequence[EncodedPrompt],
        n: int,
        shapes: LogprobShapes,
        body: CompletionRequest,
    ) -> None:
        self._n = n
        self._all = [_Choice(prompt, shapes, body) for prompt in prompts for _ in range(n)]

    def of(self, request: int, chunk: TokenChunk) -> "tuple[int, _Choice]":
        """The choice a chunk belongs to, and its number.

        The prompt's log-probabilities come once and are every sibling's.
        """
        first = request * self._n
        if chunk.prompt_logprobs:
            for sibling in self._all[first : first + self._n]:
                sibling.prompt_logprobs = chunk.prompt_logprobs
        index = first + chunk.choice
        return index, self._all[index]

    def shaped(self) -> list[CompletionChoice]:
        return [choice.shaped(index) for index, choice in enumerate(self._all)]


class _Choice:
    """One continuation: what it holds so far, and what it shows of its prompt."""

    def __init__(
        self, prompt: EncodedPrompt, shapes: LogprobShapes, body: CompletionRequest
    ) -> None:
        self.prompt_logprobs: Sequence[TokenLogprobs | None] = ()
        self._prompt = prompt
        self._shapes = shapes
        self._alternatives = body.logprobs
        self._prompt_alternatives = body.prompt_logprobs
        self._to_echo = bool(body.echo)
        self._offsets = TextOffsets()
        self._text: list[str] = []
        self._tokens: list[TokenLogprobs | int] = []
        self._finish: Finish | None = None

    def event(self, frame: EventFrame, index: int, chunk: TokenChunk) -> bytes:
        """The chunk as a streamed event; empty where it has nothing to show."""
        text, tokens = self._shown(chunk)
        if not (text or tokens or chunk.finish):
            return b""
        content = b'"text":' + json_text(text)
        if self._alternatives is None:
            return frame.choice(index, content, finish=chunk.finish)
        logprobs = self._logprobs(tokens).model_dump_json().encode()
        return frame.choice(index, content, logprobs=logprobs, finish=chunk.finish)

    def add(self, chunk: TokenChunk) -> None:
        text, tokens = self._shown(chunk)
        self._text.append(text)
        self._tokens.extend(tokens)
        self._finish = chunk.finish or self._finish

    def shaped(self, index: int) -> CompletionChoice:
        finish = ended(self._finish)
        wanted = self._prompt_alternatives
        return CompletionChoice(
            index=index,
            text="".join(self._text),
            logprobs=None if self._alternatives is None else self._logprobs(self._tokens),
            finish_reason=finish_word(finish.reason),
            stop_reason=finish.matched,
            prompt_logprobs=None
            if wanted is None
            else self._shapes.prompt([_cut(token, wanted) for token in self.prompt_logprobs]),
        )

    def _shown(self, chunk: TokenChunk) -> tuple[str, list[TokenLogprobs | int]]:
        """A chunk's text and tokens, after the prompt's own if it is to be echoed and was not."""
        tokens: list[TokenLogprobs | int] = list(chunk.logprobs)
        if not self._to_echo:
            return chunk.text, tokens
        self._to_echo = False
        return self._prompt.text + chunk.text, self._echoed() + tokens

    def _echoed(self) -> list[TokenLogprobs | int]:
        """The prompt's tokens; a bare id stands for the first, which nothing precedes."""
        if self._alternatives is None:
            return []
        pairs = zip(self._prompt.token_ids, self.prompt_logprobs, strict=True)
        return [_cut(known, self._alternatives) or token_id for token_id, known in pairs]

    def _logprobs(self, tokens: Sequence[TokenLogprobs | int]) -> CompletionLogprobs:
        return self._shapes.completion(tokens, self._offsets)


def _asked(body: CompletionRequest) -> Asked | None:
    return Asked.of(body.max_tokens, "max_tokens")


def _prompts_of(body: CompletionRequest) -> Sequence[str | Sequence[int]]:
    """The prompts of a call, one or several; raises InvalidValue where there is none."""
    prompt = body.prompt
    if not prompt:
        raise InvalidValue(
            "prompt: the prompt is empty", param="prompt", rule="request.empty_prompt"
        )
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt[0], int):
        return [prompt]
    return prompt


def _cut(token: TokenLogprobs | None, alternatives: int) -> TokenLogprobs | None:
    """The same token with no more alternatives than were asked for."""
    if token is None or len(token.top) <= alternatives:
        return token
    return TokenLogprobs(token.token_id, token.logprob, token.top[:alternatives])
