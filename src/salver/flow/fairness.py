"""Who has had how much: weighted virtual service, in plain numbers.

After the Virtual Token Counter (Sheng et al., arXiv 2401.00588): every tenant has a counter of the
service that it got, divided by its weight, and the one with the least goes first. A tenant that begins
to wait is lifted to the least counter of those that wait, so that nobody saves up service while idle;
where nobody waits, to the greatest counter there is, so that nobody pays for service that nobody else
wanted. docs/fairness.md states and proves what follows from it.

Service is counted in prompt tokens at the beginning of a context; late in a long one a token costs
more, by what it attends to. A step costs each tenant in it the larger of what was computed for it and
of its share of the KV pool, taken of what was computed for all (dominant shares, Ghodsi et al., NSDI
2011): who fills the memory with long contexts pays for the places that others lack.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from salver.contract import LatencyModel, StepShape, TrafficClass

RANKS = {each: rank for rank, each in enumerate(TrafficClass)}  # the least is served first
Account = tuple[int, str]  # one tenant's requests of one class: the rank of the class, the tenant
PREFILL_CHARGE = 1.0
DECODE_CHARGE = 2.0  # of a token that is computed alone; about what it costs beside prompts
DEAREST_PAIR = 1 / 128  # attention doubles a token's cost after 128 others, or later


@dataclass(frozen=True, slots=True)
class Tariff:
    """What is charged for tokens. `per_attended` is the charge of one (query, key) pair of attention."""

    per_attended: float = 0.0

    @classmethod
    def of_machine(cls, model: LatencyModel) -> "Tariff":
        """By what its costs are to each other; attention is free on one that was not measured."""
        if not model.per_token:
            return cls()
        return cls(min(DEAREST_PAIR, model.per_attended / model.per_token))

    def charge(self, first: int, count: int, *, decodes: bool) -> float:
        """Of `count` tokens from position `first`."""
        attended = StepShape.of_tokens(first, count).attended
        each = DECODE_CHARGE if decodes else PREFILL_CHARGE
        return each * count + self.per_attended * attended

    def of_request(self, tokens: int) -> float:
        """The most that a request of so many tokens is charged, whichever of them it decodes."""
        return self.charge(0, tokens, decodes=True)

    def of_step(self, tokens: int, context: int) -> float:
        """The most that a step of so many tokens is charged, whatever contexts they end."""
        return tokens * self.charge(max(0, context - 1), 1, decodes=True)


@dataclass(frozen=True, slots=True)
class Share:
    """What a tenant is owed relative to others; `kv_share`, of the pool, where that is declared."""

    weight: float = 1.0
    kv_share: float | None = None


def step_charges(
    computed: Mapping[str, float], held: Mapping[str, float]
) -> Iterable[tuple[str, float]]:
    """Each tenant's charge for one step.

    `computed` has the charge for the tokens of each tenant in the step, `held` the share of the KV
    pool in [0, 1] of each. Who has no tokens in the step is not charged: it was kept waiting.
    """
    whole = sum(computed.values())
    for tenant, charge in computed.items():
        yield tenant, max(charge, held.get(tenant, 0.0) * whole)


class Service:
    """The counters of the tenants of one class.

    Args:
        shares: the declared tenants; another one has weight 1.
        lead: service, in prompt tokens, by which a tenant may be ahead of one that waits.
        band: tenants that differ by less than this, at the largest weight, stand equal.
    """

    def __init__(self, shares: Mapping[str, Share], *, lead: float, band: float) -> None:
        self._shares = shares
        self._lead = lead
        heaviest = max([1.0, *(share.weight for share in shares.values())])
        self._band = min(band, lead) / heaviest
        self._had: dict[str, float] = {}

    def weight(self, tenant: str) -> float:
        return self._shares[tenant].weight if tenant in self._shares else 1.0

    def had(self, tenant: str) -> float:
        """Weighted service so far; only differences mean something."""
        return self._had.get(tenant, 0.0)

    def join(self, tenant: str, waiting: Iterable[str]) -> None:
        """The tenant begins to wait, beside those that already do."""
        others = [self.had(other) for other in waiting]
        least = min(others) if others else max(self._had.values(), default=0.0)
        self._had[tenant] = max(self.had(tenant), least)

    def charge(self, tenant: str, service: float) -> None:
        self._had[tenant] = self.had(tenant) + service / self.weight(tenant)

    def is_ahead(self, tenant: str, behind: str) -> bool:
        """Whether it had so much more than the other that it gives way."""
        return self.had(tenant) > self.had(behind) + self._lead / self.weight(tenant)

    def band_of(self, tenant: str, least: float) -> int:
        """Tenants in one band stand equal; `least` is where the first begins."""
        return int((self.had(tenant) - least) / self._band) if self._band else 0

    def forget(self) -> None:
        """Nobody is in flight: nobody owes anything."""
        self._had.clear()

    def __repr__(self) -> str:
        return f"<Service {self._had}>"
