"""/tokenize and /detokenize, in vLLM's shapes."""

from typing import Annotated

from pydantic import Discriminator, Field, Tag

from salver.gateway.wire.chat import Messages, Tool
from salver.gateway.wire.fields import Only, TokenIds, WireModel


class TokenizeText(WireModel):
    """Tokenize a text as /v1/completions would."""

    prompt: str
    model: str | None = None
    add_special_tokens: bool = True
    return_token_strs: bool | None = None


class TokenizeChat(WireModel):
    """Tokenize a chat as /v1/chat/completions would."""

    messages: Messages
    model: str | None = None
    tools: list[Tool] | None = None
    add_generation_prompt: bool = True
    add_special_tokens: bool = False
    return_token_strs: bool | None = None
    continue_final_message: Annotated[object, Only(False)] = None
    chat_template: Annotated[object, Only()] = None
    chat_template_kwargs: Annotated[object, Only({})] = None


TokenizeRequest = Annotated[
    Annotated[TokenizeText, Tag("prompt_")] | Annotated[TokenizeChat, Tag("messages_")],
    Discriminator(
        lambda value: "messages_" if isinstance(value, dict) and "messages" in value else "prompt_"
    ),
]


class TokenizeResponse(WireModel):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(WireModel):
    tokens: TokenIds
    model: str | None = None


class DetokenizeResponse(WireModel):
    """Control tokens are kept, so that text in gives text out."""

    prompt: str = Field(description="The text of the tokens.")
