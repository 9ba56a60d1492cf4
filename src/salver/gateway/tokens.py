"""POST /tokenize and /detokenize: what a prompt becomes, without computing anything."""

from salver.errors import TooLarge
from salver.gateway.desk import Desk
from salver.gateway.wire.tokens import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeChat,
    TokenizeRequest,
    TokenizeResponse,
)


class TokenEndpoints:
    """Tokenizes for one service."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def tokenize(self, body: TokenizeRequest) -> TokenizeResponse:
        """The tokens of a text or a conversation, as the generating endpoints would count them."""
        self._desk.check_model(body.model)
        ids = await self._ids(body)
        spelled = self._desk.tokenizer.token_bytes
        return TokenizeResponse(
            count=len(ids),
            max_model_len=self._desk.limits.max_context_tokens,
            tokens=ids,
            token_strs=[spelled(token).decode("utf-8", "replace") for token in ids]
            if body.return_token_strs
            else None,
        )

    async def detokenize(self, body: DetokenizeRequest) -> DetokenizeResponse:
        """The text of some tokens, control tokens included."""
        self._desk.check_model(body.model)
        limit = self._desk.limits.max_context_tokens
        if len(body.tokens) > limit:
            raise TooLarge(
                "tokens: more than the context holds",
                param="tokens",
                rule="envelope.max_context_tokens",
                value=len(body.tokens),
                limit=limit,
            )
        self._desk.prompts.check_ids(body.tokens, "tokens")
        return DetokenizeResponse(prompt=await self._desk.prompts.decode(body.tokens))

    async def _ids(self, body: TokenizeRequest) -> list[int]:
        prompts = self._desk.prompts
        if isinstance(body, TokenizeChat):
            ids = await prompts.chat(
                body.messages,
                body.tools or (),
                add_generation_prompt=body.add_generation_prompt,
                add_special_tokens=body.add_special_tokens,
            )
            return list(ids)
        prompts.check_bytes(len(body.prompt.encode()), "prompt")
        return await prompts.encode(body.prompt, add_special_tokens=body.add_special_tokens)
