"""Written quantities and the numbers they stand for.

A quantity in a contract carries its unit, so that no reader has to guess whether 500 means
milliseconds or seconds. Past this module there are plain numbers only: durations are float
seconds, sizes are int bytes, fractions are floats where 1.0 is `100%`. Arithmetic on the way is
decimal, so what is written is what is meant: `99.9%` is exactly the float 0.999.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, LiteralString

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

SECONDS: Mapping[str, Decimal] = {
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("0.001"),
    "us": Decimal("0.000001"),
}
BYTES: Mapping[str, Decimal] = {
    "TiB": Decimal(2**40),
    "GiB": Decimal(2**30),
    "MiB": Decimal(2**20),
    "KiB": Decimal(2**10),
    "TB": Decimal(10**12),
    "GB": Decimal(10**9),
    "MB": Decimal(10**6),
    "KB": Decimal(10**3),
    "B": Decimal(1),
}

_NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,15})?)"
_DURATION = rf"^{_NUMBER}({'|'.join(SECONDS)})$"
_SIZE = rf"^{_NUMBER}({'|'.join(BYTES)})$"
_PERCENT = rf"^{_NUMBER}(%)$"


def parse_duration(written: object) -> float:
    """Seconds in a duration such as `500ms`, `30s` or `1.5h`; always above zero."""
    seconds = _number(written, _DURATION, SECONDS)
    if seconds is None:
        raise _unwritten("quantity.duration", written, "a duration", "us, ms, s, m or h", "500ms")
    if seconds == 0:
        raise PydanticCustomError("quantity.duration", "write a duration above zero")
    return float(seconds)


def parse_size(written: object) -> int:
    """Bytes in a size such as `1GiB` (2**30) or `1GB` (10**9); whole, and always above zero."""
    size = _number(written, _SIZE, BYTES)
    if size is None:
        raise _unwritten("quantity.size", written, "a size", "B, KiB, MiB, GiB, KB, MB, GB", "1GiB")
    if size == 0:
        raise PydanticCustomError("quantity.size", "write a size above zero")
    if size != size.to_integral_value():
        raise PydanticCustomError("quantity.size", "write a whole number of bytes")
    return int(size)


def parse_fraction(written: object) -> float:
    """The fraction in a percentage such as `99.9%`, in [0, 1]."""
    percent = _number(written, _PERCENT, {"%": Decimal(1)})
    if percent is None:
        raise _unwritten("quantity.fraction", written, "a percentage", "%", "10%")
    if percent > 100:
        raise PydanticCustomError("quantity.fraction", "write a percentage from 0% to 100%")
    return float(percent / 100)


def format_duration(seconds: float) -> str:
    """The duration in its largest unit that needs no decimal point; `parse_duration` undoes it."""
    return _in_largest_unit(Decimal(repr(seconds)), SECONDS, otherwise="s")


def format_size(size: int) -> str:
    """The size in its largest binary unit that needs no decimal point; `parse_size` undoes it."""
    binary = {unit: factor for unit, factor in BYTES.items() if unit == "B" or "i" in unit}
    return _in_largest_unit(Decimal(size), binary, otherwise="B")


def format_fraction(fraction: float) -> str:
    """The fraction as a percentage; `parse_fraction` undoes it."""
    return f"{_plain(Decimal(repr(fraction)) * 100)}%"


def _number(written: object, pattern: str, units: Mapping[str, Decimal]) -> Decimal | None:
    matched = re.fullmatch(pattern, written) if isinstance(written, str) else None
    return Decimal(matched[1]) * units[matched[2]] if matched else None


def _in_largest_unit(value: Decimal, units: Mapping[str, Decimal], *, otherwise: str) -> str:
    for unit, factor in units.items():
        count = value / factor
        if count >= 1 and count == count.to_integral_value():
            return f"{_plain(count)}{unit}"
    return f"{_plain(value)}{otherwise}"


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _unwritten(
    rule: LiteralString, written: object, kind: str, units: str, example: str
) -> PydanticCustomError:
    bare = isinstance(written, int | float) and not isinstance(written, bool)
    hint = "; a bare number does not say what it counts" if bare else ""
    fix = f"write {kind} with its unit ({units}), such as {example}{hint}"
    return PydanticCustomError(rule, "{fix}", {"fix": fix})


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": _DURATION}),
]
"""Seconds, written with a unit."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": _SIZE}),
]
"""Bytes, written with a unit."""

Fraction = Annotated[
    float,
    BeforeValidator(parse_fraction),
    PlainSerializer(format_fraction, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": _PERCENT}),
]
"""A share in [0, 1], written as a percentage."""
