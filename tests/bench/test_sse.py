"""Events come out whole, whatever pieces their bytes come in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.bench.sse import EventReader, read_event

STREAM = b'data: {"a": "\xc3\xa9"}\n\n: comment\n\ndata:[DONE]\n\ndata: x\r\n\r\ndata: rest'


@given(st.lists(st.integers(0, len(STREAM)), max_size=12).map(sorted))
def test_any_cuts_give_the_same_events(cuts: list[int]) -> None:
    reader = EventReader()
    pieces = [STREAM[a:b] for a, b in zip([0, *cuts], [*cuts, len(STREAM)], strict=True)]
    events = [event for piece in pieces for event in reader.feed(piece)]
    assert events == [b'{"a": "\xc3\xa9"}', b"[DONE]", b"x"]


def test_an_event_without_end_is_refused() -> None:
    reader = EventReader()
    with pytest.raises(ValueError, match="without end"):
        list(reader.feed(b"data: " + b"x" * EventReader.MAX_EVENT))


@pytest.mark.parametrize(
    ("data", "has_text", "finished"),
    [
        (b'{"choices": [{"text": "a", "finish_reason": null}]}', True, False),
        (b'{"choices": [{"text": "", "finish_reason": "stop"}]}', False, True),
        (b'{"choices": [{"delta": {"content": "a"}, "extra": 1}]}', True, False),
        (b'{"choices": [{"delta": {"role": "assistant", "content": ""}}]}', False, False),
        (b'{"choices": [], "usage": {"completion_tokens": 3}}', False, False),
    ],
)
def test_what_an_event_says(data: bytes, has_text: bool, finished: bool) -> None:
    event = read_event(data)
    assert (event.has_text, bool(event.finish_reason)) == (has_text, finished)
