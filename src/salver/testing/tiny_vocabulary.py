"""GGUF tokenizer metadata small enough to read, for tests and examples."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from salver.models.bpe import CHARACTER_OF_BYTE, SPACE, byte_piece

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6

_MERGES = (
    "t h", "th e", "h e", "Ġ t", "Ġt he", "i n", "in g", "Ġ Ġ", "ĠĠ ĠĠ", "a n", "an d", "Ġ and", "l l",
    "e ll", "h ell", "hell o", "1 2", "12 3", "' s", "Ċ Ċ", "Ã ©", "ð Ł", "ðŁ ĺ", "| >", "< |",
)  # fmt: skip


def tiny_bpe_metadata(
    pre: str = "llama-bpe",
    *,
    merges: Sequence[str] = _MERGES,
    control: Sequence[str] = ("<|im_start|>", "<|im_end|>"),
    user_defined: Sequence[str] = ("<tool_call>",),
) -> dict[str, object]:
    """Byte-level BPE: 256 bytes, what the merges make, then control and user-defined tokens.

    The first control token is BOS and the last is EOS; nothing is added around a text.
    """
    pieces = list(CHARACTER_OF_BYTE.values())
    pieces += dict.fromkeys(merge.replace(" ", "") for merge in merges)
    first = len(pieces)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [*pieces, *control, *user_defined],
        "tokenizer.ggml.token_type": [_NORMAL] * first
        + [_CONTROL] * len(control)
        + [_USER_DEFINED] * len(user_defined),
        "tokenizer.ggml.merges": list(merges),
        "tokenizer.ggml.bos_token_id": first,
        "tokenizer.ggml.eos_token_id": first + len(control) - 1,
        "tokenizer.ggml.add_bos_token": False,
    }


def tiny_sentencepiece_metadata(
    scores: Mapping[str, float], *, user_defined: Iterable[str] = ()
) -> dict[str, object]:
    """SentencePiece BPE: unk, BOS, EOS, 256 byte tokens, then the scored pieces.

    A space is U+2581 in a piece and plain in a user-defined token.
    """
    special = ("<unk>", "<s>", "</s>")
    literal = list(user_defined)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [*special, *map(byte_piece, range(256)), *scores, *literal],
        "tokenizer.ggml.token_type": [_UNKNOWN, _CONTROL, _CONTROL]
        + [_BYTE] * 256
        + [_NORMAL] * len(scores)
        + [_USER_DEFINED] * len(literal),
        "tokenizer.ggml.scores": [0.0] * 259 + list(scores.values()) + [0.0] * len(literal),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def sentencepiece_encode(text: str, scores: Mapping[str, float]) -> list[str]:
    """What SentencePiece BPE makes of a text, written as its definition says: slow and plain.

    Of all adjacent pairs that together are a piece, merge the one of the highest score, leftmost
    first, until none is left; what is then no piece falls to bytes.
    """
    symbols = list((" " + text if text else "").replace(" ", SPACE))
    while True:
        pairs = [
            (scores[left + right], -index)
            for index, (left, right) in enumerate(pairwise(symbols))
            if left + right in scores
        ]
        if not pairs:
            break
        at = -max(pairs)[1]
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    return [
        piece
        for symbol in symbols
        for piece in ([symbol] if symbol in scores else map(byte_piece, symbol.encode()))
    ]
