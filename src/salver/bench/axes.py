"""Where values lie on an axis, and which of them are written beside it.

An axis ends at round values, so that its first and last mark are its ends and no label is cut.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Quantity = Literal["seconds", "share", "number"]

_FACTORS = (1, 2, 5)


@dataclass(frozen=True, slots=True)
class Axis:
    """Values from `low` to `high` on pixels from `begin` to `end`, linearly or by their logarithm."""

    low: float
    high: float
    begin: float
    end: float
    quantity: Quantity
    ticks: tuple[float, ...]
    log: bool = False

    def at(self, value: float) -> float:
        """Its place; what lies outside is put at the nearer end."""
        low, high, here = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, here = math.log(low), math.log(high), math.log(here)
        return self.begin + (here - low) / (high - low) * (self.end - self.begin)

    def text(self, tick: float) -> str:
        return written(tick, self.quantity)


def linear(
    values: Sequence[float], begin: float, end: float, quantity: Quantity, *, apart: float
) -> Axis:
    """From 0 to the next round value; labels are at least `apart` pixels from each other."""
    most = max(*values, 0.0) or 1.0
    step = _step(most, max(1, int(abs(end - begin) / apart)))
    count = math.ceil(most / step - 1e-9)
    ticks = tuple(float(f"{step * k:.12g}") for k in range(count + 1))
    return Axis(0.0, ticks[-1], begin, end, quantity, ticks)


def logarithmic(
    values: Sequence[float], begin: float, end: float, quantity: Quantity, *, apart: float
) -> Axis:
    """From the round value (1, 2 or 5 times a power of ten) below the least to that above the most.

    Labels are at least `apart` pixels from each other: fewer of them on a long axis.
    """
    least, most = min(values), max(values)
    powers = range(math.floor(math.log10(least)) - 1, math.ceil(math.log10(most)) + 2)
    round_ = [float(f"{factor}e{power}") for power in powers for factor in _FACTORS]
    low = max(value for value in round_ if value <= least)
    high = min(value for value in round_ if value >= most and value > low)
    inside = [value for value in round_ if low <= value <= high]
    bare = Axis(low, high, begin, end, quantity, (), log=True)
    return Axis(low, high, begin, end, quantity, _apart(bare, inside, apart), log=True)


def written(value: float, quantity: Quantity) -> str:
    """A round value with its unit."""
    if quantity == "share":
        return f"{value * 100:g}%"
    if quantity == "number" or value == 0:
        return f"{value:g}"
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= size:
            return f"{float(f'{value / size:.6g}'):g} {unit}"
    return f"{value:g} s"


def _step(most: float, count: int) -> float:
    """The least round step of which at most `count` reach `most`."""
    raw = most / count
    size = 10.0 ** math.floor(math.log10(raw))
    return next(factor * size for factor in (1, 2, 5, 10) if factor * size >= raw * (1 - 1e-9))


def _apart(axis: Axis, values: Sequence[float], pixels: float) -> tuple[float, ...]:
    """Powers of ten before others, each only where none that was taken is near."""
    taken: list[float] = []
    for value in sorted(values, key=lambda value: not f"{value:e}".startswith("1.0")):
        if all(abs(axis.at(value) - axis.at(other)) >= pixels for other in taken):
            taken.append(value)
    return tuple(sorted(taken))
