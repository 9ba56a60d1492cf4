"""Typed, bounded reads from a mapping that nobody vouches for.

Both kinds of model description (GGUF metadata, config.json) are read through this, so that a wrong
type, an absurd size or a missing key is the same error in both.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Final

from salver.errors import MalformedModel, UnsupportedModel

MAX_SIZE: Final = 1 << 24  # of any one dimension: 16M, far above every known model


class Fields:
    """One mapping and its name in errors. A null value counts as absent.

    A read without `default` raises `MalformedModel` when the key is absent; every read raises it
    when the value has the wrong type or is out of range.
    """

    def __init__(self, values: Mapping[str, object], where: str) -> None:
        self._values = values
        self.where = where

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def get(self, key: str) -> object:
        """The value as it stands, or None."""
        return self._values.get(key)

    def integer(self, key: str, default: int | None = None, *, low: int = 1) -> int:
        """An integer in [low, MAX_SIZE]."""
        value = self._read(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= MAX_SIZE:
            raise self.malformed(key, f"an integer from {low} to {MAX_SIZE}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number above zero."""
        value = self._read(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.malformed(key, "a number")
        if not (0 < value < 1e30 and isfinite(value)):
            raise self.malformed(key, "a finite number above zero")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self._read(key, default)
        if not isinstance(value, bool):
            raise self.malformed(key, "true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self._read(key, default)
        if not isinstance(value, str):
            raise self.malformed(key, "a string")
        return value

    def section(self, key: str) -> "Fields":
        """A nested mapping; an absent one is empty."""
        value = self._values.get(key)
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise self.malformed(key, "a mapping")
        return Fields(value, f"{self.where}: {_label(key)}")

    def only(self, known: frozenset[str]) -> None:
        """Refuse a key outside `known`: it may change what the model computes."""
        for key in self._values:
            if key not in known and key in self:
                raise self.unsupported(key)

    def require(self, key: str, *allowed: object) -> None:
        """Refuse a value outside `allowed`, which is all that this build computes; absent is fine."""
        if key in self and self.get(key) not in allowed:
            raise self.unsupported(key)

    def malformed(self, key: str, rule: str) -> MalformedModel:
        value = self._values.get(key)
        shown = "is missing" if value is None else f"is {_shown(value)}"
        return MalformedModel(
            f"{self.where}: {_label(key)} {shown}; it must be {rule}",
            rule=f"model.{_label(key)}",
            value=value,
            fix="the file is damaged or incomplete: fetch it again and check its digest",
        )

    def unsupported(
        self, key: str, why: str = "which this build does not compute"
    ) -> UnsupportedModel:
        value = self._values.get(key)
        return UnsupportedModel(
            f"{self.where}: {_label(key)} is {_shown(value)}, {why}",
            rule=f"model.{_label(key)}",
            value=value,
            fix="choose a Llama, Mistral, Qwen2 or Qwen3 model without it, or another backend",
        )

    def _read(self, key: str, default: object) -> object:
        value = self._values.get(key)
        if value is not None:
            return value
        if default is None:
            raise self.malformed(key, "present")
        return default


def _shown(value: object) -> str:
    """A value as a short piece of an error message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _label(key: str) -> str:
    """A key as it stands, unless the file made it long or unprintable."""
    return key if len(key) <= 80 and key.isprintable() else _shown(key)
