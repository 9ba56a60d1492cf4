"""Log-probabilities in the three shapes that clients know.

OpenAI's chat shape gives each token's bytes; its older completion shape gives parallel lists and
character offsets; vLLM's `prompt_logprobs` maps token ids. JSON has no minus infinity, so a
probability of zero is written as FLOOR, as OpenAI does.
"""

import codecs
from collections.abc import Sequence

from salver.contract import TokenLogprobs
from salver.gateway.wire.chat import Alternative, ChatLogprobs, TokenLogprob
from salver.gateway.wire.completion import CompletionLogprobs
from salver.gateway.wire.usage import PromptLogprob, PromptLogprobs
from salver.models import Tokenizer

FLOOR = -9999.0


class LogprobShapes:
    """Writes tokens as the given tokenizer spells them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def chat(self, tokens: Sequence[TokenLogprobs]) -> ChatLogprobs:
        return ChatLogprobs(
            content=[
                TokenLogprob(
                    **self._alternative(token.token_id, token.logprob).model_dump(),
                    top_logprobs=[self._alternative(*each) for each in token.top],
                )
                for token in tokens
            ]
        )

    def prompt(self, tokens: Sequence[TokenLogprobs | None]) -> PromptLogprobs:
        return [None if token is None else self._prompt_entry(token) for token in tokens]

    def completion(
        self, tokens: Sequence[TokenLogprobs | int], offsets: "TextOffsets"
    ) -> CompletionLogprobs:
        """`tokens` in order; a bare id is a token that nothing precedes."""
        ids = [token if isinstance(token, int) else token.token_id for token in tokens]
        known = [None if isinstance(token, int) else token for token in tokens]
        return CompletionLogprobs(
            tokens=[self._spelled(token_id) for token_id in ids],
            token_logprobs=[None if token is None else _floor(token.logprob) for token in known],
            top_logprobs=[None if token is None else self._top(token) for token in known],
            text_offset=[offsets.next(self._tokenizer.token_bytes(token_id)) for token_id in ids],
        )

    def _alternative(self, token_id: int, logprob: float) -> Alternative:
        raw = self._tokenizer.token_bytes(token_id)
        return Alternative(
            token=raw.decode("utf-8", "replace"), logprob=_floor(logprob), bytes=list(raw)
        )

    def _prompt_entry(self, token: TokenLogprobs) -> dict[str, PromptLogprob]:
        ranked = {token_id: rank for rank, (token_id, _) in enumerate(token.top, start=1)}
        logprobs = {token.token_id: token.logprob, **dict(token.top)}
        return {
            str(token_id): PromptLogprob(
                logprob=_floor(logprob),
                rank=ranked.get(token_id),
                decoded_token=self._tokenizer.token_bytes(token_id).decode("utf-8", "replace"),
            )
            for token_id, logprob in logprobs.items()
        }

    def _top(self, token: TokenLogprobs) -> dict[str, float]:
        """The alternatives, and the token itself where it is not among them, as OpenAI has it."""
        ranked = (*token.top, (token.token_id, token.logprob))
        return {self._spelled(token_id): _floor(logprob) for token_id, logprob in ranked}

    def _spelled(self, token_id: int) -> str:
        raw = self._tokenizer.token_bytes(token_id)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


class TextOffsets:
    """Where each token starts in one choice's text, in characters.

    A token that continues a character starts where that character does.
    """

    def __init__(self, start: int = 0) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at = start

    def next(self, token: bytes) -> int:
        here = self._at
        self._at += len(self._decoder.decode(token))
        return here


def _floor(logprob: float) -> float:
    return max(logprob, FLOOR)
