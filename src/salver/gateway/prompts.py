"""From a caller's texts and messages to prompt tokens, inside the envelope.

Work is refused before it is done: a text of B bytes has at least B / max_token_bytes tokens, so
one that cannot fit is turned away before it is rendered or tokenized. Rendering and tokenizing run
off the event loop, which other calls' tokens are passing through.
"""

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from salver.errors import InvalidValue, RequestError, TooLarge, UnsupportedField
from salver.gateway.service import ChatTemplate, Limits, Tokenizer
from salver.gateway.wire.chat import (
    AssistantMessage,
    Message,
    TextPart,
    Tool,
    ToolCall,
    ToolMessage,
)


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """`text` is what the caller wrote, or what its token ids say."""

    token_ids: tuple[int, ...]
    text: str


class Prompts:
    """Reads prompts for one model."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None, limits: Limits) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._limits = limits

    async def read(
        self, prompt: str | Sequence[int], *, add_special_tokens: bool, param: str
    ) -> EncodedPrompt:
        """One prompt of /v1/completions, as text or token ids.

        Raises:
            InvalidValue: it is empty, or a token id is not in the vocabulary.
            TooLarge: it leaves no room for an answer in the context.
        """
        if isinstance(prompt, str):
            self.check_bytes(len(prompt.encode()), param)
            ids = await self.encode(prompt, add_special_tokens=add_special_tokens)
            self._check_count(len(ids), param)
            return EncodedPrompt(tuple(ids), prompt)
        self._check_count(len(prompt), param)
        self.check_ids(prompt, param)
        return EncodedPrompt(tuple(prompt), await self.decode(prompt))

    async def chat(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        *,
        add_generation_prompt: bool,
        add_special_tokens: bool,
    ) -> tuple[int, ...]:
        """The prompt that the model's chat template makes of a conversation.

        Raises:
            UnsupportedField: there is no chat template, or it has no place for the tools given.
            RequestError: the template refuses the messages.
            TooLarge: it leaves no room for an answer in the context.
        """
        text = await self.render(messages, tools, add_generation_prompt=add_generation_prompt)
        ids = await self.encode(text, add_special_tokens=add_special_tokens)
        self._check_count(len(ids), "messages")
        return tuple(ids)

    async def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        *,
        add_generation_prompt: bool,
    ) -> str:
        """The text of a conversation, no longer than could fit the context."""
        if self._template is None:
            raise UnsupportedField(
                "messages: this model has no chat template",
                param="messages",
                rule="model.chat_template",
                fix="use /v1/completions",
            )
        plain = [_plain(message, index) for index, message in enumerate(messages)]
        self.check_bytes(
            sum(len(str(message["content"]).encode()) for message in plain), "messages"
        )
        text = await asyncio.to_thread(
            _render, self._template, plain, [_dump(tool) for tool in tools], add_generation_prompt
        )
        self.check_bytes(len(text.encode()), "messages")
        return text

    async def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids; control tokens written out in the text are read as such, as peers do."""
        return await asyncio.to_thread(
            self._tokenizer.encode, text, add_special_tokens=add_special_tokens, parse_special=True
        )

    async def decode(self, token_ids: Sequence[int]) -> str:
        """Text with control tokens kept."""
        return await asyncio.to_thread(
            self._tokenizer.decode, list(token_ids), skip_special_tokens=False
        )

    def check_ids(self, token_ids: Sequence[int], param: str) -> None:
        """Raises InvalidValue for an id outside the vocabulary."""
        largest = max(token_ids, default=0)
        if largest >= self._tokenizer.vocab_size:
            raise InvalidValue(
                f"{param}: not a token id of this model",
                param=param,
                rule="model.vocab_size",
                value=largest,
                limit=self._tokenizer.vocab_size - 1,
            )

    def check_bytes(self, size: int, param: str) -> None:
        """Raises TooLarge when a text of `size` bytes cannot fit the context, however tokenized."""
        at_least = -(-size // self._tokenizer.max_token_bytes)
        if at_least > self._limits.max_context_tokens:
            raise self._too_large(at_least, param, f"of {size} bytes is at least")

    def _check_count(self, count: int, param: str) -> None:
        if count == 0:
            raise InvalidValue(
                f"{param}: the prompt is empty", param=param, rule="request.empty_prompt"
            )
        if count >= self._limits.max_context_tokens:
            raise self._too_large(count, param, "is")

    def _too_large(self, tokens: int, param: str, how: str) -> TooLarge:
        limit = self._limits.max_context_tokens
        return TooLarge(
            f"{param}: the prompt {how} {tokens} tokens, and a context of {limit} "
            "must also hold an answer",
            param=param,
            rule="envelope.max_context_tokens",
            value=tokens,
            limit=limit,
            fix="shorten the prompt",
        )


def _render(
    template: ChatTemplate,
    messages: list[dict[str, object]],
    tools: list[dict[str, object]],
    add_generation_prompt: bool,
) -> str:
    """Render, and make sure that tools and tool calls left a trace in the prompt (law 9).

    A template that has no place for them renders the same text without them.
    """
    text = template.render(
        messages, tools=tools or None, add_generation_prompt=add_generation_prompt
    )
    without_calls = [{k: v for k, v in m.items() if k != "tool_calls"} for m in messages]
    for given, param, fewer, other in (
        (bool(tools), "tools", messages, None),
        (without_calls != messages, "messages", without_calls, tools or None),
    ):
        if given and text == template.render(
            fewer, tools=other, add_generation_prompt=add_generation_prompt
        ):
            raise UnsupportedField(
                f"{param}: this model's chat template has no place for tools",
                param=param,
                rule="model.chat_template",
            )
    return text


def _plain(message: Message, index: int) -> dict[str, object]:
    """A message as chat templates expect it: text content, `developer` spoken as `system`."""
    role = "system" if message.role == "developer" else message.role
    plain: dict[str, object] = {"role": role, "content": _text(message.content)}
    if isinstance(message, ToolMessage):
        plain["tool_call_id"] = message.tool_call_id
    elif message.name is not None:
        plain["name"] = message.name
    if isinstance(message, AssistantMessage) and message.tool_calls:
        plain["tool_calls"] = list(_tool_calls(message.tool_calls, index))
    elif message.content is None:
        raise InvalidValue(
            f"messages[{index}].content: an assistant message needs content or tool calls",
            param=f"messages[{index}].content",
            rule="request.empty_message",
        )
    return plain


def _text(content: str | Sequence[TextPart] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.text for part in content)


def _tool_calls(calls: Sequence[ToolCall], index: int) -> Iterable[dict[str, object]]:
    """Templates take the arguments as an object, the API as JSON text."""
    for number, call in enumerate(calls):
        try:
            arguments = json.loads(call.function.arguments)
        except (ValueError, RecursionError):
            param = f"messages[{index}].tool_calls[{number}].function.arguments"
            raise RequestError(f"{param}: not JSON", param=param, rule="json.syntax") from None
        function = {"name": call.function.name, "arguments": arguments}
        yield {"id": call.id, "type": call.type, "function": function}


def _dump(tool: Tool) -> dict[str, object]:
    return tool.model_dump(exclude_none=True)
