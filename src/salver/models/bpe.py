"""The two kinds of BPE that a GGUF file or a Hugging Face directory may hold.

Byte-level BPE (GPT-2) spells every byte as one printable character and merges by a ranked list.
SentencePiece BPE works on characters, writes a space as U+2581, falls back to byte tokens, and has
no list of merges: of all adjacent pairs that make a token, it merges the one whose token has the
highest score, leftmost first (Kudo & Richardson, arXiv 1808.06226). Ranking every way to make each
token by that token's score, best first, turns the second kind into the first.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from salver.errors import MalformedModel
from salver.models.vocabulary import MAX_MERGES, malformed

SPACE: Final = "\u2581"  # how SentencePiece writes a space

_PRINTABLE: Final = (*range(33, 127), *range(161, 173), *range(174, 256))
_SHIFTED: Final = tuple(byte for byte in range(256) if byte not in _PRINTABLE)
CHARACTER_OF_BYTE: Final[Mapping[int, str]] = {
    **{byte: chr(byte) for byte in _PRINTABLE},
    **{byte: chr(256 + index) for index, byte in enumerate(_SHIFTED)},
}
"""GPT-2's spelling of bytes: printable Latin-1 as itself, the others from U+0100 on."""

BYTE_OF_CHARACTER: Final[Mapping[str, int]] = {
    character: byte for byte, character in CHARACTER_OF_BYTE.items()
}


def byte_level_bytes(piece: str) -> bytes:
    """The bytes that a byte-level piece spells; text outside that spelling stands for itself."""
    try:
        return bytes([BYTE_OF_CHARACTER[character] for character in piece])
    except KeyError:
        return piece.encode()


def missing_bytes(pieces: Iterable[str]) -> frozenset[int]:
    """Bytes that no single-character piece spells. Text that needs one cannot be encoded."""
    spelled = {piece for piece in pieces if len(piece) == 1}
    return frozenset(byte for char, byte in BYTE_OF_CHARACTER.items() if char not in spelled)


def byte_piece(byte: int) -> str:
    """How a SentencePiece vocabulary names the token of one byte."""
    return f"<0x{byte:02X}>"


def split_merges(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Merges written "left right" as pairs. A line without a space has an empty right."""
    for line in lines:
        left, _, right = line.partition(" ")
        yield left, right


def text_merges(
    merges: Iterable[tuple[str, str]], text: Mapping[str, int], known: Mapping[str, int], where: str
) -> list[tuple[str, str]]:
    """The merges that stay within `text`, best first as they came.

    Those that touch another token in `known` are left out: they would make a control token from
    plain text.

    Raises:
        MalformedModel: a merge names a token that is not in `known`, or makes one.
    """
    kept = []
    for number, (left, right) in enumerate(merges):
        if left in text and right in text and left + right in text:
            kept.append((left, right))
        elif left not in known or right not in known or left + right not in known:
            raise _bad_merge(number, left, right, where)
    return kept


def merges_from_scores(
    scored: Mapping[str, float], vocab: Mapping[str, int], where: str
) -> list[tuple[str, str]]:
    """Derive ranked merges: every split of every piece in `scored` into two pieces of `vocab`.

    Pieces of equal score rank in the order of `scored`, since ranks cannot tie; SentencePiece would
    take whichever stands further left. Trained vocabularies have no two equal scores.

    Raises:
        MalformedModel: there are more than `MAX_MERGES`.
    """
    merges: list[tuple[str, str]] = []
    for piece in sorted(scored, key=scored.__getitem__, reverse=True):
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocab and right in vocab:
                merges.append((left, right))
        if len(merges) > MAX_MERGES:
            raise malformed(where, "tokens", f"allow over {MAX_MERGES} merges", MAX_MERGES)
    return merges


def _bad_merge(number: int, left: str, right: str, where: str) -> MalformedModel:
    return malformed(
        where,
        "merges",
        f"entry {number} joins {left[:40]!r} and {right[:40]!r}; both and what they make together"
        " must be tokens",
    )
