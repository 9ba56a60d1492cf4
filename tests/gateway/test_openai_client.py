"""The official client against a real server: what users will run."""

import asyncio
from collections.abc import Awaitable, Callable

import openai as api
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionUserMessageParam

from salver.contract import Action, Cause, Decision, Outcome
from salver.testing import FakeBackend

HELLO: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "hi"}]
Until = Callable[[Callable[[], bool]], Awaitable[None]]

PROMPT = "user:hi\nassistant:"


async def test_chat(openai: AsyncOpenAI, backend: FakeBackend) -> None:
    answer = await openai.chat.completions.create(model="tiny", messages=HELLO)
    assert answer.choices[0].message.content == "Héllo there"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(PROMPT)
    assert answer.usage.completion_tokens == len("Héllo there".encode())
    assert bytes(backend.requests[0].prompt_token_ids).decode() == PROMPT


async def test_chat_stream_with_usage(openai: AsyncOpenAI, backend: FakeBackend) -> None:
    backend.cached_tokens = 4
    stream = await openai.chat.completions.create(
        model="tiny", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].delta.content for c in chunks[1:-2]] == ["Hé", "llo", " there"]
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == len(PROMPT) + 12
    assert chunks[-1].usage.prompt_tokens_details is not None
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == 4
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_completion(openai: AsyncOpenAI, backend: FakeBackend) -> None:
    answer = await openai.completions.create(model="tiny", prompt="Once", max_tokens=3)
    assert answer.choices[0].text == "Hé"
    assert answer.choices[0].finish_reason == "length"
    assert backend.requests[0].prompt_token_ids == (256, *b"Once")


async def test_completion_stream(openai: AsyncOpenAI) -> None:
    stream = await openai.completions.create(model="tiny", prompt=[1, 2], stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Héllo there"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, "stop"]


@pytest.mark.parametrize("stream", [False, True])
async def test_chat_logprobs(openai: AsyncOpenAI, *, stream: bool) -> None:
    tokens = []
    if stream:
        events = await openai.chat.completions.create(
            model="tiny", messages=HELLO, logprobs=True, top_logprobs=2, stream=True
        )
        async for event in events:
            if event.choices[0].logprobs is not None:
                tokens += event.choices[0].logprobs.content or []
    else:
        answer = await openai.chat.completions.create(
            model="tiny", messages=HELLO, logprobs=True, top_logprobs=2
        )
        assert answer.choices[0].logprobs is not None
        tokens = answer.choices[0].logprobs.content or []
    assert bytes(b for token in tokens for b in token.bytes or []).decode() == "Héllo there"
    assert tokens[0].logprob == -0.5
    assert [top.token for top in tokens[0].top_logprobs] == ["H", "I"]


async def test_several_choices(openai: AsyncOpenAI, backend: FakeBackend) -> None:
    answer = await openai.chat.completions.create(model="tiny", messages=HELLO, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.message.content for choice in answer.choices} == {"Héllo there"}
    assert backend.requests[0].n == 3
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(PROMPT)  # one prompt, however many answers


async def test_several_choices_interleave_in_one_stream(openai: AsyncOpenAI) -> None:
    stream = await openai.chat.completions.create(model="tiny", messages=HELLO, n=2, stream=True)
    texts = {0: "", 1: ""}
    order = []
    async for chunk in stream:
        choice = chunk.choices[0]
        texts[choice.index] += choice.delta.content or ""
        order.append(choice.index)
    assert texts == {0: "Héllo there", 1: "Héllo there"}
    assert order != sorted(order)


async def test_stop_reaches_the_backend_and_comes_back(
    openai: AsyncOpenAI, backend: FakeBackend
) -> None:
    backend.matched = "END"
    answer = await openai.chat.completions.create(
        model="tiny", messages=HELLO, stop=["END", "\n"], extra_body={"stop_token_ids": [7]}
    )
    assert backend.requests[0].sampling.stop == ("END", "\n")
    assert backend.requests[0].sampling.stop_token_ids == (7,)
    choice = answer.choices[0].model_dump()
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "END")


async def test_every_sampling_field_reaches_the_backend(
    openai: AsyncOpenAI, backend: FakeBackend
) -> None:
    await openai.chat.completions.create(
        model="tiny",
        messages=HELLO,
        max_completion_tokens=9,
        temperature=0.5,
        top_p=0.9,
        presence_penalty=0.1,
        frequency_penalty=-0.1,
        logit_bias={"65": 5},
        seed=-1,
        user="someone",
        extra_body={
            "top_k": 5,
            "min_p": 0.1,
            "repetition_penalty": 1.1,
            "min_tokens": 2,
            "ignore_eos": True,
            "include_stop_str_in_output": True,
            "skip_special_tokens": False,
        },
    )
    params = backend.requests[0].sampling
    assert (params.max_tokens, params.min_tokens) == (9, 2)
    assert (params.temperature, params.top_p, params.top_k, params.min_p) == (0.5, 0.9, 5, 0.1)
    assert (params.presence_penalty, params.frequency_penalty) == (0.1, -0.1)
    assert params.repetition_penalty == 1.1
    assert params.logit_bias == {65: 5.0}
    assert params.seed == 2**64 - 1
    assert (params.ignore_eos, params.include_stop) == (True, True)
    assert params.skip_special_tokens is False


async def test_models(openai: AsyncOpenAI) -> None:
    listed = await openai.models.list()
    assert [model.id for model in listed.data] == ["tiny"]
    assert (await openai.models.retrieve("tiny")).owned_by == "owner@example.com"
    with pytest.raises(api.NotFoundError):
        await openai.models.retrieve("org/other")


async def test_errors_arrive_as_the_clients_own(openai: AsyncOpenAI, backend: FakeBackend) -> None:
    with pytest.raises(api.NotFoundError) as missing:
        await openai.chat.completions.create(model="gpt-4", messages=HELLO)
    assert missing.value.code == "model_not_found"
    assert missing.value.param == "model"
    with pytest.raises(api.UnprocessableEntityError):
        await openai.chat.completions.create(model="tiny", messages=HELLO, temperature=5)
    backend.refusal = Decision(
        "d-1", "admission.max_queued_tokens", 9, 8, Action.REFUSE, Cause.CALLER, "full", 2.5
    )
    with pytest.raises(api.RateLimitError) as full:
        await openai.chat.completions.create(model="tiny", messages=HELLO, stream=True)
    assert full.value.response.headers["retry-after"] == "3"
    assert full.value.response.headers["x-salver-decision"] == "d-1"
    backend.ready = False
    with pytest.raises(api.InternalServerError) as away:
        await openai.completions.create(model="tiny", prompt="a")
    assert away.value.status_code == 503


async def test_a_backend_that_dies_mid_stream_raises_in_the_client(
    openai: AsyncOpenAI, backend: FakeBackend
) -> None:
    backend.dies_after = 2
    stream = await openai.chat.completions.create(model="tiny", messages=HELLO, stream=True)
    got = [(await anext(stream)).choices[0].delta.content for _ in range(3)]
    assert got == ["", "Hé", "llo"]
    with pytest.raises(api.APIError, match="died"):
        await anext(stream)


async def test_closing_a_stream_cancels_the_backend(
    openai: AsyncOpenAI, backend: FakeBackend, until: Until
) -> None:
    backend.gate = asyncio.Semaphore(1)
    stream = await openai.chat.completions.create(model="tiny", messages=HELLO, stream=True)
    assert backend.active
    await stream.close()
    await until(lambda: not backend.active)
    assert backend.cancelled == [backend.requests[0].id]


async def test_a_client_that_stops_waiting_cancels_the_backend(
    openai: AsyncOpenAI, backend: FakeBackend, until: Until
) -> None:
    backend.gate = asyncio.Semaphore(2)
    with pytest.raises(api.APITimeoutError):
        await openai.with_options(timeout=0.3).chat.completions.create(model="tiny", messages=HELLO)
    await until(lambda: not backend.active)
    assert backend.cancelled == [backend.requests[0].id]


async def test_an_expired_request_is_a_504(openai: AsyncOpenAI, backend: FakeBackend) -> None:
    backend.outcome = Outcome.EXPIRED
    with pytest.raises(api.InternalServerError) as late:
        await openai.chat.completions.create(
            model="tiny", messages=HELLO, extra_headers={"Request-Timeout-Ms": "5000"}
        )
    assert late.value.status_code == 504
    assert late.value.code == "deadline_exceeded"
