"""A tokenizer from the metadata of a GGUF file.

Nothing here is guessed: a model kind or a pre-tokenizer that is not known by name is refused. Where
a file says nothing, llama.cpp's defaults hold, since those are what its author tested with.
"""

from collections.abc import Mapping
from typing import Final

import tokenizers
from tokenizers import AddedToken, normalizers
from tokenizers.models import BPE

from salver.errors import MalformedModel, UnsupportedModel
from salver.models.bpe import (
    SPACE,
    byte_level_bytes,
    byte_piece,
    merges_from_scores,
    missing_bytes,
    split_merges,
    text_merges,
)
from salver.models.detokenizer import Detokenizer
from salver.models.fields import Fields
from salver.models.pretokenizers import PRE_TOKENIZERS, PreTokenizer
from salver.models.tokenizer import PlainText, SpecialTokens, Tokenizer
from salver.models.vocabulary import (
    MAX_MERGES,
    TokenKind,
    Vocabulary,
    malformed,
    read_scores,
    read_vocabulary,
    strings,
)

_CONTROL: Final = (TokenKind.CONTROL, TokenKind.UNKNOWN)
_TEXT: Final = (TokenKind.NORMAL, TokenKind.USER_DEFINED, TokenKind.UNUSED)

# Control tokens that end a turn in every model that has them. Files often name just one of theirs.
_TURN_ENDS: Final = frozenset(
    {
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|im_end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|end|>",
        "<end_of_turn>",
        "<EOT>",
    }
)


def tokenizer_from_gguf(metadata: Mapping[str, object], where: str = "model") -> Tokenizer:
    """Build the tokenizer that a file's metadata describe. `where` names the file in errors.

    Raises:
        MalformedModel: the metadata contradict themselves or a limit.
        UnsupportedModel: the kind of tokenizer, or its pre-tokenizer, is not known here.
    """
    fields = Fields(metadata, where)
    if _is_byte_level(fields):
        return _byte_level(metadata, fields)
    return _sentencepiece(metadata, fields)


def detokenizer_from_gguf(metadata: Mapping[str, object], where: str = "model") -> Detokenizer:
    """Build of that tokenizer what tells ids apart, for those who meet no text.

    Raises:
        MalformedModel: the metadata contradict themselves or a limit.
        UnsupportedModel: the kind of tokenizer is not known here.
    """
    fields = Fields(metadata, where)
    byte_level = _is_byte_level(fields)
    vocabulary = read_vocabulary(metadata, where)
    return Detokenizer(
        _byte_level_spelling(vocabulary)
        if byte_level
        else _sentencepiece_spelling(vocabulary, where),
        frozenset(vocabulary.of_kind(*_CONTROL).values()),
        _ends(fields, vocabulary),
        space_prefix=not byte_level and _puts_space(fields),
    )


def _is_byte_level(fields: Fields) -> bool:
    kind = fields.text("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        raise _unknown(fields, "tokenizer.ggml.model", ("gpt2", "llama"))
    return kind == "gpt2"


def _byte_level(metadata: Mapping[str, object], fields: Fields) -> Tokenizer:
    family = _family(fields)
    vocabulary = read_vocabulary(metadata, fields.where)
    text = vocabulary.of_kind(*_TEXT)
    lines = strings(metadata, "tokenizer.ggml.merges", MAX_MERGES, fields.where)
    merges = text_merges(split_merges(lines), text, vocabulary.ids, fields.where)
    model = tokenizers.Tokenizer(BPE(text, merges, ignore_merges=family.ignore_merges))
    model.pre_tokenizer = family.build()
    _add_user_defined(model, vocabulary)
    token_bytes = _byte_level_spelling(vocabulary)
    return Tokenizer(
        PlainText(model, model, unspellable=missing_bytes(text)),
        token_bytes,
        _special_tokens(fields, vocabulary, add_bos=family.add_bos),
        max(map(len, token_bytes)),
    )


def _byte_level_spelling(vocabulary: Vocabulary) -> list[bytes]:
    literal = (*_CONTROL, TokenKind.USER_DEFINED)
    return [
        piece.encode() if kind in literal else byte_level_bytes(piece)
        for piece, kind in zip(vocabulary.pieces, vocabulary.kinds, strict=True)
    ]


def _sentencepiece(metadata: Mapping[str, object], fields: Fields) -> Tokenizer:
    vocabulary = read_vocabulary(metadata, fields.where)
    scores = read_scores(metadata, len(vocabulary.pieces), fields.where)
    token_bytes = _sentencepiece_spelling(vocabulary, fields.where)
    text = vocabulary.of_kind(*_TEXT)
    scored = {piece: scores[index] for piece, index in text.items()}
    merges = merges_from_scores(scored, text, fields.where)
    space_prefix = _puts_space(fields)
    model = tokenizers.Tokenizer(
        BPE(text | vocabulary.of_kind(TokenKind.BYTE), merges, byte_fallback=True)
    )
    spaces = normalizers.Replace(" ", SPACE)
    prefix = [normalizers.Prepend(SPACE)] if space_prefix else []
    model.normalizer = normalizers.Sequence([*prefix, spaces])
    _add_user_defined(model, vocabulary)
    return Tokenizer(
        PlainText(model, model, space_prefix=space_prefix),
        token_bytes,
        _special_tokens(fields, vocabulary, add_bos=True),
        max(len(piece.encode()) for piece in vocabulary.pieces),  # a user may type U+2581 itself
    )


def _puts_space(fields: Fields) -> bool:
    return fields.flag("tokenizer.ggml.add_space_prefix", True)


def _sentencepiece_spelling(vocabulary: Vocabulary, where: str) -> list[bytes]:
    _check_alphabet(vocabulary, where)
    tokens = zip(vocabulary.pieces, vocabulary.kinds, strict=True)
    return [_sentencepiece_bytes(*token) for token in tokens]


def _sentencepiece_bytes(piece: str, kind: TokenKind) -> bytes:
    if kind is TokenKind.BYTE:
        return bytes([int(piece[3:5], 16)])
    return (piece if kind in _CONTROL else piece.replace(SPACE, " ")).encode()


def _check_alphabet(vocabulary: Vocabulary, where: str) -> None:
    """A space and exactly the 256 byte tokens: then every text can be encoded as it stands."""
    named = vocabulary.of_kind(TokenKind.BYTE).keys()
    wrong = sorted(named ^ {byte_piece(byte) for byte in range(256)})
    if wrong:
        state = "is not a byte" if wrong[0] in named else "is missing"
        problem = f"needs 256 byte tokens; {wrong[0]!r} {state}"
        raise malformed(where, "tokenizer.ggml.tokens", problem)
    if SPACE not in vocabulary.ids:
        raise malformed(where, "tokenizer.ggml.tokens", "holds no token for a space (U+2581)")


def _add_user_defined(model: tokenizers.Tokenizer, vocabulary: Vocabulary) -> None:
    """Text that is one token wherever it stands, before any splitting or merging."""
    model.add_tokens(
        [
            AddedToken(piece, normalized=False)
            for piece in vocabulary.of_kind(TokenKind.USER_DEFINED)
        ]
    )


def _family(fields: Fields) -> PreTokenizer:
    key = "tokenizer.ggml.pre"
    if key not in fields:
        raise MalformedModel(
            f"{fields.where}: {key} is missing, so how to cut text into words is unknown",
            rule=key,
            fix="convert the model again with a current converter",
        )
    family = PRE_TOKENIZERS.get(fields.text(key))
    if family is None:
        raise _unknown(fields, key, tuple(PRE_TOKENIZERS))
    return family


def _unknown(fields: Fields, key: str, known: tuple[str, ...]) -> UnsupportedModel:
    return UnsupportedModel(
        f"{fields.where}: {key} {fields.text(key)!r} is not known here",
        rule=key,
        value=fields.text(key),
        limit=known,
        fix=f"choose a model that uses one of {', '.join(known)}",
    )


def _special_tokens(fields: Fields, vocabulary: Vocabulary, *, add_bos: bool) -> SpecialTokens:
    control = vocabulary.of_kind(*_CONTROL)
    bos, eos = (_token_id(fields, name, vocabulary) for name in ("bos", "eos"))
    add_bos = fields.flag("tokenizer.ggml.add_bos_token", add_bos)
    add_eos = fields.flag("tokenizer.ggml.add_eos_token", False)
    return SpecialTokens(
        control,
        bos,
        _ends(fields, vocabulary),
        prefix=_around(fields, "bos", bos) if add_bos else (),
        suffix=_around(fields, "eos", eos) if add_eos else (),
    )


def _ends(fields: Fields, vocabulary: Vocabulary) -> frozenset[int]:
    named = (_token_id(fields, name, vocabulary) for name in ("eos", "eot", "eom"))
    control = vocabulary.of_kind(*_CONTROL)
    turns = (index for piece, index in control.items() if piece in _TURN_ENDS)
    return frozenset(index for index in (*named, *turns) if index is not None)


def _token_id(fields: Fields, name: str, vocabulary: Vocabulary) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    if key not in fields:
        return None
    index = fields.integer(key, low=0)
    if index >= len(vocabulary.pieces):
        problem = f"is {index}, outside the {len(vocabulary.pieces)} tokens"
        raise malformed(fields.where, key, problem, len(vocabulary.pieces))
    return index


def _around(fields: Fields, name: str, index: int | None) -> tuple[int]:
    if index is None:
        problem = f"is missing, while a {name} token has to be added"
        raise malformed(fields.where, f"tokenizer.ggml.{name}_token_id", problem)
    return (index,)
