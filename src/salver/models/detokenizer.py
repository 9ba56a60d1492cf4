"""Token ids back to text, one at a time.

A token is a string of bytes, and a character may straddle tokens. The decoder therefore hands out
only what can no longer change: complete characters, and U+FFFD for bytes that can never become
one. Law: for any ids, the pushes and the final flush laid end to end are the text that decoding
all the ids at once gives.
"""

import codecs
from collections.abc import Sequence, Set

from salver.errors import InvalidValue


class TokenDecoder:
    """Decodes one sequence; made by `Detokenizer.decoder`. Costs a list look-up per token.

    Args:
        token_bytes: the bytes of each token id; shared, never changed.
        skipped: ids that leave no trace in the text.
        drop_space: leave out one space at the very start.
    """

    def __init__(
        self, token_bytes: Sequence[bytes], skipped: Set[int], *, drop_space: bool = False
    ) -> None:
        self._token_bytes = token_bytes
        self._skipped = skipped
        self._drop_space = drop_space
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """Take one token; return the characters that became final, often none.

        Raises:
            InvalidValue: the id is outside the vocabulary; the decoder is unchanged.
        """
        piece = bytes_of(self._token_bytes, token_id)
        if token_id in self._skipped:
            return ""
        return self._without_first_space(self._utf8.decode(piece))

    def flush(self) -> str:
        """End the text: bytes of an unfinished character become U+FFFD. Then start afresh."""
        text = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return text

    def _without_first_space(self, text: str) -> str:
        if not self._drop_space or not text:
            return text
        self._drop_space = False
        return text.removeprefix(" ")


class Detokenizer:
    """What the ids of a model's tokens stand for. Immutable, so threads may share it.

    It takes a third of the memory of a `Tokenizer`, which also knows how text is cut into them.

    Args:
        token_bytes: what each id stands for; its length is the vocabulary's size.
        control_ids: the ids that are not text.
        eos_token_ids: every id that ends a generation.
        space_prefix: whether encoding puts a space before a text.
    """

    def __init__(
        self,
        token_bytes: Sequence[bytes],
        control_ids: frozenset[int],
        eos_token_ids: frozenset[int],
        *,
        space_prefix: bool = False,
    ) -> None:
        self._token_bytes = token_bytes
        self._control_ids = control_ids
        self._eos_token_ids = eos_token_ids
        self._space_prefix = space_prefix

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return len(self._token_bytes)

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Every id that ends a generation: of the text, a turn or a message."""
        return self._eos_token_ids

    def decode(
        self, ids: Sequence[int], *, skip_special_tokens: bool = True, starts_text: bool = False
    ) -> str:
        """Decode ids at once; see `decoder` for the options.

        Raises:
            InvalidValue: an id is outside the vocabulary.
        """
        decoder = self.decoder(skip_special_tokens=skip_special_tokens, starts_text=starts_text)
        return "".join(map(decoder.push, ids)) + decoder.flush()

    def decoder(
        self, *, skip_special_tokens: bool = True, starts_text: bool = False
    ) -> TokenDecoder:
        """A fresh incremental decoder.

        Args:
            skip_special_tokens: leave control tokens out of the text.
            starts_text: the ids begin a text rather than continue a prompt, so the space that
                some tokenizers put before a text is taken away again.
        """
        return TokenDecoder(
            self._token_bytes,
            self._control_ids if skip_special_tokens else frozenset(),
            drop_space=starts_text and self._space_prefix,
        )

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one token adds to a text; a control token's are its spelling.

        Raises:
            InvalidValue: the id is outside the vocabulary.
        """
        return bytes_of(self._token_bytes, token_id)


def bytes_of(token_bytes: Sequence[bytes], token_id: int) -> bytes:
    """The bytes of one token.

    Raises:
        InvalidValue: the id is outside the vocabulary.
    """
    if not 0 <= token_id < len(token_bytes):
        raise InvalidValue(
            f"token id {token_id} is outside the vocabulary",
            rule="tokenizer.vocab_size",
            value=token_id,
            limit=len(token_bytes),
            fix=f"use ids from 0 to {len(token_bytes) - 1}",
        )
    return token_bytes[token_id]
