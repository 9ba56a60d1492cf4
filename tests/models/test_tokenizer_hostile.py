"""Metadata that lie, contradict themselves or want too much end in one named error."""

import itertools
from collections.abc import Callable, Mapping
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.errors import MalformedModel, SalverError, UnsupportedModel
from salver.models import Tokenizer, tokenizer_from_gguf
from salver.models.bpe import SPACE, byte_piece
from salver.models.detokenizer import Detokenizer
from salver.models.gguf_tokenizer import detokenizer_from_gguf
from salver.models.vocabulary import MAX_MERGES, MAX_TOKENS
from salver.testing.tiny_vocabulary import tiny_bpe_metadata, tiny_sentencepiece_metadata

BPE = tiny_bpe_metadata()
SPM = tiny_sentencepiece_metadata({SPACE: -1.0, "a": -2.0})


def tokens(metadata: Mapping[str, object]) -> list[str]:
    values = metadata["tokenizer.ggml.tokens"]
    assert isinstance(values, list)
    return list(values)


def with_token(metadata: Mapping[str, object], index: int, token: object) -> list[object]:
    return [*tokens(metadata)[:index], token, *tokens(metadata)[index + 1 :]]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tokens", None, "not a list of strings"),
        ("tokens", "abc", "not a list of strings"),
        ("tokens", [], "not a list of strings"),
        ("tokens", [1, 2], "not a list of strings"),
        ("tokens", with_token(BPE, 3, 7), "not a list of strings"),
        ("tokens", with_token(BPE, 3, "!"), "holds '!' twice, first at 0"),
        ("tokens", with_token(BPE, 260, "x" * 2000), "token of 2000 bytes, over 1024"),
        ("tokens", ["a"] * (MAX_TOKENS + 1), "1048577 strings, over 1048576"),
        ("token_type", [1], "has 1 entries"),
        ("token_type", "1", "not a list of integers"),
        ("token_type", [1.0] * len(tokens(BPE)), "not a list of integers"),
        ("token_type", [9] * len(tokens(BPE)), "holds 9; types are 1 to 6"),
        ("merges", None, "not a list of strings"),
        ("merges", [["t", "h"]], "not a list of strings"),
        ("merges", ["t h"] * (MAX_MERGES + 1), "over 1048576"),
        ("merges", ["th"], "entry 0 joins 'th' and ''"),
        ("merges", ["t h", "t nope"], "entry 1 joins 't' and 'nope'"),
        ("merges", ["a b"], "entry 0 joins 'a' and 'b'"),
        ("merges", ["t h "], "entry 0 joins 't' and 'h '"),
        ("bos_token_id", 10**6, "is 1000000, outside"),
        ("eos_token_id", -1, "an integer from 0"),
        ("eot_token_id", "2", "an integer from 0"),
        ("add_bos_token", 1, "true or false"),
        ("model", None, "must be present"),
        ("model", 3, "a string"),
        ("pre", None, "how to cut text into words is unknown"),
    ],
)
def test_a_bad_byte_level_file_is_named(key: str, value: object, message: str) -> None:
    metadata = {**BPE, f"tokenizer.ggml.{key}": value}
    with pytest.raises(MalformedModel, match=f"^file.gguf: .*{message}"):
        tokenizer_from_gguf(metadata, "file.gguf")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("scores", None, "not a list of numbers"),
        ("scores", ["a"] * len(tokens(SPM)), "not a list of numbers"),
        ("scores", [0.0], "has 1 entries for 261 tokens"),
        ("scores", [inf] * len(tokens(SPM)), "not finite"),
        ("tokens", with_token(SPM, 3, "!x"), "'!x' is not a byte"),
        ("tokens", with_token(SPM, 3, "zz"), "'<0x00>' is missing"),
        ("tokens", with_token(SPM, 259, "b"), "no token for a space"),
        ("token_type", [1] * len(tokens(SPM)), "needs 256 byte tokens"),
        ("bos_token_id", None, "bos_token_id is missing"),
    ],
)
def test_a_bad_sentencepiece_file_is_named(key: str, value: object, message: str) -> None:
    with pytest.raises(MalformedModel, match=message):
        tokenizer_from_gguf({**SPM, f"tokenizer.ggml.{key}": value})


@pytest.mark.parametrize(
    ("key", "value"),
    [("model", "bert"), ("model", "t5"), ("pre", "bloom"), ("pre", "LLAMA-BPE"), ("pre", "")],
)
def test_an_unknown_kind_is_refused_by_name(key: str, value: str) -> None:
    with pytest.raises(UnsupportedModel, match=f"{key} '{value}' is not known here"):
        tokenizer_from_gguf({**BPE, f"tokenizer.ggml.{key}": value})


def test_a_vocabulary_that_allows_too_many_merges_is_refused() -> None:
    """Every power of one letter splits in every place: n tokens give n * n / 2 merges."""
    runs = {"a" * length: float(-length) for length in range(1, 1021)}
    letters = {letter * length: 0.0 for letter in "bc" for length in range(1, 1021)}
    with pytest.raises(MalformedModel, match="allow over 1048576 merges"):
        tokenizer_from_gguf(tiny_sentencepiece_metadata({SPACE: 0.0, **runs, **letters}))


def test_characters_are_bounded_in_total() -> None:
    long = [f"{index:06d}" + "x" * 900 for index in range(19_000)]
    metadata = {**BPE, "tokenizer.ggml.tokens": long, "tokenizer.ggml.token_type": [1] * len(long)}
    with pytest.raises(MalformedModel, match="characters, over 16777216"):
        tokenizer_from_gguf(metadata)


def test_without_types_every_token_is_text() -> None:
    metadata = {key: value for key, value in BPE.items() if key != "tokenizer.ggml.token_type"}
    assert not tokenizer_from_gguf(metadata).control_tokens


def test_empty_tokens_fill_gaps() -> None:
    metadata = {**BPE, "tokenizer.ggml.tokens": [*tokens(BPE), "", ""]}
    metadata["tokenizer.ggml.token_type"] = [1] * (len(tokens(BPE)) + 2)
    tokenizer = tokenizer_from_gguf(metadata)
    assert tokenizer.vocab_size == len(tokens(BPE)) + 2
    assert tokenizer.token_bytes(tokenizer.vocab_size - 1) == b""


junk = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
junk_lists = st.lists(junk, max_size=5) | st.lists(st.text(max_size=3), max_size=300)
keys = st.sampled_from(
    [
        f"tokenizer.ggml.{key}"
        for key in ("model", "pre", "tokens", "token_type", "merges", "scores")
    ]
    + [f"tokenizer.ggml.{key}_token_id" for key in ("bos", "eos", "eot", "eom")]
    + [f"tokenizer.ggml.add_{key}" for key in ("bos_token", "eos_token", "space_prefix")]
)


@given(st.sampled_from([BPE, SPM]), st.dictionaries(keys, junk | junk_lists, min_size=1))
def test_any_junk_is_a_named_error_or_a_tokenizer(
    good: dict[str, object], changes: dict[str, object]
) -> None:
    outcome = built(tokenizer_from_gguf, {**good, **changes})
    if isinstance(outcome, Tokenizer):
        assert outcome.decode(range(outcome.vocab_size)) is not None
    else:
        assert isinstance(outcome, MalformedModel | UnsupportedModel)
        assert outcome.rule
        assert outcome.fix


@given(st.sampled_from([BPE, SPM]), st.dictionaries(keys, junk | junk_lists))
def test_a_detokenizer_tells_what_the_tokenizer_tells(
    good: dict[str, object], changes: dict[str, object]
) -> None:
    """It looks at less of a file, so it may open one that is refused as a whole."""
    metadata = {**good, **changes}
    whole, found = (built(each, metadata) for each in (tokenizer_from_gguf, detokenizer_from_gguf))
    if isinstance(whole, Tokenizer):
        assert isinstance(found, Detokenizer)
        ids = range(whole.vocab_size)
        assert list(map(found.token_bytes, ids)) == list(map(whole.token_bytes, ids))
        assert found.eos_token_ids == whole.eos_token_ids
        for first, skip, starts in itertools.product(ids, (True, False), (True, False)):
            told = {"skip_special_tokens": skip, "starts_text": starts}
            assert found.decode([first], **told) == whole.decode([first], **told)
    elif isinstance(found, SalverError):
        assert isinstance(found, MalformedModel | UnsupportedModel)


def built(
    build: Callable[[Mapping[str, object]], Detokenizer], metadata: Mapping[str, object]
) -> Detokenizer | SalverError:
    try:
        return build(metadata)
    except SalverError as refusal:
        return refusal


def test_byte_tokens_are_named_as_sentencepiece_names_them() -> None:
    assert [byte_piece(byte) for byte in (0, 10, 255)] == ["<0x00>", "<0x0A>", "<0xFF>"]
