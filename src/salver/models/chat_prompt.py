"""From a conversation to its prompt, with the words of users kept apart from the template's.

A chat template writes control tokens such as `<|im_end|>` as text, next to content that may spell
the same. Only the template's may count, or whoever writes a message could end it and speak as
somebody else. So each control token that a message spells is threaded with a mark, a character no
text may contain; the template copies it along wherever the content goes; and after rendering the
marks are taken out again and their places tell the tokenizer where no control token may lie.
Content without control tokens, nearly all there is, passes through untouched.

Cutting the prompt at message boundaries instead would need to know how each template joins its
pieces, and would change the tokens on both sides of every cut.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from salver.errors import InvalidValue
from salver.models.chat_messages import plain_list, plain_mapping, template_messages
from salver.models.chat_template import ChatTemplate
from salver.models.tokenizer import Tokenizer

# Unicode sets these 32 aside for use inside programs; they never stand for a character.
_NONCHARACTERS: Final = tuple(map(chr, range(0xFDD0, 0xFDF0)))


@dataclass(frozen=True, slots=True)
class ChatText:
    """A rendered conversation. No control token may be read across a position in `breaks`.

    Encode it by `tokenizer.encode(chat.text, add_special_tokens=False, parse_special=True,
    breaks=chat.breaks)`: the template writes BOS itself.
    """

    text: str
    breaks: Sequence[int]


def render_chat(
    template: ChatTemplate,
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, object]],
    *,
    tools: Sequence[Mapping[str, object]] | None = None,
    add_generation_prompt: bool = True,
    variables: Mapping[str, object] | None = None,
) -> ChatText:
    """Render a conversation so that control tokens count only where the template wrote them.

    Arguments and errors are those of `ChatTemplate.render`.
    """
    given: dict[str, Any] = {
        "messages": template_messages(messages),
        "tools": None if tools is None else plain_list(tools, "tools"),
        "variables": plain_mapping(variables or {}, "variables"),
    }
    mark = _mark_for(given, tokenizer)
    if not mark:
        text = template.render(**given, add_generation_prompt=add_generation_prompt)
        return ChatText(text, ())
    for name, value in given.items():
        given[name] = _rewritten(value, lambda text: _threaded(text, mark, tokenizer))
    pieces = template.render(**given, add_generation_prompt=add_generation_prompt).split(mark)
    return ChatText("".join(pieces), tuple(accumulate(map(len, pieces[:-1]))))


def _mark_for(given: object, tokenizer: Tokenizer) -> str:
    """A character that occurs nowhere in what was given; empty if no control token does."""
    texts = list(_strings(given))
    if not any(tokenizer.control_spans(text) for text in texts):
        return ""
    for mark in _NONCHARACTERS:
        if not any(mark in text for text in texts):
            return mark
    raise InvalidValue(
        "the messages hold every Unicode noncharacter from U+FDD0 to U+FDEF",
        param="messages",
        rule="messages.noncharacters",
        fix="remove them: they stand for no character",
    )


def _threaded(text: str, mark: str, tokenizer: Tokenizer) -> str:
    """Put the mark around and between the characters of each control token."""
    pieces, copied = [], 0
    for start, end in tokenizer.control_spans(text):
        pieces += [text[copied:start], mark, mark.join(text[start:end]), mark]
        copied = end
    return "".join([*pieces, text[copied:]])


def _strings(value: Any) -> Iterator[str]:
    """Every string in plain data, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value:
            yield from _strings(part)
        if isinstance(value, dict):
            yield from _strings(list(value.values()))


def _rewritten(value: Any, rewrite: Callable[[str], str]) -> Any:
    """Plain data with every string rewritten, but for keys by which a template may look."""
    if isinstance(value, str):
        return rewrite(value)
    if isinstance(value, dict):
        return {
            key if key.isidentifier() else rewrite(key): _rewritten(part, rewrite)
            for key, part in value.items()
        }
    if isinstance(value, list):
        return [_rewritten(part, rewrite) for part in value]
    return value
