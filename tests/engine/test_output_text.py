from hypothesis import given
from hypothesis import strategies as st

from salver.engine import OutputText
from salver.testing import LetterDecoder

tokens = st.lists(st.integers(0, 3), max_size=30)
stops = st.lists(st.text("abcd", min_size=1, max_size=4), max_size=3).map(tuple)


def stream(token_ids: list[int], stop: tuple[str, ...]) -> tuple[list[str], OutputText]:
    text = OutputText(LetterDecoder(), stop)
    pieces = []
    for token in token_ids:
        pieces.append(text.push(token))
        if text.matched is not None:
            return pieces, text
    return [*pieces, text.finish()], text


@given(tokens, stops)
def test_streamed_text_is_the_whole_text_up_to_the_first_stop(
    token_ids: list[int], stop: tuple[str, ...]
) -> None:
    whole = "".join("abcd"[token] for token in token_ids)
    ends = [end for end in range(len(whole) + 1) if whole[:end].endswith(stop)] if stop else []
    pieces, text = stream(token_ids, stop)
    if ends:  # the stop string that is complete first ends the stream
        seen = whole[: ends[0]]
        assert text.matched is not None
        assert "".join(pieces) + text.matched == seen[: seen.find(text.matched)] + text.matched
        assert len(pieces) == ends[0]
    else:
        assert text.matched is None
        assert "".join(pieces) == whole


@given(tokens, stops)
def test_nothing_is_held_longer_than_a_stop_string_could_need(
    token_ids: list[int], stop: tuple[str, ...]
) -> None:
    text = OutputText(LetterDecoder(), stop)
    longest = max(map(len, stop), default=1)
    shown = 0
    for count, token in enumerate(token_ids, start=1):
        shown += len(text.push(token))
        if text.matched is not None:
            return
        assert count - shown < longest


def test_stops_wait_while_they_may_not_stop() -> None:
    text = OutputText(LetterDecoder(), ("b",))
    assert text.push(1, may_stop=False) == "b"
    assert text.matched is None
    assert text.push(1) == ""
    assert text.matched == "b"
