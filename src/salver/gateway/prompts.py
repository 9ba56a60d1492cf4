"""From a caller's texts and messages to prompt tokens, inside the envelope.

Work is refused before it is done: a text of B bytes has at least B / max_token_bytes tokens, so
one that cannot fit is turned away before it is rendered or tokenized. Rendering and tokenizing run
off the event loop, which other calls' tokens are passing through; a short text is done before a
thread would have begun with it.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from salver.errors import InvalidValue, TooLarge, UnsupportedField
from salver.gateway.service import Limits
from salver.gateway.wire.chat import Message, Tool
from salver.models import ChatTemplate, ChatText, Tokenizer, flatten_content, render_chat

SHORT_BYTES = 2048  # rendered and tokenized within a millisecond
MESSAGE_BYTES = 64  # an empty message is about as much work to render as so much of a text

T = TypeVar("T")
Admit = Callable[[int], None]  # raises for a prompt of at least so many tokens; see Desk.admit


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
        self,
        prompt: str | Sequence[int],
        *,
        add_special_tokens: bool,
        param: str,
        admit: Admit | None = None,
    ) -> EncodedPrompt:
        """One prompt of /v1/completions, as text or token ids; `admit` is asked before tokenizing.

        Raises:
            InvalidValue: it is empty, or no token spells a part of it, or a token id is unknown.
            TooLarge: it leaves no room for an answer in the context.
        """
        if not prompt:
            raise _empty(param)
        if isinstance(prompt, str):
            self.check_bytes(len(prompt.encode()), param, admit)
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
        admit: Admit | None = None,
    ) -> tuple[int, ...]:
        """The prompt that the model's chat template makes of a conversation; `admit` is asked before
        it is rendered, and again before it is tokenized.

        Raises:
            UnsupportedField: there is no chat template, or it has no place for the tools given.
            InvalidValue: the template refuses the messages.
            TooLarge: it leaves no room for an answer in the context.
        """
        if self._template is None:
            raise _no_template()
        plain = [_plain(message, index) for index, message in enumerate(messages)]
        content = _content_bytes(plain)
        self.check_bytes(content, "messages", admit)
        with_tools = tools or any("tool_calls" in message for message in plain)
        size = SHORT_BYTES + 1 if with_tools else content + MESSAGE_BYTES * len(plain)
        chat = await _aside(
            size,
            partial(
                _render,
                self._template,
                self._tokenizer,
                plain,
                [tool.model_dump(exclude_none=True) for tool in tools],
                add_generation_prompt,
            ),
        )
        self.check_bytes(len(chat.text.encode()), "messages", admit)
        ids = await self.encode(
            chat.text, add_special_tokens=add_special_tokens, breaks=chat.breaks
        )
        self._check_count(len(ids), "messages")
        return tuple(ids)

    async def encode(
        self, text: str, *, add_special_tokens: bool, breaks: Sequence[int] = ()
    ) -> list[int]:
        """Token ids; control tokens written out in the text count as such, but across `breaks`."""
        encode = partial(
            self._tokenizer.encode,
            text,
            add_special_tokens=add_special_tokens,
            parse_special=True,
            breaks=breaks,
        )
        return await _aside(len(text), encode)

    async def decode(self, token_ids: Sequence[int]) -> str:
        """The text that encodes to these ids, control tokens kept."""
        decode = partial(
            self._tokenizer.decode, token_ids, skip_special_tokens=False, starts_text=True
        )
        return await _aside(len(token_ids), decode)

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

    def check_bytes(self, size: int, param: str, admit: Admit | None = None) -> None:
        """Raises TooLarge when a text of `size` bytes cannot fit the context, however tokenized, and
        whatever `admit` raises for as few tokens as it can have. What is to be admitted must leave
        room for an answer."""
        at_least = -(-size // self._tokenizer.max_token_bytes)
        room_for_answer = 0 if admit is None else 1
        if at_least + room_for_answer > self._limits.max_context_tokens:
            raise self._too_large(at_least, param, f"of {size} bytes is at least")
        if admit is not None:
            admit(at_least)

    def _check_count(self, count: int, param: str) -> None:
        if count == 0:
            raise _empty(param)
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


async def _aside(size: int, work: Callable[[], T]) -> T:
    """What `work` on so many bytes or tokens gives, without holding up the event loop."""
    return work() if size <= SHORT_BYTES else await asyncio.to_thread(work)


def _empty(param: str) -> InvalidValue:
    return InvalidValue(f"{param}: the prompt is empty", param=param, rule="request.empty_prompt")


def _no_template() -> UnsupportedField:
    return UnsupportedField(
        "messages: this model has no chat template",
        param="messages",
        rule="model.chat_template",
        fix="use /v1/completions",
    )


def _render(
    template: ChatTemplate,
    tokenizer: Tokenizer,
    messages: list[dict[str, object]],
    tools: list[dict[str, object]],
    add_generation_prompt: bool,
) -> ChatText:
    """Render, and make sure that earlier tool calls left a trace in the prompt (law 9).

    A template that has no place for them renders the same text without them.
    """

    def render(given: list[dict[str, object]]) -> ChatText:
        return render_chat(
            template,
            tokenizer,
            given,
            tools=tools or None,
            add_generation_prompt=add_generation_prompt,
        )

    chat = render(messages)
    without_calls = [{k: v for k, v in m.items() if k != "tool_calls"} for m in messages]
    if without_calls != messages and render(without_calls) == chat:
        raise UnsupportedField(
            "messages: this model's chat template has no place for tool calls",
            param="messages",
            rule="model.chat_template",
            fix="leave the tool calls out",
        )
    return chat


def _plain(message: Message, index: int) -> dict[str, object]:
    """A message as chat templates expect it: no nulls, and `developer` spoken as `system`."""
    plain = message.model_dump(exclude_none=True)
    if message.role == "developer":
        plain["role"] = "system"
    if not plain.get("tool_calls") and "content" not in plain:
        raise InvalidValue(
            f"messages[{index}].content: an assistant message needs content or tool calls",
            param=f"messages[{index}].content",
            rule="request.empty_message",
        )
    plain["content"] = flatten_content(plain.get("content", ""))
    return plain


def _content_bytes(messages: Sequence[Mapping[str, object]]) -> int:
    return sum(len(str(message["content"]).encode()) for message in messages)
