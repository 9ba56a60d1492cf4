"""From runs to medians, spreads and ratios."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Cell:
    """One contender at one point: its rate in every round (None: it had none), tokens/s.

    `foreign` is the median share of the machine that others took meanwhile.
    """

    rates: tuple[float | None, ...]
    foreign: float

    @property
    def measured(self) -> list[float]:
        return [rate for rate in self.rates if rate is not None]

    @property
    def median(self) -> float | None:
        return median(self.measured) if self.measured else None


Table = dict[str, dict[str, Cell]]  # contender -> point -> cell


def paired_ratio(ours: Cell, theirs: Cell) -> float | None:
    """Median over rounds of ours / theirs: neighbours in time, so that slow drifts cancel."""
    pairs = zip(ours.rates, theirs.rates, strict=False)
    ratios = [a / b for a, b in pairs if a is not None and b is not None]
    return median(ratios) if ratios else None


def best(table: Table, point: str, names: Sequence[str]) -> str | None:
    """Which of `names` has the highest median at a point; None if none was measured there."""
    rates = {name: cell.median for name in names if (cell := table[name].get(point))}
    measured = {name: rate for name, rate in rates.items() if rate is not None}
    return max(measured, key=lambda name: measured[name]) if measured else None


def agreement(tokens: Sequence[int], reference: Sequence[int]) -> int:
    """How many tokens two greedy answers share from their beginning."""
    return next(
        (i for i, pair in enumerate(zip(tokens, reference, strict=False)) if pair[0] != pair[1]),
        min(len(tokens), len(reference)),
    )
