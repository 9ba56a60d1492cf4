"""Text to token ids and back.

Text is cut at control tokens first, and only the plain text between them goes to the model's own
algorithm, which knows no control token at all. Plain text can thus never turn into one: whether
`<|im_end|>` ends a turn depends on who wrote it, not on how it is spelled. `parse_special` says
whether to look for control tokens; `breaks` says where, inside text that a chat template wrote,
somebody else's words must not become one (see `chat_prompt`).
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import tokenizers
from tokenizers import AddedToken
from tokenizers.models import WordLevel

from salver.errors import InvalidValue
from salver.models.detokenizer import Detokenizer


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The tokens that are not text.

    `control` maps the spelling of each to its id. `prefix` and `suffix` are the ids that
    `add_special_tokens` puts around a text. Generation ends at any of `eos_token_ids`.
    """

    control: Mapping[str, int]
    bos_token_id: int | None
    eos_token_ids: frozenset[int]
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PlainText:
    """The algorithm for text between control tokens, on the `tokenizers` library.

    `first` encodes a text that starts the prompt and `inner` one that follows a control token; they
    differ where only the start of the prompt gets a space put before it. `space_prefix` says
    whether encoding puts a space there. `unspellable` holds the bytes that no token can spell.
    """

    first: tokenizers.Tokenizer
    inner: tokenizers.Tokenizer
    space_prefix: bool = False
    unspellable: frozenset[int] = frozenset()


class Tokenizer(Detokenizer):
    """One model's tokenizer: text to ids as well. Immutable, so threads may share it.

    Args:
        plain: encodes plain text.
        token_bytes: what each id stands for; its length is the vocabulary's size.
        special: the tokens that are not text.
        max_token_bytes: the most bytes of text that one token can take up.
    """

    def __init__(
        self,
        plain: PlainText,
        token_bytes: Sequence[bytes],
        special: SpecialTokens,
        max_token_bytes: int,
    ) -> None:
        super().__init__(
            token_bytes,
            frozenset(special.control.values()),
            special.eos_token_ids,
            space_prefix=plain.space_prefix,
        )
        self._plain = plain
        self._special = special
        self._splitter = _ControlSplitter(special.control)
        self._spellable = bytes(byte for byte in range(256) if byte not in plain.unspellable)
        self.max_token_bytes = max_token_bytes

    @property
    def bos_token_id(self) -> int | None:
        return self._special.bos_token_id

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """Ids of the control tokens by spelling."""
        return self._special.control

    def encode(
        self,
        text: str,
        *,
        add_special_tokens: bool,
        parse_special: bool,
        breaks: Sequence[int] = (),
    ) -> list[int]:
        """Encode a text.

        Args:
            text: any string of Unicode scalar values.
            add_special_tokens: put the model's own prefix (BOS) and suffix around it.
            parse_special: recognise control tokens spelled in the text. Otherwise they are encoded
                as the plain characters they are made of.
            breaks: rising positions in `text`; a control token spelled across one (starting before
                it and ending after it) is plain text.

        Raises:
            InvalidValue: the text holds a character that no token of this model can spell.
        """
        self._check_spelling(text)
        sections = self._splitter.split(text, breaks) if parse_special else [text] if text else []
        ids = list(self._special.prefix) if add_special_tokens else []
        plain = self._plain.first
        for section in sections:
            if isinstance(section, int):
                ids.append(section)
            else:
                ids.extend(plain.encode(section, add_special_tokens=False).ids)
            plain = self._plain.inner
        if add_special_tokens:
            ids.extend(self._special.suffix)
        return ids

    def control_spans(self, text: str) -> list[tuple[int, int]]:
        """Where control tokens are spelled in a text: rising, disjoint intervals [start, end).

        A control token of one character is never looked for: nothing could guard a text from it.
        """
        return [(start, end) for _, start, end in self._splitter.find(text)]

    def __repr__(self) -> str:
        return (
            f"<Tokenizer of {self.vocab_size} tokens, {len(self._control_ids)} of them control,"
            f" bos {self.bos_token_id}, eos {sorted(self.eos_token_ids)}>"
        )

    def _check_spelling(self, text: str) -> None:
        try:
            leftover = text.encode().translate(None, self._spellable)
        except UnicodeEncodeError as error:
            raise _unspellable(text, error.start, "it is half of a surrogate pair") from None
        if leftover:
            position = next(
                index for index, char in enumerate(text) if leftover[0] in char.encode()
            )
            raise _unspellable(text, position, f"no token holds its byte 0x{leftover[0]:02x}")


class _ControlSplitter:
    """Finds control tokens: leftmost first, then longest.

    The library's matcher for added tokens does the search, in time linear in the text however many
    tokens there are. Its model is one word, id 0, that stands for all the text between.
    """

    def __init__(self, control: Mapping[str, int]) -> None:
        self._finder = tokenizers.Tokenizer(WordLevel({"": 0}, unk_token=""))
        sought = [text for text in control if len(text) > 1]
        self._ids = (0, *(control[text] for text in sought))
        self._firsts = frozenset(text[0] for text in sought)
        self._finder.add_special_tokens(
            [AddedToken(text, normalized=False, special=True) for text in sought]
        )

    def find(self, text: str) -> Iterator[tuple[int, int, int]]:
        """Yield (id, start, end) of each control token in turn."""
        if not any(first in text for first in self._firsts):
            return  # as most texts have none, and calling the library takes longer than to see that
        found = self._finder.encode(text, add_special_tokens=False)
        for key, (start, end) in zip(found.ids, found.offsets, strict=True):
            if key:
                yield self._ids[key], start, end

    def split(self, text: str, breaks: Sequence[int]) -> Iterator[int | str]:
        """Yield ids of control tokens and the non-empty plain text between them, in order."""
        plain_from = 0
        for token_id, start, end in self.find(text):
            if _straddles(start, end, breaks):
                continue
            if plain_from < start:
                yield text[plain_from:start]
            yield token_id
            plain_from = end
        if plain_from < len(text):
            yield text[plain_from:]


def _straddles(start: int, end: int, breaks: Sequence[int]) -> bool:
    """Whether a break lies strictly inside [start, end)."""
    following = bisect_right(breaks, start)
    return following < len(breaks) and breaks[following] < end


def _unspellable(text: str, position: int, why: str) -> InvalidValue:
    code = ord(text[position])
    return InvalidValue(
        f"this model's vocabulary cannot spell U+{code:04X}, character {position} of the text: {why}",
        rule="tokenizer.spelling",
        value=f"U+{code:04X}",
        fix="remove or replace that character",
    )
