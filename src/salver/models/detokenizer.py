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
    """Decodes one sequence; made by `Tokenizer.decoder`. Costs a list look-up per token.

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
