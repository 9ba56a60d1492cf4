"""Incremental decoding: complete characters only, and in the end the same text as all at once."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from salver.errors import InvalidValue
from salver.models import TokenDecoder, tokenizer_from_gguf
from salver.testing.tiny_vocabulary import tiny_bpe_metadata

BPE = tokenizer_from_gguf(tiny_bpe_metadata())
pieces = st.lists(
    st.binary(max_size=5)
    | st.text(max_size=3).map(str.encode)
    | st.sampled_from([b"\xf0", b"\x9f", b"\x98", b"\x80", b"\xe2\x82", b"\xed\xa0\x80", b" "]),
    min_size=1,
)


@given(st.lists(st.integers(0, BPE.vocab_size - 1)), st.booleans())
def test_pushes_and_flush_make_the_whole_text(ids: list[int], skip: bool) -> None:
    decoder = BPE.decoder(skip_special_tokens=skip)
    pushed = "".join(decoder.push(token) for token in ids) + decoder.flush()
    assert pushed == BPE.decode(ids, skip_special_tokens=skip)
    assert pushed == _all_at_once([BPE.token_bytes(t) for t in ids if not (skip and _control(t))])


@given(pieces)
@example([b"\xf0\x9f", b"\x98\x80"])
@example([b"\xf0\x9f", b"a"])
@example([b"\xf0\x9f\xf0", b"\x9f\x98\x80", b"\xff"])
def test_any_split_of_any_bytes_decodes_alike(parts: list[bytes]) -> None:
    decoder = TokenDecoder(parts, frozenset())
    pushed = [decoder.push(index) for index in range(len(parts))]
    assert "".join(pushed) + decoder.flush() == _all_at_once(parts)


@given(st.text(min_size=1), st.data())
def test_a_push_never_ends_inside_a_character(text: str, data: st.DataObject) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)))))
    parts = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    decoder = TokenDecoder(parts, frozenset())
    shown = ""
    for index in range(len(parts)):
        shown += decoder.push(index)
        complete = sum(map(len, parts[: index + 1]))
        assert text.startswith(shown)
        assert len(shown.encode()) > complete - 4  # at most three bytes are held back
    assert decoder.flush() == ""


def test_a_skipped_token_inside_a_character_leaves_it_whole() -> None:
    decoder = TokenDecoder([b"\xc3", b"\xa9", b"<ctl>"], frozenset({2}))
    assert [decoder.push(token) for token in (0, 2, 1)] == ["", "", "é"]


def test_flush_ends_an_unfinished_character_and_starts_afresh() -> None:
    decoder = TokenDecoder([b"\xf0\x9f\x98", b"\x80"], frozenset())
    assert (decoder.push(0), decoder.flush(), decoder.push(1)) == ("", "\ufffd", "\ufffd")


@pytest.mark.parametrize("start", [b" a", b" ", b"a", b"  a"])
def test_one_space_is_dropped_from_the_very_start_alone(start: bytes) -> None:
    decoder = TokenDecoder([b"", start, b" b"], frozenset(), drop_space=True)
    text = "".join(map(decoder.push, (0, 1, 2))) + decoder.flush()
    assert text == (start + b" b").decode().removeprefix(" ")


def test_a_bad_id_leaves_the_decoder_as_it_was() -> None:
    decoder = TokenDecoder([b"\xc3", b"\xa9"], frozenset())
    decoder.push(0)
    for bad in (-1, 2):
        with pytest.raises(InvalidValue, match="outside the vocabulary"):
            decoder.push(bad)
    assert decoder.push(1) == "é"


def _all_at_once(parts: list[bytes]) -> str:
    return b"".join(parts).decode("utf-8", errors="replace")


def _control(token: int) -> bool:
    return token in BPE.control_tokens.values()
