"""The token list of a GGUF file, checked before anything is built from it.

Keys and token types: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, "Tokenizer".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import isfinite
from typing import Final

from salver.errors import MalformedModel

MAX_TOKENS: Final = 1 << 20  # the largest known vocabularies have 262k
MAX_MERGES: Final = 1 << 20
MAX_TOKEN_BYTES: Final = 1024
MAX_VOCABULARY_CHARACTERS: Final = 1 << 24


class TokenKind(IntEnum):
    """`tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3  # structure, not text
    USER_DEFINED = 4  # text that is always one token
    UNUSED = 5
    BYTE = 6  # a byte spelled <0xNN>


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`pieces[id]` is a token as the file spells it and `kinds[id]` what it is.

    `ids` leaves out empty pieces, which fill gaps in some files and can never be encoded.
    """

    pieces: Sequence[str]
    kinds: Sequence[TokenKind]
    ids: Mapping[str, int]

    def of_kind(self, *kinds: TokenKind) -> dict[str, int]:
        """Ids by piece of the tokens of these kinds, in order of id."""
        return {piece: index for piece, index in self.ids.items() if self.kinds[index] in kinds}


def read_vocabulary(metadata: Mapping[str, object], where: str) -> Vocabulary:
    """Read `tokens` and `token_type`; without the latter every token is normal.

    Raises:
        MalformedModel: a list is missing, of the wrong type or length, over a limit, or the tokens
            are not distinct.
    """
    pieces = strings(metadata, "tokenizer.ggml.tokens", MAX_TOKENS, where)
    kinds = _read_kinds(metadata, len(pieces), where)
    _check_sizes(pieces, where)
    ids = {piece: index for index, piece in enumerate(pieces) if piece}
    if len(ids) + pieces.count("") != len(pieces):
        index = next(i for i, piece in enumerate(pieces) if piece and ids[piece] != i)
        raise malformed(
            where, "tokenizer.ggml.tokens", f"holds {pieces[index]!r} twice, first at {index}"
        )
    return Vocabulary(pieces, kinds, ids)


def read_scores(metadata: Mapping[str, object], count: int, where: str) -> list[float]:
    """Read `scores`: one finite number for each token; higher merges earlier."""
    key = "tokenizer.ggml.scores"
    scores = metadata.get(key)
    if not isinstance(scores, list) or not set(map(type, scores)) <= {int, float}:
        raise malformed(where, key, "is not a list of numbers")
    _check_length(scores, count, key, where)
    if not all(map(isfinite, scores)):
        raise malformed(where, key, "holds a number that is not finite")
    return scores


def strings(metadata: Mapping[str, object], key: str, limit: int, where: str) -> list[str]:
    """Read a non-empty list of at most `limit` strings."""
    values = metadata.get(key)
    if not isinstance(values, list) or set(map(type, values)) != {str}:
        raise malformed(where, key, "is not a list of strings with something in it")
    if len(values) > limit:
        raise malformed(where, key, f"holds {len(values)} strings, over {limit}", limit)
    return values


def malformed(where: str, key: str, problem: str, limit: object = None) -> MalformedModel:
    """A fault of one metadata key."""
    return MalformedModel(
        f"{where}: {key} {problem}",
        rule=key,
        limit=limit,
        fix="the file is damaged or badly converted: fetch it again and check its digest",
    )


def _read_kinds(metadata: Mapping[str, object], count: int, where: str) -> list[TokenKind]:
    key = "tokenizer.ggml.token_type"
    values = metadata.get(key)
    if values is None:
        return [TokenKind.NORMAL] * count
    if not isinstance(values, list) or not set(map(type, values)) <= {int}:
        raise malformed(where, key, "is not a list of integers")
    _check_length(values, count, key, where)
    known = {int(kind): kind for kind in TokenKind}
    unknown = set(values) - known.keys()
    if unknown:
        raise malformed(where, key, f"holds {min(unknown)}; types are 1 to 6")
    return [known[value] for value in values]


def _check_length(values: Sequence[object], count: int, key: str, where: str) -> None:
    if len(values) != count:
        raise malformed(where, key, f"has {len(values)} entries for {count} tokens", count)


def _check_sizes(pieces: Sequence[str], where: str) -> None:
    key = "tokenizer.ggml.tokens"
    longest = max(pieces, key=len)
    if len(longest.encode()) > MAX_TOKEN_BYTES:
        problem = f"holds a token of {len(longest.encode())} bytes, over {MAX_TOKEN_BYTES}"
        raise malformed(where, key, problem, MAX_TOKEN_BYTES)
    total = sum(map(len, pieces))
    if total > MAX_VOCABULARY_CHARACTERS:
        problem = f"holds {total} characters, over {MAX_VOCABULARY_CHARACTERS}"
        raise malformed(where, key, problem, MAX_VOCABULARY_CHARACTERS)
