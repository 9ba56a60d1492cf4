"""The official `openai` client against a real server and the real model."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

if TYPE_CHECKING:
    from tests.e2e.conftest import Server

pytestmark = pytest.mark.model

QUESTION: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the capital of France? Answer in one word."}
]


@pytest.fixture(scope="module")
def client(server: "Server") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="smollm2", messages=QUESTION, temperature=0)
    (choice,) = answer.choices
    assert choice.message.content is not None
    assert "Paris" in choice.message.content
    assert choice.finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_says_the_same_as_the_whole(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(
        model="smollm2", messages=QUESTION, temperature=0, max_completion_tokens=24
    )
    stream = client.chat.completions.create(
        model="smollm2",
        messages=QUESTION,
        temperature=0,
        max_completion_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert whole.usage is not None
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"


def test_completion_from_text_from_tokens_and_from_a_batch(
    client: openai.OpenAI, server: "Server"
) -> None:
    text = "The quick brown fox"
    one = client.completions.create(model="smollm2", prompt=text, max_tokens=8, temperature=0)
    with server.client() as http:
        ids = http.post("/tokenize", json={"prompt": text}).json()["tokens"]
    same = client.completions.create(model="smollm2", prompt=ids, max_tokens=8, temperature=0)
    batch = client.completions.create(
        model="smollm2", prompt=[text, "Once upon a time"], max_tokens=8, temperature=0, n=2
    )
    assert one.choices[0].text == same.choices[0].text
    assert [choice.index for choice in batch.choices] == [0, 1, 2, 3]
    assert batch.choices[0].text == batch.choices[1].text == one.choices[0].text


def test_echo_with_logprobs_scores_the_prompt(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="smollm2",
        prompt="Paris is the capital of France",
        echo=True,
        logprobs=2,
        max_tokens=1,
        temperature=0,
    )
    (choice,) = answer.choices
    assert choice.text.startswith("Paris is the capital of France")
    assert choice.logprobs is not None
    scores: Sequence[float | None] = choice.logprobs.token_logprobs or []
    assert scores[0] is None  # nothing precedes the first token
    assert all(score is not None and score <= 0 for score in scores[1:])
    assert "".join(choice.logprobs.tokens or []) == choice.text


def test_logprobs_name_the_chosen_token_first_when_greedy(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="smollm2",
        messages=QUESTION,
        temperature=0,
        logprobs=True,
        top_logprobs=3,
        max_completion_tokens=5,
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content
    for entry in logprobs.content:
        assert len(entry.top_logprobs) == 3
        assert entry.top_logprobs[0].token == entry.token
        assert entry.top_logprobs[0].logprob == entry.logprob


def test_choices_differ_and_a_seed_repeats_them(client: openai.OpenAI) -> None:
    def sample() -> list[str | None]:
        answer = client.chat.completions.create(
            model="smollm2",
            messages=[{"role": "user", "content": "Tell me a story."}],
            n=4,
            seed=11,
            temperature=1.0,
            max_completion_tokens=16,
        )
        return [choice.message.content for choice in answer.choices]

    first = sample()
    assert len(set(first)) == 4
    assert sample() == first


def test_a_stop_string_ends_the_text_before_it(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="smollm2", prompt="Count: 1, 2, 3, 4,", stop=["7"], max_tokens=32, temperature=0
    )
    assert answer.choices[0].finish_reason == "stop"
    assert "7" not in answer.choices[0].text
    assert "6" in answer.choices[0].text


def test_errors_keep_their_types(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no such model here; ask for 'smollm2'"):
        client.chat.completions.create(model="no-such-model", messages=QUESTION)
    with pytest.raises(openai.UnprocessableEntityError) as wrong:
        client.chat.completions.create(model="smollm2", messages=QUESTION, temperature=9)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as unsupported:
        client.chat.completions.create(
            model="smollm2", messages=QUESTION, response_format={"type": "json_object"}
        )
    assert unsupported.value.param == "response_format"


def test_a_deadline_is_a_504_and_stops_the_work(client: openai.OpenAI, server: "Server") -> None:
    with pytest.raises(openai.InternalServerError) as late:
        client.chat.completions.create(
            model="smollm2",
            messages=QUESTION,
            max_completion_tokens=500,
            extra_headers={"Request-Timeout-Ms": "150"},
            extra_body={"ignore_eos": True},
        )
    assert late.value.status_code == 504
    _until_idle(server)


def test_hanging_up_frees_the_blocks(client: openai.OpenAI, server: "Server") -> None:
    stream = client.chat.completions.create(
        model="smollm2",
        messages=QUESTION,
        stream=True,
        max_completion_tokens=800,
        extra_body={"ignore_eos": True},
    )
    next(iter(stream))
    stream.close()
    _until_idle(server)


def _until_idle(server: "Server", patience: float = 10.0) -> None:
    """800 tokens would take far longer than this: the request was stopped, not finished."""
    deadline = time.monotonic() + patience
    while server.metric("vllm:num_requests_running") or server.metric("vllm:kv_cache_usage_perc"):
        assert time.monotonic() < deadline, "the request still holds blocks"
        time.sleep(0.05)
