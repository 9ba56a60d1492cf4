"""A tokenizer from a Hugging Face directory: tokenizer.json and the small files beside it.

Only data are read. A directory that wants its own Python code run is refused, and so is one that
has nothing but a SentencePiece protobuf.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import tokenizers
from tokenizers import AddedToken
from tokenizers.models import BPE

from salver.errors import UnsupportedModel
from salver.models.bpe import (
    SPACE,
    byte_level_bytes,
    byte_piece,
    missing_bytes,
    split_merges,
    text_merges,
)
from salver.models.detokenizer import Detokenizer
from salver.models.fields import Fields
from salver.models.files import read_json
from salver.models.hf_pipeline import (
    adds_space,
    affixes,
    build_normalizer,
    build_pre_tokenizer,
    has_stage,
    space_at_start_only,
)
from salver.models.tokenizer import PlainText, SpecialTokens, Tokenizer
from salver.models.vocabulary import MAX_MERGES, MAX_TOKEN_BYTES, MAX_TOKENS, malformed

MAX_TOKENIZER_BYTES: Final = 64 << 20
MAX_SETTINGS_BYTES: Final = 4 << 20

_BYTES: Final = {byte_piece(byte): byte for byte in range(256)}

NFC_SHRINKAGE: Final = 4  # composing makes UTF-8 shorter by less: 7 bytes of U+0390 become 2


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    """`ids` holds every token; `control` and `literal` (never split, but text) are parts of it."""

    ids: Mapping[str, int]
    control: Mapping[str, int]
    literal: Sequence[AddedToken]
    size: int

    @property
    def text(self) -> dict[str, int]:
        return {piece: index for piece, index in self.ids.items() if piece not in self.control}

    def spelled(self, spell: Callable[[str], bytes]) -> list[bytes]:
        """The bytes of each id: added tokens stand for themselves, others as `spell` reads them."""
        verbatim = self.control.keys() | {token.content for token in self.literal}
        token_bytes = [b""] * self.size
        for piece, index in self.ids.items():
            token_bytes[index] = piece.encode() if piece in verbatim else spell(piece)
        return token_bytes


def tokenizer_from_directory(directory: Path, vocab_size: int) -> Tokenizer:
    """Build the tokenizer of a model directory.

    Args:
        directory: holds tokenizer.json, and may hold tokenizer_config.json, generation_config.json
            and config.json.
        vocab_size: rows of the model's embedding; ids that the tokenizer leaves out are empty text.

    Raises:
        MalformedModel: a file is damaged or contradicts itself.
        UnsupportedModel: the tokenizer has a part that is not known here, or needs its own code.
    """
    document, vocabulary, special = _read(directory, vocab_size)
    if _is_byte_level(document):
        return _byte_level(document, vocabulary, special)
    return _sentencepiece(document, vocabulary, special)


def detokenizer_from_directory(directory: Path, vocab_size: int) -> Detokenizer:
    """Build of that tokenizer what tells ids apart, for those who meet no text.

    Raises:
        MalformedModel: a file is damaged or contradicts itself.
        UnsupportedModel: the tokenizer has a part that is not known here, or needs its own code.
    """
    document, vocabulary, special = _read(directory, vocab_size)
    byte_level = _is_byte_level(document)
    return Detokenizer(
        vocabulary.spelled(byte_level_bytes if byte_level else _sentencepiece_bytes),
        frozenset(special.control.values()),
        special.eos_token_ids,
        space_prefix=not byte_level and adds_space(document),
    )


def _read(directory: Path, vocab_size: int) -> tuple[Fields, _Vocabulary, SpecialTokens]:
    settings = read_settings(directory, "tokenizer_config.json")
    if "auto_map" in settings:
        raise settings.unsupported("auto_map", "which asks to run code that came with the model")
    document = _read_document(directory)
    vocabulary = _read_vocabulary(document, vocab_size)
    return document, vocabulary, _special_tokens(directory, settings, document, vocabulary)


def _is_byte_level(document: Fields) -> bool:
    return has_stage(document, "pre_tokenizer", "ByteLevel")


def read_settings(directory: Path, name: str) -> Fields:
    """One of the small JSON files; an absent one is empty."""
    path = directory / name
    values = read_json(path, MAX_SETTINGS_BYTES) if path.exists() else {}
    return Fields(values, f"{directory.name}/{name}")


def special_text(settings: Fields, key: str) -> str | None:
    """A token that tokenizer_config.json names: a string, or a mapping with `content`."""
    if isinstance(settings.get(key), Mapping):
        return settings.section(key).text("content")
    return settings.text(key) if key in settings else None


def _read_document(directory: Path) -> Fields:
    path = directory / "tokenizer.json"
    if not path.exists() and (directory / "tokenizer.model").exists():
        raise UnsupportedModel(
            f"{directory.name} has a tokenizer.model but no tokenizer.json",
            rule="tokenizer.json",
            fix="save the tokenizer once with a current `transformers`, which writes tokenizer.json",
        )
    document = Fields(read_json(path, MAX_TOKENIZER_BYTES), f"{directory.name}/tokenizer.json")
    model = document.section("model")
    model.require("type", "BPE")
    model.require("dropout", 0)
    model.require("continuing_subword_prefix", "")
    model.require("end_of_word_suffix", "")
    return document


def _read_vocabulary(document: Fields, size: int) -> _Vocabulary:
    ids = _piece_ids(document.section("model"))
    added = list(_added_tokens(document))
    for token, index in added:
        if ids.setdefault(token.content, index) != index:
            raise malformed(document.where, "added_tokens", f"give {token.content!r} a second id")
    _check_ids(document.where, ids, size)
    return _Vocabulary(
        ids,
        {token.content: index for token, index in added if token.special},
        [token for token, _ in added if not token.special],
        size,
    )


def _piece_ids(model: Fields) -> dict[str, int]:
    ids = model.get("vocab")
    if not isinstance(ids, dict) or not set(map(type, ids.values())) <= {int}:
        raise model.malformed("vocab", "a mapping from pieces to ids")
    return dict(ids)


def _added_tokens(document: Fields) -> Iterator[tuple[AddedToken, int]]:
    entries = document.get("added_tokens") or []
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise document.malformed("added_tokens", "a list of mappings")
    for entry in entries:
        fields = Fields(entry, document.where)
        for flag in ("single_word", "lstrip", "rstrip"):
            fields.require(flag, False)
        token = AddedToken(
            fields.text("content"),
            normalized=fields.flag("normalized", False),
            special=fields.flag("special", False),
        )
        yield token, fields.integer("id", low=0)


def _check_ids(where: str, ids: Mapping[str, int], size: int) -> None:
    if not 0 < size <= MAX_TOKENS:
        raise malformed(where, "vocab", f"is for {size} embeddings, outside 1 to {MAX_TOKENS}")
    owners: dict[int, str] = {}
    for piece, index in ids.items():
        if owners.setdefault(index, piece) != piece:
            raise malformed(where, "vocab", f"gives id {index} to {owners[index]!r} and {piece!r}")
        if not 0 <= index < size:
            raise malformed(where, "vocab", f"holds id {index}; the model embeds {size}", size)
        if len(piece) > MAX_TOKEN_BYTES:
            raise malformed(where, "vocab", f"token {index} has {len(piece)} characters")


def _byte_level(document: Fields, vocabulary: _Vocabulary, special: SpecialTokens) -> Tokenizer:
    token_bytes = vocabulary.spelled(byte_level_bytes)
    shrinkage = NFC_SHRINKAGE if has_stage(document, "normalizer", "NFC") else 1
    model = _model(document, vocabulary, starts_prompt=True)
    return Tokenizer(
        PlainText(model, model, unspellable=missing_bytes(vocabulary.text)),
        token_bytes,
        special,
        shrinkage * max(map(len, token_bytes)),
    )


def _sentencepiece(document: Fields, vocabulary: _Vocabulary, special: SpecialTokens) -> Tokenizer:
    model = document.section("model")
    needed = {SPACE, *_BYTES}
    if not model.flag("byte_fallback", False) or not needed <= vocabulary.ids.keys():
        raise model.unsupported(
            "byte_fallback", "but text outside the vocabulary needs byte tokens"
        )
    first = _model(document, vocabulary, starts_prompt=True)
    only_first = space_at_start_only(document)
    inner = _model(document, vocabulary, starts_prompt=False) if only_first else first
    return Tokenizer(
        PlainText(first, inner, space_prefix=adds_space(document)),
        vocabulary.spelled(_sentencepiece_bytes),
        special,
        max(len(piece.encode()) for piece in vocabulary.ids),  # a user may type U+2581 itself
    )


def _sentencepiece_bytes(piece: str) -> bytes:
    return bytes([_BYTES[piece]]) if piece in _BYTES else piece.replace(SPACE, " ").encode()


def _model(
    document: Fields, vocabulary: _Vocabulary, *, starts_prompt: bool
) -> tokenizers.Tokenizer:
    settings = document.section("model")
    text = vocabulary.text
    merges = text_merges(_merges(settings), text, vocabulary.ids, document.where)
    model = tokenizers.Tokenizer(
        BPE(
            text,
            merges,
            byte_fallback=settings.flag("byte_fallback", False),
            ignore_merges=settings.flag("ignore_merges", False),
        )
    )
    model.normalizer = build_normalizer(document)
    model.pre_tokenizer = build_pre_tokenizer(document, starts_prompt=starts_prompt)
    model.add_tokens(list(vocabulary.literal))
    return model


def _merges(settings: Fields) -> list[tuple[str, str]]:
    """Merges are written "left right", or as pairs in newer files."""
    merges = settings.get("merges")
    if not isinstance(merges, list) or len(merges) > MAX_MERGES:
        raise settings.malformed("merges", f"a list of at most {MAX_MERGES}")
    if all(isinstance(merge, str) for merge in merges):
        return list(split_merges(merges))
    for merge in merges:
        if not isinstance(merge, list) or [type(part) for part in merge] != [str, str]:
            raise settings.malformed("merges", "a list of pairs of tokens")
    return [(left, right) for left, right in merges]


def _special_tokens(
    directory: Path, settings: Fields, document: Fields, vocabulary: _Vocabulary
) -> SpecialTokens:
    prefix, suffix = affixes(document, vocabulary.ids)
    bos = _named_id(settings, "bos_token", vocabulary)
    eos = _named_id(settings, "eos_token", vocabulary)
    ends = {eos} if eos is not None else set()
    for name in ("config.json", "generation_config.json"):
        ends.update(_eos_ids(read_settings(directory, name), vocabulary.size))
    return SpecialTokens(vocabulary.control, bos, frozenset(ends), prefix, suffix)


def _named_id(settings: Fields, key: str, vocabulary: _Vocabulary) -> int | None:
    name = special_text(settings, key)
    if name is not None and name not in vocabulary.ids:
        raise settings.malformed(key, "a token of tokenizer.json")
    return None if name is None else vocabulary.ids[name]


def _eos_ids(settings: Fields, size: int) -> list[int]:
    ids = settings.get("eos_token_id")
    if ids is None:
        return []
    ends = []
    for index in ids if isinstance(ids, list) else [ids]:
        if not isinstance(index, int) or not 0 <= index < size:
            raise settings.malformed("eos_token_id", f"ids from 0 to {size - 1}")
        ends.append(index)
    return ends
