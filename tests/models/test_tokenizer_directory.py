"""Tokenizers of Hugging Face directories, against the `tokenizers` library reading the same file."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from salver.errors import MalformedModel, UnsupportedModel
from salver.models import Tokenizer, tokenizer_from_directory
from salver.models.bpe import SPACE, byte_piece, merges_from_scores, split_merges
from salver.models.hf_tokenizer import NFC_SHRINKAGE, detokenizer_from_directory
from salver.models.pretokenizers import PRE_TOKENIZERS
from salver.testing.tiny_vocabulary import tiny_bpe_metadata

BOS, EOS = "<s>", "</s>"
SLACK = 3  # embeddings beyond the tokenizer's own ids


def byte_level(cut: list[Any], normalizer: Any = None, **options: Any) -> tokenizers.Tokenizer:
    metadata: Any = tiny_bpe_metadata(control=[], user_defined=[])
    vocab = {piece: index for index, piece in enumerate(metadata["tokenizer.ggml.tokens"])}
    merges = list(split_merges(metadata["tokenizer.ggml.merges"]))
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, merges, **options))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cut)
    tokenizer.decoder = decoders.ByteLevel()
    return finished(tokenizer, normalizer)


def sentencepiece(normalizer: Any, cut: Any) -> tokenizers.Tokenizer:
    scores = {SPACE: -9.0, "a": -9.0, "b": -9.0, "aa": -1.0, f"{SPACE}a": -2.0, f"{SPACE}aa": -3.0}
    vocab = {piece: index for index, piece in enumerate([*map(byte_piece, range(256)), *scores])}
    merges = merges_from_scores(scores, vocab, "test")
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, merges, byte_fallback=True))
    if cut is not None:
        tokenizer.pre_tokenizer = cut
    return finished(tokenizer, normalizer)


def finished(tokenizer: tokenizers.Tokenizer, normalizer: Any) -> tokenizers.Tokenizer:
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in (BOS, EOS)])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    bos = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, bos)]
    )
    return tokenizer


def llama3() -> tokenizers.Tokenizer:
    split = pre_tokenizers.Split(Regex(PRE_TOKENIZERS["llama3"].patterns[0]), "isolated")
    cut = [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    return byte_level(cut, ignore_merges=True)


def qwen2() -> tokenizers.Tokenizer:
    split = pre_tokenizers.Split(Regex(PRE_TOKENIZERS["qwen2"].patterns[0]), "isolated")
    cut = [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    return byte_level(cut, normalizers.NFC())


def smollm2() -> tokenizers.Tokenizer:
    return byte_level([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])


def llama2() -> tokenizers.Tokenizer:
    rewrite = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    return sentencepiece(rewrite, None)


def mistral() -> tokenizers.Tokenizer:
    return sentencepiece(None, pre_tokenizers.Metaspace(SPACE, "first", split=False))


FAMILIES: list[Callable[[], tokenizers.Tokenizer]] = [llama3, qwen2, smollm2, llama2, mistral]
SETTINGS = {"bos_token": BOS, "eos_token": {"content": EOS}}


def saved(reference: tokenizers.Tokenizer, directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "tokenizer.json").write_text(reference.to_str())
    (directory / "tokenizer_config.json").write_text(json.dumps(SETTINGS))
    return directory


def opened(directory: Path) -> Tokenizer:
    size = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json")).get_vocab_size()
    return tokenizer_from_directory(directory, size + SLACK)


texts = st.lists(
    st.sampled_from(["the", " ", "  ", "a", "aa", "b", "1234", "é", "e\u0301", "😀", "\n"])
    | st.sampled_from([BOS, EOS, "<think>"])
    | st.text(max_size=3)
).map("".join)


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.__name__)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tokenizer, tokenizers.Tokenizer]:
    """Ours and the library's, from the same file."""
    reference = request.param()
    return opened(saved(reference, tmp_path_factory.mktemp("model"))), reference


@given(text=texts)
def test_encoding_equals_the_library(
    pair: tuple[Tokenizer, tokenizers.Tokenizer], text: str
) -> None:
    tokenizer, reference = pair
    ids = tokenizer.encode(text, add_special_tokens=True, parse_special=True)
    reference.encode_special_tokens = False
    assert ids == reference.encode(text).ids
    assert len(ids) - 1 >= -(-len(text.encode()) // tokenizer.max_token_bytes)
    plain = tokenizer.encode(text, add_special_tokens=False, parse_special=False)
    reference.encode_special_tokens = True
    assert plain == reference.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("family", FAMILIES)
def test_a_detokenizer_tells_what_the_tokenizer_tells(
    family: Callable[[], tokenizers.Tokenizer], tmp_path: Path
) -> None:
    whole = opened(saved(family(), tmp_path))
    found = detokenizer_from_directory(tmp_path, whole.vocab_size)
    ids = range(whole.vocab_size)
    assert found.vocab_size == whole.vocab_size
    assert list(map(found.token_bytes, ids)) == list(map(whole.token_bytes, ids))
    assert found.eos_token_ids == whole.eos_token_ids
    for token, skip in itertools.product(ids, (True, False)):
        told = {"skip_special_tokens": skip, "starts_text": True}
        assert found.decode([token], **told) == whole.decode([token], **told)


def test_composing_shrinks_text_by_less_than_the_bound_allows() -> None:
    """Of all ways to write each character, the longest: every part by its longest equivalent."""
    characters = [chr(code) for code in range(0x30000) if not 0xD800 <= code < 0xE000]
    longest: dict[str, int] = {}
    for character in characters:
        composed = normalize("NFC", character)
        longest[composed] = max(longest.get(composed, 0), len(character.encode()))
    for character in characters:
        composed = normalize("NFC", character)
        parts = normalize("NFD", composed)
        written = max(longest[composed], sum(longest.get(part, 4) for part in parts))
        assert written <= NFC_SHRINKAGE * len(composed.encode())


def test_ids_and_special_tokens_come_from_the_small_files(tmp_path: Path) -> None:
    reference = llama3()
    ids = reference.get_vocab()
    bos, eos, think = ids[BOS], ids[EOS], ids["<think>"]
    tokenizer = opened(saved(reference, tmp_path))
    assert (tokenizer.bos_token_id, set(tokenizer.eos_token_ids)) == (bos, {eos})
    assert tokenizer.vocab_size == reference.get_vocab_size() + SLACK
    assert tokenizer.token_bytes(tokenizer.vocab_size - 1) == b""
    assert tokenizer.decode([bos, think]) == "<think>"
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [eos, bos]}))
    assert opened(tmp_path).eos_token_ids == {eos, bos}


def test_sentencepiece_bytes_decode(tmp_path: Path) -> None:
    tokenizer = opened(saved(llama2(), tmp_path))
    ids = tokenizer.encode("aa 😀", add_special_tokens=False, parse_special=False)
    assert tokenizer.decode(ids, starts_text=True) == "aa 😀"
    assert tokenizer.decode(ids) == " aa 😀"


def change(*path: str | int, to: object) -> Callable[[Any], None]:
    def apply(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = to

    return apply


@pytest.mark.parametrize(
    ("alter", "error", "message"),
    [
        (change("model", "type", to="Unigram"), UnsupportedModel, "type is 'Unigram'"),
        (change("model", "dropout", to=0.1), UnsupportedModel, "dropout"),
        (change("model", "vocab", to=[]), MalformedModel, "a mapping from pieces to ids"),
        (change("model", "vocab", "the", to="1"), MalformedModel, "a mapping from pieces to ids"),
        (change("model", "vocab", "the", to=5), MalformedModel, "gives id 5 to"),
        (change("model", "vocab", "the", to=10**6), MalformedModel, "holds id 1000000"),
        (change("model", "vocab", "x" * 2000, to=280), MalformedModel, "2000 characters|id 280"),
        (change("model", "merges", to={}), MalformedModel, "merges"),
        (change("model", "merges", 0, to=["t", "nope"]), MalformedModel, "joins 't' and 'nope'"),
        (change("model", "merges", 0, to=["t"]), MalformedModel, "pairs of tokens"),
        (change("added_tokens", to=3), MalformedModel, "added_tokens"),
        (change("added_tokens", 0, "id", to=0), MalformedModel, "gives id 0 to"),
        (change("added_tokens", 0, "lstrip", to=True), UnsupportedModel, "lstrip"),
        (change("normalizer", to={"type": "Lowercase"}), UnsupportedModel, "Lowercase"),
        (change("normalizer", to={}), MalformedModel, "type"),
        (
            change("pre_tokenizer", to={"type": "Sequence", "pretokenizers": 1}),
            MalformedModel,
            "Sequence",
        ),
        (
            change("pre_tokenizer", "pretokenizers", 0, "pattern", to={"Regex": "(a+)+$"}),
            UnsupportedModel,
            "pattern",
        ),
        (change("post_processor", "single", to=[]), MalformedModel, "one place for the text"),
        (
            change("post_processor", "single", 0, to={"SpecialToken": {"id": "<none>"}}),
            MalformedModel,
            "an added token",
        ),
        (change("post_processor", "type", to="BertProcessing"), UnsupportedModel, "BertProcessing"),
    ],
)
def test_a_bad_tokenizer_json_is_named(
    alter: Callable[[Any], None], error: type[Exception], message: str, tmp_path: Path
) -> None:
    saved(llama3(), tmp_path)
    size = llama3().get_vocab_size() + SLACK
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    alter(document)
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(error, match=message):
        tokenizer_from_directory(tmp_path, size)


def test_code_that_came_with_a_model_is_never_run(tmp_path: Path) -> None:
    saved(llama3(), tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit")
    config = SETTINGS | {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModel, match="asks to run code"):
        opened(tmp_path)


def test_a_protobuf_alone_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0b")
    with pytest.raises(UnsupportedModel, match=r"no tokenizer\.json.*fix: save the tokenizer once"):
        tokenizer_from_directory(tmp_path, 10)


@pytest.mark.parametrize("ends", ["2", [99999], -1, [None]])
def test_a_bad_end_is_named(ends: object, tmp_path: Path) -> None:
    saved(llama3(), tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    with pytest.raises(MalformedModel, match="eos_token_id"):
        opened(tmp_path)
