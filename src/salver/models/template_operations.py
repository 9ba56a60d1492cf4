"""Filters, methods and operators whose result can be far larger than what they read.

Each works out the size of its result and pays for it before making it. Results equal Jinja's own,
except that `tojson` is the one of `transformers`: plain JSON, nothing escaped for HTML.
"""

import json
from collections.abc import Callable, Iterable
from functools import partial
from types import BuiltinMethodType
from typing import Any, Final

from salver.models.template_meter import Meter, NotAllowed, OverBudget

MAX_INDENT: Final = 64
_SPLITS: Final = frozenset({"rsplit", "split", "splitlines"})


def check_operation(meter: Meter, operator: str, left: Any, right: Any) -> None:
    """Pay for an arithmetic operator; types that do not go together are left to Python.

    Raises:
        OverBudget: the result would be too large.
        NotAllowed: it formats a string with %, whose widths are unbounded.
    """
    if operator == "+":
        meter.glance(left)
        meter.glance(right)
        if isinstance(left, str) and isinstance(right, str):
            meter.characters(len(left) + len(right))
    elif operator == "*":
        _check_product(meter, left, right)
    elif operator == "**":
        meter.integer(_bits(left) * right if isinstance(right, int) else 0)
    elif operator == "%" and isinstance(left, str):
        raise NotAllowed("it formats a string with %")


def method(meter: Meter, function: Any, args: tuple[Any, ...]) -> Callable[..., Any]:
    """The method to call in place of `function`, paid for as far as can be told beforehand."""
    owner = getattr(function, "__self__", None)
    if not isinstance(function, BuiltinMethodType) or not isinstance(owner, str | dict):
        return function  # type: ignore[no-any-return]  # a macro or a global: not ours to look into
    for value in (owner, *args):
        meter.glance(value)
    if not isinstance(owner, str):
        return function
    if function.__name__ == "join":
        return partial(join, meter, owner)
    if function.__name__ == "replace":
        return partial(replace, meter, owner)
    if function.__name__ in _SPLITS:
        meter.spend(len(owner))  # as many strings may come out
    return function


def join(meter: Meter, separator: str, values: Iterable[object]) -> str:
    parts = list(values)
    if not all(isinstance(part, str) for part in parts):
        raise TypeError("join needs strings")
    meter.spend(len(parts))
    meter.characters(sum(map(len, map(str, parts))) + len(separator) * len(parts))
    return separator.join(map(str, parts))


def replace(meter: Meter, text: str, old: str, new: str, count: int = -1) -> str:
    found = text.count(old)
    meter.characters(len(text) + (found if count < 0 else min(found, count)) * len(new))
    return text.replace(old, new, count)


def join_filter(
    meter: Meter, values: Iterable[object], d: object = "", attribute: object = None
) -> str:
    """Jinja's `join`, which turns every value into a string."""
    if attribute is not None:
        raise NotAllowed("it joins by attribute; map(attribute=...) comes before join")
    return join(meter, str(meter.weigh(d)), [str(meter.weigh(value)) for value in values])


def replace_filter(meter: Meter, s: object, old: object, new: object, count: int = -1) -> str:
    text, before, after = (str(meter.weigh(value)) for value in (s, old, new))
    return replace(meter, text, before, after, count)


def indent_filter(
    meter: Meter, s: object, width: int | str = 4, first: bool = False, blank: bool = False
) -> str:
    """Put `width` spaces, or that string, before each line but the first and blank ones."""
    margin = width if isinstance(width, str) else " " * _small(width)
    _small(len(margin))
    lines = (str(meter.weigh(s)) + "\n").splitlines()
    meter.characters(sum(map(len, lines)) + len(lines) * (len(margin) + 1))
    indented = [margin + line if line or blank else line for line in lines[1:]]
    head = margin + lines[0] if first else lines[0]
    return "\n".join([head, *indented])


def to_json(
    meter: Meter,
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as `transformers` writes it in chat templates."""
    margin = _small(indent if isinstance(indent, int) else len(indent or ""))
    around = sum(map(len, separators or ()))
    before = meter.units
    meter.weigh(value)
    # Each item is at most a unit, on a line of its own, as deep as anything can be.
    meter.spend((before - meter.units) * (1 + _small(around) + margin))
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _check_product(meter: Meter, left: Any, right: Any) -> None:
    for sequence, times in ((left, right), (right, left)):
        if isinstance(times, int) and isinstance(sequence, str):
            meter.characters(len(sequence) * max(times, 0))
        elif isinstance(times, int) and isinstance(sequence, list | tuple):
            meter.spend(len(sequence) * max(times, 0))
    meter.integer(_bits(left) + _bits(right))


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _small(width: int) -> int:
    if width > MAX_INDENT:
        raise OverBudget(f"it indents by {width}; {MAX_INDENT} is the most")
    return max(width, 0)
