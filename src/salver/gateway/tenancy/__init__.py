"""Whose request it is, and what its tenant may still spend."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from salver.clock import Clock
from salver.contract import StateAway, Tenant, WithoutState
from salver.flow.quota import Quota
from salver.gateway.tenancy.door import Caller, Door, KeyedDoor, OpenDoor, scope_of
from salver.gateway.tenancy.key_ring import KeyRing
from salver.gateway.tenancy.quotas import Charge, NoQuotas, Quotas, StoredQuotas, quota_headers
from salver.gateway.tenancy.store_threads import StoreThreads
from salver.telemetry import Observer

if TYPE_CHECKING:
    from salver.state import Database

__all__ = [
    "Caller",
    "Charge",
    "Door",
    "NoQuotas",
    "OpenDoor",
    "Quotas",
    "StoreThreads",
    "Tenancy",
    "quota_headers",
    "scope_of",
]


@dataclass(frozen=True, slots=True)
class Tenancy:
    """The tenants of one deployment, and the state store that has their keys and their use."""

    deployment: str
    tenants: Sequence[Tenant]
    away: StateAway
    database: "Database"
    threads: StoreThreads

    def door(self, clock: Clock) -> Door:
        from salver.state import KeyStore

        fail_open = self.away.authentication is WithoutState.FAIL_OPEN
        ring = KeyRing(KeyStore(self.database), self.threads, clock, fail_open=fail_open)
        classes = {tenant.name: tenant.traffic_class for tenant in self.tenants}
        return KeyedDoor(classes, ring)

    def quotas(self, observe: Observer) -> Quotas:
        from salver.state import QuotaStore

        store = QuotaStore(self.database, self.deployment)
        bounds = {tenant.name: _quota(tenant) for tenant in self.tenants}
        return StoredQuotas(store, self.threads, bounds, self.away, observe)


def _quota(tenant: Tenant) -> Quota:
    return Quota(
        requests_per_minute=tenant.requests_per_minute,
        tokens_per_minute=tenant.tokens_per_minute,
        max_in_flight=tenant.max_in_flight,
        max_tokens_in_flight=tenant.max_tokens_in_flight,
    )
