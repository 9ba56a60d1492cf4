"""Prompts in four shapes, echo, and log-probabilities in three."""

import asyncio
from typing import Any

import httpx
import pytest

from salver.testing import FakeBackend


async def complete(client: httpx.AsyncClient, **fields: Any) -> Any:
    answer = await client.post("/v1/completions", json={"model": "tiny", **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("prompt", "ids"),
    [
        ("ab", [(256, 97, 98)]),
        (["ab", "c"], [(256, 97, 98), (256, 99)]),
        ([97, 98], [(97, 98)]),
        ([[97], [98, 99]], [(97,), (98, 99)]),
    ],
)
async def test_every_shape_of_prompt(
    client: httpx.AsyncClient, backend: FakeBackend, prompt: object, ids: list[tuple[int, ...]]
) -> None:
    answer = await complete(client, prompt=prompt, n=2)
    assert [request.prompt_token_ids for request in backend.requests] == ids
    assert [choice["index"] for choice in answer["choices"]] == list(range(2 * len(ids)))
    assert answer["usage"]["prompt_tokens"] == sum(map(len, ids))
    assert answer["usage"]["completion_tokens"] == 2 * len(ids) * 12


async def test_a_batch_is_one_call_with_distinct_ids_and_seeds(
    client: httpx.AsyncClient, backend: FakeBackend
) -> None:
    answer = await complete(client, prompt=["a", "b"])
    assert [r.id for r in backend.requests] == [answer["id"] + "-0", answer["id"] + "-1"]
    seeds = {request.sampling.seed for request in backend.requests}
    assert len(seeds) == 2
    assert all(0 <= seed < 2**64 for seed in seeds)


async def test_special_tokens_can_be_left_out(
    client: httpx.AsyncClient, backend: FakeBackend
) -> None:
    await complete(client, prompt="a", add_special_tokens=False)
    assert backend.requests[0].prompt_token_ids == (97,)


async def test_defaults_fit_the_envelope(client: httpx.AsyncClient, backend: FakeBackend) -> None:
    await complete(client, prompt="a")
    await complete(client, prompt=[0] * 1995)
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
    await client.post("/v1/chat/completions", json=chat)
    assert [r.sampling.max_tokens for r in backend.requests] == [16, 5, 200]


async def test_logprobs_are_parallel_lists(client: httpx.AsyncClient) -> None:
    answer = await complete(client, prompt="a", logprobs=2, max_tokens=4)
    assert answer["choices"][0]["logprobs"] == {
        "tokens": ["H", "bytes:\\xc3", "bytes:\\xa9", "l"],
        "token_logprobs": [-0.5] * 4,
        "top_logprobs": [
            {"H": -0.5, "I": -1.5},
            {"bytes:\\xc3": -0.5, "bytes:\\xc4": -1.5},
            {"bytes:\\xa9": -0.5, "bytes:\\xaa": -1.5},
            {"l": -0.5, "m": -1.5},
        ],
        "text_offset": [0, 1, 1, 2],
    }


async def test_the_token_itself_is_always_among_the_alternatives(client: httpx.AsyncClient) -> None:
    answer = await complete(client, prompt="a", logprobs=0, max_tokens=1)
    assert answer["choices"][0]["logprobs"]["top_logprobs"] == [{"H": -0.5}]


async def test_echo_with_logprobs_scores_the_prompt(
    client: httpx.AsyncClient, backend: FakeBackend
) -> None:
    answer = await complete(
        client, prompt=[[97, 98], [99]], echo=True, logprobs=1, n=2, max_tokens=1
    )
    assert [choice["text"] for choice in answer["choices"]] == ["abH", "abH", "cH", "cH"]
    for choice in answer["choices"][:2]:
        assert choice["logprobs"]["tokens"] == ["a", "b", "H"]
        assert choice["logprobs"]["token_logprobs"] == [None, -0.5, -0.5]
        assert choice["logprobs"]["top_logprobs"] == [None, {"b": -0.5}, {"H": -0.5}]
        assert choice["logprobs"]["text_offset"] == [0, 1, 2]
    assert backend.requests[0].sampling.prompt_logprobs == 1


async def test_the_prompts_of_one_call_are_told_to_belong_together(
    client: httpx.AsyncClient, backend: FakeBackend
) -> None:
    await complete(client, prompt=[[97, 98], [99]], max_tokens=1)
    first, second = backend.requests
    assert first.id != second.id
    assert first.call == second.call != ""
    await complete(client, prompt=[97], max_tokens=1)
    assert backend.requests[-1].call == ""


async def test_prompt_logprobs_in_vllms_shape(client: httpx.AsyncClient) -> None:
    answer = await complete(client, prompt=[97, 98], prompt_logprobs=2, echo=True, logprobs=1)
    assert answer["choices"][0]["prompt_logprobs"] == [
        None,
        {
            "98": {"logprob": -0.5, "rank": 1, "decoded_token": "b"},
            "99": {"logprob": -1.5, "rank": 2, "decoded_token": "c"},
        },
    ]
    assert answer["choices"][0]["logprobs"]["top_logprobs"][1] == {"b": -0.5}


async def test_chat_gives_prompt_logprobs_too(client: httpx.AsyncClient) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "prompt_logprobs": 0}
    answer = (await client.post("/v1/chat/completions", json=body)).json()
    assert answer["prompt_logprobs"][0] is None
    assert answer["prompt_logprobs"][1] == {
        "115": {"logprob": -0.5, "rank": None, "decoded_token": "s"}
    }


async def test_the_first_of_a_batch_to_fail_cancels_the_others(
    client: httpx.AsyncClient, backend: FakeBackend
) -> None:
    backend.gate = asyncio.Semaphore(2)  # both for the first, which dies with the second
    backend.dies_after = 1
    answer = await client.post("/v1/completions", json={"model": "tiny", "prompt": ["a", "b", "c"]})
    assert answer.status_code == 503
    assert not backend.active
    assert len(backend.cancelled) == 2
