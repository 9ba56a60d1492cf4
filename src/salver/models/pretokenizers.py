"""How each BPE family cuts text into words before any merging, by its name in `tokenizer.ggml.pre`.

A wrong pattern gives plausible, worse tokens without any error, so a name that is not in the table
is refused. Names and patterns are those of llama.cpp's `src/llama-vocab.cpp`, where each came from
the model's own tokenizer.json. Patterns apply one after the other: each cuts the pieces that the
one before it left, and what lies between two matches is a piece as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import tokenizers
from tokenizers import Regex, pre_tokenizers

GPT2_PATTERN: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# The shape that GPT-4's pattern gave to Llama 3 and Qwen; they differ in how many digits go together.
_CASELESS_SUFFIX: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_TAIL: Final = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3: Final = _CASELESS_SUFFIX + r"\p{N}{1,3}" + _TAIL
_QWEN2: Final = _CASELESS_SUFFIX + r"\p{N}" + _TAIL

_UPPER: Final = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER: Final = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN: Final = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """`ignore_merges`: a word that is a token as a whole is that token, whatever the merges say.

    `add_bos` is what a file of this family means when it does not say.
    """

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    add_bos: bool = False

    def build(self) -> tokenizers.pre_tokenizers.PreTokenizer:
        """The library's form of it, which also turns bytes into byte-level characters."""
        cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in self.patterns]
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return pre_tokenizers.Sequence([*cuts, bytes_])


_WORDS: Final = PreTokenizer((GPT2_PATTERN,))
_SINGLE_DIGITS: Final = PreTokenizer((r"\p{N}", GPT2_PATTERN))
_LLAMA3_FAMILY: Final = PreTokenizer((_LLAMA3,), ignore_merges=True, add_bos=True)
_QWEN2_FAMILY: Final = PreTokenizer((_QWEN2,))

PRE_TOKENIZERS: Final[Mapping[str, PreTokenizer]] = {
    "codeshell": _SINGLE_DIGITS,
    "command-r": _SINGLE_DIGITS,
    "dbrx": PreTokenizer((_LLAMA3,)),
    "deepseek-r1-qwen": _QWEN2_FAMILY,
    "default": PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", GPT2_PATTERN, r"\p{N}+", "[0-9][0-9][0-9]")),
    "falcon3": _LLAMA3_FAMILY,
    "gpt-2": _WORDS,
    "llama-bpe": _LLAMA3_FAMILY,
    "llama-v3": _LLAMA3_FAMILY,
    "llama3": _LLAMA3_FAMILY,
    "mpt": _WORDS,
    "olmo": _WORDS,
    "phi-2": _WORDS,
    "qwen2": _QWEN2_FAMILY,
    "refact": _SINGLE_DIGITS,
    "smaug-bpe": PreTokenizer((_LLAMA3,)),
    "smollm": _SINGLE_DIGITS,
    "stablelm2": _QWEN2_FAMILY,
    "starcoder": _SINGLE_DIGITS,
    "tekken": PreTokenizer((_TEKKEN,), ignore_merges=True, add_bos=True),
}

KNOWN_PATTERNS: Final = frozenset(
    pattern for family in PRE_TOKENIZERS.values() for pattern in family.patterns
)
"""Every pattern above. One from elsewhere could take unbounded time to match."""
