"""Quotas around a call: reserved before it, renewed while it runs, settled when it has ended.

A call that is cancelled while its reservation is being made gives it back as soon as it is there;
settling is queued and never waited for.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from salver.contract import StateAway, WithoutState
from salver.errors import Refused, StateUnavailable
from salver.flow.quota import LEASE_SECONDS, Allowance, Denial, Quota, Standing, Use, refusal
from salver.gateway.tenancy.store_threads import StoreThreads
from salver.telemetry import Observer, QuotaUnchecked

if TYPE_CHECKING:
    from salver.state import QuotaStore, Reservation

logger = logging.getLogger("salver.gateway")


@dataclass(slots=True)
class Charge:
    """What a call is charged: `most` before it, `used` after it; the call itself fills `used` in."""

    call_id: str
    tenant: str
    most: int
    used: int = 0


class Quotas(Protocol):
    """Holds a call against its tenant's quota."""

    def hold(
        self, charge: Charge, tell: Callable[[Standing], None]
    ) -> AbstractAsyncContextManager[None]:
        """Admits the body, and settles after it; `tell` hears how the tenant then stands, admitted or
        not.

        Raises:
            Refused: over a bound.
            StateUnavailable: the store is away and a limiter of the tenant fails closed.
        """
        ...

    def check_alone(self, call_id: str, tenant: str, tokens: int) -> None:
        """Refuses what is over a bound by itself, whatever was used before. Looks nothing up.

        Raises:
            Refused: a call of so many tokens can never be admitted.
        """
        ...


class NoQuotas:
    """Nobody has a bound."""

    def check_alone(self, call_id: str, tenant: str, tokens: int) -> None:
        pass

    @asynccontextmanager
    async def hold(self, charge: Charge, tell: Callable[[Standing], None]) -> AsyncIterator[None]:
        yield


class StoredQuotas:
    """Quotas in the state store."""

    def __init__(
        self,
        store: "QuotaStore",
        threads: StoreThreads,
        quotas: Mapping[str, Quota],
        away: StateAway,
        observe: Observer,
    ) -> None:
        self._store = store
        self._threads = threads
        self._quotas = quotas
        self._away = away
        self._observe = observe

    def check_alone(self, call_id: str, tenant: str, tokens: int) -> None:
        refused = refusal(f"dec-{call_id}", self._quotas[tenant], Use(), tokens, now=0.0)
        if refused is not None:
            raise Refused(refused)

    @asynccontextmanager
    async def hold(self, charge: Charge, tell: Callable[[Standing], None]) -> AsyncIterator[None]:
        quota = self._quotas[charge.tenant]
        reserved = await self._reserve(charge, quota) if quota.limiters else None
        if reserved is None:
            yield
            return
        tell(reserved.standing)
        if isinstance(reserved, Denial):
            raise Refused(reserved.decision)
        renewing = asyncio.create_task(self._renew(reserved))
        try:
            yield
        finally:
            renewing.cancel()
            self._settle(reserved, charge.used)

    async def _reserve(self, charge: Charge, quota: Quota) -> "Reservation | Denial | None":
        """None where the store is away and every limiter of the tenant fails open."""
        try:
            return await self._threads.run(
                lambda: self._store.reserve(charge.call_id, charge.tenant, quota, charge.most),
                undo=self._give_back,
            )
        except StateUnavailable as error:
            self._check_open(quota, error)
            self._observe(QuotaUnchecked(charge.tenant))
            return None

    def _check_open(self, quota: Quota, error: StateUnavailable) -> None:
        for name in quota.limiters:
            if getattr(self._away, name) is WithoutState.FAIL_CLOSED:
                raise StateUnavailable(
                    f"the state store is away, and {name} fails closed",
                    rule=f"admission.state_away.{name}",
                    value=WithoutState.FAIL_CLOSED.value,
                ) from error

    def _give_back(self, reserved: "Reservation | Denial") -> None:
        if not isinstance(reserved, Denial):
            self._settle(reserved, 0)

    def _settle(self, reservation: "Reservation", used: int) -> None:
        self._threads.later(lambda: self._store.settle(reservation, used))

    async def _renew(self, reservation: "Reservation") -> None:
        """Keep the lease of a call that runs for long; one third of it may fail, for any reason."""
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            try:
                held = await self._threads.run(lambda: self._store.renew(reservation))
            except StateUnavailable as error:
                logger.warning("the lease of %s was not renewed: %s", reservation.id, error)
                continue
            except Exception:
                logger.exception("the lease of %s was not renewed", reservation.id)
                continue
            if not held:
                logger.warning("the lease of %s ended while it ran", reservation.id)
                return


def quota_headers(standing: Standing) -> dict[str, str]:
    """`x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, where there is such a bound."""
    headers: dict[str, str] = {}
    for what, allowance in (("requests", standing.requests), ("tokens", standing.tokens)):
        if allowance is not None:
            headers |= _headers_of(what, allowance)
    return headers


def _headers_of(what: str, allowance: Allowance) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{what}": str(allowance.limit),
        f"x-ratelimit-remaining-{what}": str(allowance.remaining),
        f"x-ratelimit-reset-{what}": f"{allowance.reset_s:.3f}s",
    }
