import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.clock import MonotonicClock
from salver.contract import GenerateRequest, SamplingParams
from salver.errors import (
    BackendLost,
    BackendUnavailable,
    InvalidValue,
    Refused,
    RequestError,
    TooLarge,
)
from salver.upstream import Address
from salver.upstream.answer import MAX_LINE_BYTES, Answer, EventLines
from salver.upstream.ending import Busy, Ending, OutOfTime, ending_of
from salver.upstream.facts import facts_in
from salver.upstream.refusing import refusal_of

PAYLOADS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n")).map(str.encode)
)


@given(PAYLOADS, st.lists(st.integers(0, 200)), st.sampled_from([b"\n", b"\r\n"]))
def test_lines_are_the_same_however_the_bytes_are_cut(
    payloads: list[bytes], cuts: list[int], end: bytes
) -> None:
    stream = b"".join(b": note" + end + b"data: " + each + end + end for each in payloads)
    found: list[bytes] = []
    lines, at = EventLines(), 0
    for cut in sorted(cuts):
        found += lines.feed(stream[at:cut])
        at = max(at, min(cut, len(stream)))
    found += lines.feed(stream[at:])
    assert found == [each.strip() for each in payloads]


def test_a_line_without_an_end_is_not_kept() -> None:
    lines = EventLines()
    half = b"x" * (MAX_LINE_BYTES // 2 + 1)
    assert not list(lines.feed(half))
    with pytest.raises(BackendLost):
        list(lines.feed(half))


def answer(n: int = 1) -> Answer:
    request = GenerateRequest("r", (1, 2), SamplingParams(max_tokens=9), n=n)
    return Answer(request, MonotonicClock())


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b"[]",
        b'{"error":{"message":"no"}}',
        b'{"error":"no"}',
        b'{"choices":[{"index":1,"text":"x"}]}',
        b'{"choices":[{"index":-1,"text":"x"}]}',
        b'{"choices":[{"index":0,"text":"","finish_reason":"content_filter"}]}',
        b"[DONE]",
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_what_is_no_answer_is_a_loss(payload: bytes) -> None:
    with pytest.raises(BackendLost):
        list(answer().chunks(payload))


def test_what_came_together_goes_on_together() -> None:
    """And not without what came before a break."""
    one = answer(n=2)
    events = [b'{"choices":[{"index":%d,"text":"%d"}]}' % (i % 2, i) for i in range(5)]
    first, second = one.chunks(*events)
    assert (first.choice, first.text, first.num_tokens) == (0, "024", 3)
    assert (second.choice, second.text, second.num_tokens) == (1, "13", 2)
    chunks = one.chunks(events[0], b"{")
    assert next(chunks).text == "0"
    with pytest.raises(BackendLost):
        next(chunks)


def test_nothing_follows_the_end_of_a_choice() -> None:
    one = answer()
    assert not list(one.chunks(b'{"choices":[{"index":0,"text":"","finish_reason":"stop"}]}'))
    with pytest.raises(BackendLost):
        list(one.chunks(b'{"choices":[{"index":0,"text":"more"}]}'))


def test_the_ends_are_told_once() -> None:
    """What comes after `[DONE]`, at once or later, is nothing of the answer."""
    one = answer()
    list(one.chunks(b'{"choices":[{"index":0,"text":"x","finish_reason":"stop"}]}'))
    (end,) = one.chunks(b'{"choices":[],"usage":{"completion_tokens":5}}', b"[DONE]", b"{")
    assert (end.num_tokens, one.over) == (4, True)
    assert not list(one.chunks())
    assert not list(one.chunks(b"[DONE]", b"{"))


def test_a_server_may_write_that_there_is_no_error() -> None:
    (chunk,) = answer().chunks(b'{"error":null,"choices":[{"index":0,"text":"x"}]}')
    assert chunk.text == "x"


def test_an_error_is_told_as_it_came() -> None:
    with pytest.raises(BackendLost, match="sent an error") as lost:
        list(answer().chunks(b'{"error":{"message":"out of memory"}}'))
    assert "out of memory" in str(lost.value.value)


def test_the_usage_tells_the_tokens_that_no_event_told() -> None:
    one = answer()
    (chunk,) = one.chunks(b'{"choices":[{"index":0,"delta":{"content":"two words"}}]}')
    assert (chunk.text, chunk.num_tokens) == ("two words", 1)
    list(one.chunks(b'{"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}'))
    list(
        one.chunks(
            b'{"choices":[],"usage":{"completion_tokens":5,'
            b'"prompt_tokens_details":{"cached_tokens":2}}}'
        )
    )
    (end,) = one.chunks(b"[DONE]")
    assert (end.num_tokens, one.over) == (4, True)
    assert end.finish is not None
    assert end.finish.cached_tokens == 2


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RequestError),
        (413, TooLarge),
        (422, InvalidValue),
        (401, BackendUnavailable),
        (404, BackendUnavailable),
        (500, BackendUnavailable),
        (200, BackendUnavailable),
        (429, Busy),
        (504, OutOfTime),
    ],
)
def test_a_status_is_one_kind_of_error(status: int, kind: type[Exception]) -> None:
    address = Address("up", "http://up/v1", "m")
    error = refusal_of(address, status, "7", b'{"error":{"message":"no, because"}}', "r")
    assert type(error) is kind
    assert "no, because" in str(error)
    if isinstance(error, Refused) and status == 429:
        assert error.decision.retry_after == 7


def test_what_a_status_says_of_the_server() -> None:
    address = Address("up", "http://up/v1", "m")
    said = {
        status: ending_of(refusal_of(address, status, None, b"", "r"))
        for status in (400, 413, 422, 429, 401, 404, 500, 408, 504)
    }
    assert {status for status, ending in said.items() if ending is Ending.ANSWERED} == {
        *(400, 413, 422, 429)
    }
    assert {status for status, ending in said.items() if ending is Ending.UNKNOWN} == {408, 504}


VLLM = """
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="1000",num_cpu_blocks="None"} 1.0
"""


def test_the_facts_of_each_kind_of_server() -> None:
    facts = facts_in(VLLM)
    assert (facts.running, facts.waiting, facts.kv_tokens, facts.salts_caches) == (
        3,
        2,
        16000,
        True,
    )
    facts = facts_in("llamacpp:requests_processing 4\nllamacpp:requests_deferred 1\n")
    assert (facts.running, facts.waiting, facts.kv_tokens, facts.salts_caches) == (
        4,
        1,
        None,
        False,
    )
    assert facts_in('salver_kv_pool_tokens{deployment="d"} 55008.0\n').kv_tokens == 55008
    assert facts_in("<html>no metrics 404</html>").kv_tokens is None


@pytest.mark.parametrize("value", ["+Inf", "-Inf", "NaN", "1e999", "-5", "+", "--", "²", "0"])
def test_what_cannot_be_counted_is_not_said(value: str) -> None:
    names = ("vllm:num_requests_running", "llamacpp:requests_deferred", "salver_kv_pool_tokens")
    facts = facts_in("".join(f"{name} {value}\n" for name in names))
    assert (facts.running, facts.waiting, facts.kv_tokens) == (0, 0, None)
    labels = f'block_size="16",num_gpu_blocks="{value}"'
    assert facts_in(f"vllm:cache_config_info{{{labels}}} 1.0\n").kv_tokens is None
