"""From runs to medians, spreads and ratios."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

DISTURBED = 0.05  # share of the machine that others may take before a rate stops counting


@dataclass(frozen=True)
class Round:
    """One contender's rate in one round, tokens/s; None where no instant had every stream decoding.

    `foreign` is the share of the machine that others took meanwhile, `most` the tokens/s that reading or
    multiplying alone would have allowed just before; None where that was not measured.
    """

    rate: float | None
    foreign: float
    most: float | None = None

    @property
    def disturbed(self) -> bool:
        return self.foreign > DISTURBED

    def __str__(self) -> str:
        return f"{self.rate or 0:,.1f} tokens/s, others took {self.foreign:.0%}"


@dataclass(frozen=True)
class Cell:
    """One contender at one point, round by round; None for a round that it was left out of.

    Rounds that others disturbed count only where there is no other.
    """

    rounds: tuple[Round | None, ...]

    @property
    def counting(self) -> dict[int, float]:
        """Rates that count, by round."""
        rated = {i: each for i, each in enumerate(self.rounds) if each and each.rate}
        calm = {i: each for i, each in rated.items() if not each.disturbed}
        return {i: each.rate for i, each in (calm or rated).items() if each.rate}

    @property
    def disturbed(self) -> bool:
        """Whether others disturbed every round."""
        return all(each.disturbed for each in self.rounds if each)

    @property
    def median(self) -> float | None:
        return median(self.counting.values()) if self.counting else None

    @property
    def share(self) -> float | None:
        """Of what the machine allowed in the same round, the median."""
        most = ((each, self.rounds[i]) for i, each in self.counting.items())
        shares = [rate / each.most for rate, each in most if each and each.most]
        return median(shares) if shares else None


Table = dict[str, dict[str, Cell]]  # contender -> point -> cell


def paired_ratio(ours: Cell, theirs: Cell) -> float | None:
    """Median over rounds of ours / theirs: neighbours in time, so that slow drifts cancel.

    Where no round counts for both, the ratio of the medians.
    """
    a, b = ours.counting, theirs.counting
    if not a or not b:
        return None
    both = a.keys() & b.keys()
    if not both:
        return median(a.values()) / median(b.values())
    return median(a[i] / b[i] for i in both)


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
