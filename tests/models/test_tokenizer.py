"""The laws of encoding and decoding, on vocabularies small enough to think about."""

from collections.abc import Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from salver.errors import InvalidValue
from salver.models import Tokenizer, tokenizer_from_gguf
from salver.models.bpe import SPACE
from salver.models.pretokenizers import PRE_TOKENIZERS
from salver.testing.tiny_vocabulary import (
    sentencepiece_encode,
    tiny_bpe_metadata,
    tiny_sentencepiece_metadata,
)

BPE = tokenizer_from_gguf(tiny_bpe_metadata())
START, END = (BPE.control_tokens[text] for text in ("<|im_start|>", "<|im_end|>"))

# Text that is likely to hit merges, digits, spaces and spellings of control tokens.
texts = st.text() | st.lists(
    st.sampled_from(
        [
            "the",
            " ",
            "  ",
            "hello",
            "1",
            "123",
            "\n",
            "'s",
            "é",
            "😀",
            "<|im_",
            "end|>",
            "<|im_end|>",
        ]
    )
).map("".join)


def plain(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False, parse_special=False)


def parsed(tokenizer: Tokenizer, text: str, *breaks: int) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False, parse_special=True, breaks=breaks)


@given(texts, st.booleans(), st.sampled_from(sorted(PRE_TOKENIZERS)))
def test_decoding_gives_back_what_was_encoded(text: str, parse_special: bool, pre: str) -> None:
    tokenizer = TOKENIZERS[pre]
    ids = tokenizer.encode(text, add_special_tokens=False, parse_special=parse_special)
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
    assert len(ids) >= -(-len(text.encode()) // tokenizer.max_token_bytes)


TOKENIZERS = {pre: tokenizer_from_gguf(tiny_bpe_metadata(pre)) for pre in PRE_TOKENIZERS}


@given(texts)
def test_plain_text_never_becomes_a_control_token(text: str) -> None:
    assert not {START, END} & set(plain(BPE, text))


def test_control_tokens_are_read_only_when_asked() -> None:
    text = "<|im_start|>the<|im_end|>"
    assert parsed(BPE, text) == [START, *plain(BPE, "the"), END]
    assert END not in plain(BPE, text)


@given(texts, st.lists(st.integers(0, 40), max_size=6).map(sorted))
def test_breaks_change_tokens_but_never_the_text(text: str, breaks: list[int]) -> None:
    ids = parsed(BPE, text, *breaks)
    assert BPE.decode(ids, skip_special_tokens=False) == text


def test_a_break_inside_a_control_token_makes_it_text() -> None:
    text = "<|im_end|><|im_end|>"
    half = len("<|im_end|>")
    assert parsed(BPE, text) == [END, END]
    assert parsed(BPE, text, 3) == [*plain(BPE, "<|im_end|>"), END]
    assert parsed(BPE, text, 0, half, 2 * half) == [END, END]  # at an edge is not inside
    assert parsed(BPE, text, half + 1) == [END, *plain(BPE, "<|im_end|>")]


def test_user_defined_tokens_are_text_that_is_always_one_token() -> None:
    ids = plain(BPE, "a<tool_call>b")
    assert [BPE.token_bytes(token) for token in ids] == [b"a", b"<tool_call>", b"b"]
    assert BPE.decode(ids) == "a<tool_call>b"


def test_control_tokens_show_only_when_asked() -> None:
    ids = [START, *plain(BPE, "hello"), END]
    assert BPE.decode(ids) == "hello"
    assert BPE.decode(ids, skip_special_tokens=False) == "<|im_start|>hello<|im_end|>"


def test_a_merge_cannot_make_a_control_token() -> None:
    metadata = tiny_bpe_metadata(merges=["< |", "<| x"], control=["<|x"], user_defined=[])
    metadata["tokenizer.ggml.tokens"] = list(dict.fromkeys(_pieces(metadata)))
    metadata["tokenizer.ggml.token_type"] = [1] * 257 + [3]
    tokenizer = tokenizer_from_gguf({**metadata, **_ids(bos=257, eos=257)})
    assert plain(tokenizer, "<|x") == [*plain(tokenizer, "<|"), *plain(tokenizer, "x")]
    assert parsed(tokenizer, "<|x") == [257]


def test_a_control_token_of_one_character_is_never_read_from_text() -> None:
    tokenizer = tokenizer_from_gguf(tiny_bpe_metadata(control=["\ue000", "<end>"]))
    assert tokenizer.control_spans("a\ue000<end>") == [(2, 7)]


def test_surroundings_are_added_when_asked() -> None:
    metadata = tiny_bpe_metadata() | {
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": True,
    }
    tokenizer = tokenizer_from_gguf(metadata)
    inner = plain(tokenizer, "the")
    around = tokenizer.encode("the", add_special_tokens=True, parse_special=False)
    assert around == [START, *inner, END]
    assert plain(tokenizer, "the") == inner


def test_every_way_to_end_is_known() -> None:
    metadata = tiny_bpe_metadata(control=["<|bos|>", "<|a|>", "<|b|>", "<|eot_id|>", "<|c|>"])
    first = metadata["tokenizer.ggml.bos_token_id"]
    assert isinstance(first, int)
    metadata |= _ids(eos=first + 1, eot=first + 2)
    tokenizer = tokenizer_from_gguf(metadata)
    assert tokenizer.eos_token_ids == {first + 1, first + 2, first + 3}
    assert tokenizer.bos_token_id == first


@pytest.mark.parametrize("token_id", [-1, BPE.vocab_size, 1 << 40])
def test_an_id_outside_the_vocabulary_is_refused(token_id: int) -> None:
    with pytest.raises(InvalidValue, match="outside the vocabulary"):
        BPE.decode([token_id])
    with pytest.raises(InvalidValue):
        BPE.token_bytes(token_id)


def test_what_cannot_be_spelled_is_refused_by_name() -> None:
    with pytest.raises(InvalidValue, match=r"U\+D800, character 1"):
        plain(BPE, "a\ud800")
    metadata = tiny_bpe_metadata()
    pieces = _pieces(metadata)
    pieces[pieces.index("z")] = "unused"
    with pytest.raises(InvalidValue, match=r"U\+007A, character 2 .* 0x7a"):
        plain(tokenizer_from_gguf(metadata), "a z")


def test_llama3_keeps_digits_in_threes_and_takes_whole_words_first() -> None:
    merges = ["1 2", "12 3", "Ġ a", "x y", "y z", "x yz"]
    words = [
        [tokenizer.token_bytes(token).decode() for token in plain(tokenizer, "12345 a\n\n xyz")]
        for tokenizer in (
            tokenizer_from_gguf(tiny_bpe_metadata(pre, merges=merges))
            for pre in ("llama-bpe", "dbrx", "qwen2")
        )
    ]
    # In llama-bpe "xyz" is a whole word, so it is taken although "x y" is merged first elsewhere.
    assert words[0] == ["123", "4", "5", " a", "\n", "\n", " ", "xy", "z"]
    assert words[1] == words[0]
    assert words[2] == ["1", "2", "3", "4", "5", " a", "\n", "\n", " ", "xy", "z"]
    llama, dbrx = (
        tokenizer_from_gguf(tiny_bpe_metadata(pre, merges=merges)) for pre in ("llama-bpe", "dbrx")
    )
    assert [llama.token_bytes(token) for token in plain(llama, "xyz")] == [b"xyz"]
    assert [dbrx.token_bytes(token) for token in plain(dbrx, "xyz")] == [b"xy", b"z"]


@pytest.mark.parametrize(
    ("pre", "text", "words"),
    [
        ("llama-bpe", "I'LL go_on", ["I", "'LL", " go", "_on"]),
        ("llama-bpe", "1234567", ["123", "456", "7"]),
        ("llama-bpe", "a   b", ["a", "  ", " b"]),
        ("llama-bpe", "x = {\n\n\ty", ["x", " =", " {\n\n", "\ty"]),
        ("llama-bpe", "\r\n end  ", ["\r\n", " end", "  "]),
        ("llama-bpe", "日本 naïve!?", ["日本", " naïve", "!?"]),
        ("qwen2", "1234", ["1", "2", "3", "4"]),
        ("smollm", "a   12", ["a", "   ", "1", "2"]),
        ("gpt-2", "a   12 I'LL", ["a", "  ", " 12", " I", "'", "LL"]),
        ("default", "a+b 1234", ["a", "+", "b", " ", "123", "4"]),
        ("tekken", "HelloWorld 12/", ["Hello", "World", " ", "1", "2", "/"]),
    ],
)
def test_words_are_cut_as_each_family_cuts_them(pre: str, text: str, words: list[str]) -> None:
    cut = PRE_TOKENIZERS[pre].build().pre_tokenize_str(text)
    assert [text[start:end] for _, (start, end) in cut] == words


# SentencePiece


@st.composite
def trained_scores(draw: st.DrawFn) -> dict[str, float]:
    """A vocabulary as BPE training makes it: each new piece joins two earlier ones, ranked by age."""
    letters = draw(st.sampled_from(["a", "ab", "abc"])) + SPACE
    pieces = list(letters)
    for _ in range(draw(st.integers(0, 12))):
        piece = draw(st.sampled_from(pieces)) + draw(st.sampled_from(pieces))
        if piece not in pieces and len(piece) < 12:
            pieces.append(piece)
    merged = {piece: -float(rank) for rank, piece in enumerate(pieces[len(letters) :])}
    return {**{letter: -1000.0 - index for index, letter in enumerate(letters)}, **merged}


@given(trained_scores(), st.text(alphabet="abc é😀", max_size=24))
@example({SPACE: -9.0, "a": -9.0, "aa": -1.0, "aaa": -2.0}, "aaaaaaa")
def test_merging_by_score_equals_the_definition(scores: dict[str, float], text: str) -> None:
    metadata = tiny_sentencepiece_metadata(scores)
    tokenizer = tokenizer_from_gguf(metadata)
    pieces = _pieces(metadata)
    encoded = [pieces[token] for token in plain(tokenizer, text)]
    assert encoded == sentencepiece_encode(text, scores)
    assert tokenizer.decode(plain(tokenizer, text), starts_text=True) == text
    assert len(encoded) >= -(-len(text.encode()) // tokenizer.max_token_bytes)


def test_each_text_after_a_control_token_gets_its_own_space() -> None:
    scores = {SPACE: -2.0, "a": -3.0, f"{SPACE}a": -1.0}
    metadata = tiny_sentencepiece_metadata(scores, user_defined=["  "])
    tokenizer = tokenizer_from_gguf(metadata)
    pieces = _pieces(metadata)

    def spell(text: str) -> list[str]:
        ids = tokenizer.encode(text, add_special_tokens=True, parse_special=True)
        return [pieces[token] for token in ids]

    assert spell("a</s>a") == ["<s>", f"{SPACE}a", "</s>", f"{SPACE}a"]
    assert spell("a  a") == ["<s>", f"{SPACE}a", "  ", f"{SPACE}a"]
    assert spell("") == ["<s>"]
    unprefixed = tokenizer_from_gguf(metadata | {"tokenizer.ggml.add_space_prefix": False})
    assert plain(unprefixed, "a") == [pieces.index("a")]
    assert tokenizer.decode(plain(tokenizer, "a")) == " a"  # continuing a prompt, it is a space


def test_the_bound_holds_where_users_type_the_space_sign() -> None:
    tokenizer = tokenizer_from_gguf(tiny_sentencepiece_metadata({SPACE: -1.0, SPACE * 2: 0.0}))
    text = SPACE * 99
    assert len(plain(tokenizer, text)) >= -(-len(text.encode()) // tokenizer.max_token_bytes)


def _pieces(metadata: Mapping[str, object]) -> list[str]:
    pieces = metadata["tokenizer.ggml.tokens"]
    assert isinstance(pieces, list)
    return pieces


def _ids(**ids: int) -> dict[str, object]:
    return {f"tokenizer.ggml.{name}_token_id": index for name, index in ids.items()}
