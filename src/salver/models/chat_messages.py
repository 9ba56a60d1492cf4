"""Messages as a chat template takes them: plain data, text content, parsed tool arguments.

Templates are written against messages as Hugging Face has them; clients send what OpenAI defines.
They differ in two places: content may come as a list of parts, and the arguments of a tool call
come as JSON text where templates expect the object.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Final

from salver.errors import InvalidValue, UnsupportedField

MAX_DEPTH: Final = 32  # of containers in one message or tool


def flatten_content(content: object, *, param: str = "content") -> str | None:
    """Turn OpenAI content into one string: text parts are joined by a newline.

    Args:
        content: a string, None (an assistant that only called tools) or a list of parts.
        param: where the content stands in the request, for errors.

    Raises:
        UnsupportedField: a part is not text.
        InvalidValue: a part is malformed.
    """
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise _invalid(param, "must be a string or a list of parts", content)
    return "\n".join(_text_of(part, f"{param}[{index}]") for index, part in enumerate(content))


def template_messages(messages: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Copy messages into the form that templates expect.

    Raises:
        UnsupportedField: some content is not text.
        InvalidValue: a message is malformed or nested too deeply.
    """
    return [
        _template_message(message, f"messages[{index}]") for index, message in enumerate(messages)
    ]


def plain_data(value: object, param: str, depth: int = 0) -> object:
    """Copy JSON-like data into dicts, lists and scalars.

    Raises:
        InvalidValue: it holds anything else, or is nested over `MAX_DEPTH` deep.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if depth >= MAX_DEPTH:
        raise _invalid(param, f"is nested over {MAX_DEPTH} deep", None)
    if isinstance(value, Mapping):
        return plain_mapping(value, param, depth)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return plain_list(value, param, depth)
    raise _invalid(param, f"holds a {type(value).__name__}, which JSON does not have", None)


def plain_mapping(value: object, param: str, depth: int = 0) -> dict[str, object]:
    """`plain_data` of what must be an object."""
    if not isinstance(value, Mapping):
        raise _invalid(param, "must be an object", value)
    return {str(key): plain_data(item, param, depth + 1) for key, item in value.items()}


def plain_list(value: Sequence[object], param: str, depth: int = 0) -> list[object]:
    """`plain_data` of a list."""
    return [plain_data(item, param, depth + 1) for item in value]


def _text_of(part: object, param: str) -> str:
    if not isinstance(part, Mapping):
        raise _invalid(param, "must be an object with a type", part)
    if part.get("type") != "text":
        raise UnsupportedField(
            f"{param} is a part of type {part.get('type')!r}; this server takes text",
            param=param,
            rule="messages.content.type",
            value=part.get("type"),
            fix='send {"type": "text", "text": ...}',
        )
    text = part.get("text")
    if not isinstance(text, str):
        raise _invalid(f"{param}.text", "must be a string", text)
    return text


def _template_message(message: Mapping[str, object], param: str) -> dict[str, object]:
    copy = plain_mapping(message, param)
    if "content" in copy:
        copy["content"] = flatten_content(copy["content"], param=f"{param}.content")
    if copy.get("tool_calls") is not None:
        _parse_arguments(copy["tool_calls"], f"{param}.tool_calls")
    return copy


def _parse_arguments(calls: object, param: str) -> None:
    """Replace JSON text by what it says, in the copy."""
    if not isinstance(calls, list):
        raise _invalid(param, "must be a list", calls)
    for index, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise _invalid(f"{param}[{index}].function", "must be an object", function)
        if isinstance(function.get("arguments"), str):
            where = f"{param}[{index}].function.arguments"
            function["arguments"] = _parsed(function["arguments"], where)


def _parsed(arguments: str, param: str) -> object:
    try:
        return plain_data(json.loads(arguments), param)
    except (ValueError, RecursionError) as error:
        raise _invalid(param, f"is not JSON: {error}", arguments[:80]) from None


def _invalid(param: str, problem: str, value: object) -> InvalidValue:
    return InvalidValue(f"{param} {problem}", param=param, rule="messages", value=value)
