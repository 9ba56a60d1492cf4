"""What crosses the process boundary comes out as it went in, however the bytes were cut."""

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.contract import (
    Action,
    Cause,
    Decision,
    Finish,
    FinishReason,
    GenerateRequest,
    LoadSnapshot,
    Outcome,
    SamplingParams,
    Timings,
    TokenChunk,
    TokenLogprobs,
)
from salver.errors import MalformedFrame
from salver.worker import frames
from salver.worker.frames import (
    MAX_COMMAND_BYTES,
    MAX_REPORT_BYTES,
    Cancel,
    Command,
    ErrorReport,
    Fatal,
    Generate,
    ModelFacts,
    Ready,
    Refusal,
    Rejected,
    Report,
    StepFrame,
    command_reader,
    encode,
    report_reader,
)

counts = st.integers(0, 2**63 - 1)
tokens = st.integers(0, 2**31)
numbers = st.floats(allow_nan=False)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def tuples(element: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(element, max_size=3).map(tuple)


sampling = st.builds(
    SamplingParams,
    max_tokens=counts,
    min_tokens=counts,
    temperature=numbers,
    top_k=counts,
    top_p=numbers,
    logit_bias=st.dictionaries(tokens, numbers, max_size=3),
    seed=st.integers(0, 2**64 - 1),
    stop=tuples(words),
    stop_token_ids=tuples(tokens),
    include_stop=st.booleans(),
    ignore_eos=st.booleans(),
    skip_special_tokens=st.booleans(),
    logprobs=st.none() | counts,
    prompt_logprobs=st.none() | counts,
)
requests = st.builds(
    GenerateRequest,
    id=words,
    prompt_token_ids=tuples(tokens),
    sampling=sampling,
    n=counts,
    tenant=words,
    cache_salt=words,
    deadline=st.none() | numbers,
)
logprobs = st.builds(TokenLogprobs, tokens, numbers, tuples(st.tuples(tokens, numbers)))
timings = st.builds(Timings, numbers, st.none() | numbers, st.none() | numbers, numbers)
finishes = st.builds(
    Finish,
    st.sampled_from(Outcome),
    st.sampled_from(FinishReason),
    timings,
    st.none() | words | tokens,
    counts,
)
chunks = st.builds(
    TokenChunk,
    request_id=words,
    choice=counts,
    token_ids=tuples(tokens),
    text=words,
    logprobs=tuples(logprobs),
    prompt_logprobs=tuples(st.none() | logprobs),
    finish=st.none() | finishes,
)
loads = st.builds(LoadSnapshot, requests_waiting=counts, steps=counts, prefix_cache_hits=counts)
decisions = st.builds(
    Decision,
    words,
    words,
    numbers,
    numbers,
    st.sampled_from(Action),
    st.sampled_from(Cause),
    words,
    st.none() | numbers,
)
facts = st.builds(ModelFacts, words, counts, counts, counts)
scalars = st.none() | counts | numbers | words
errors = st.builds(ErrorReport, words, words, words, scalars, scalars, words)
commands = st.builds(Generate, requests) | st.builds(Cancel, words)
reports = st.one_of(
    st.builds(Ready, counts, facts, counts, counts, counts, numbers),
    st.builds(StepFrame, tuples(chunks), loads),
    st.builds(Refusal, words, decisions),
    st.builds(Rejected, words, errors),
    st.builds(Fatal, errors),
)


@given(st.lists(commands, max_size=3), st.lists(st.integers(0, 2000), max_size=5))
def test_commands_survive_any_cutting_of_the_stream(sent: list[Command], cuts: list[int]) -> None:
    stream = b"".join(encode(frame, MAX_COMMAND_BYTES) for frame in sent)
    reader = command_reader()
    received = [frame for piece in _pieces(stream, cuts) for frame in reader.feed(piece)]
    assert received == sent


@given(st.lists(reports, max_size=3), st.lists(st.integers(0, 2000), max_size=5))
def test_reports_survive_any_cutting_of_the_stream(sent: list[Report], cuts: list[int]) -> None:
    stream = b"".join(encode(frame, MAX_REPORT_BYTES) for frame in sent)
    reader = report_reader()
    received = [frame for piece in _pieces(stream, cuts) for frame in reader.feed(piece)]
    assert received == sent


def _pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    bounds = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    return [stream[start:end] for start, end in pairwise(bounds)]


@given(st.binary(max_size=200))
def test_garbage_is_read_as_frames_or_named_an_error(garbage: bytes) -> None:
    with suppress(MalformedFrame):
        command_reader().feed(len(garbage).to_bytes(4, "big") + garbage)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x82\xa4type\xa6Cancel\xaarequest_id\xa2\xff\xfe",  # not UTF-8
        b"\x82\xa4type\xa6Cancel\xa1x" + b"\x91" * 100_000 + b"\x00",  # nested beyond any frame
        b"\xdd\xff\xff\xff\xff",  # claims four billion elements
        b"\x81\xa4type\xa5Ready",  # the other side's vocabulary
    ],
    ids=["empty", "invalid", "encoding", "deep", "overlong", "foreign"],
)
def test_a_body_outside_the_vocabulary_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedFrame, match="not in the vocabulary"):
        command_reader().feed(len(body).to_bytes(4, "big") + body)


def test_an_oversized_frame_is_refused_from_its_length_alone() -> None:
    with pytest.raises(MalformedFrame, match="over the bound") as caught:
        command_reader().feed((MAX_COMMAND_BYTES + 1).to_bytes(4, "big"))
    assert caught.value.value == MAX_COMMAND_BYTES + 1


def test_a_frame_over_the_bound_is_not_sent() -> None:
    with pytest.raises(MalformedFrame, match="over the bound"):
        encode(Cancel("x" * 100), max_bytes=64)


@pytest.mark.parametrize("stop", ["\ud800", "a\udfffb"])
def test_text_that_utf8_cannot_hold_is_not_sent(stop: str) -> None:
    request = GenerateRequest("r", (1,), SamplingParams(max_tokens=1, stop=(stop,)))
    with pytest.raises(MalformedFrame, match="cannot be encoded"):
        encode(Generate(request), MAX_COMMAND_BYTES)


def test_the_prefix_is_four_bytes_big_endian() -> None:
    frame = encode(Cancel("abc"), MAX_COMMAND_BYTES)
    assert int.from_bytes(frame[: frames.PREFIX_BYTES], "big") == len(frame) - 4
