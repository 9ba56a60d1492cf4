"""Who calls, and whether they may: from a path and an Authorization header to a Caller.

Without declared tenants there are no keys, and everybody is the one tenant `default`; the command
line sees to it that such a service listens on loopback only. With tenants, every path needs a key
unless it is listed here as open, so that a path that is added later is closed until somebody decides.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from starlette.datastructures import Headers

from salver.contract import Scope, TrafficClass
from salver.errors import Forbidden, Unauthenticated
from salver.gateway.tenancy.key_ring import KeyRing
from salver.state import KeyRecord, split_key

OPEN_PATHS = frozenset({"/health", "/ready", "/docs", "/openapi.json"})
OPEN_TREE = "/docs/ui/"
OPERATIONS_PATHS = frozenset({"/metrics", "/version"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request it is. `cache_salt` keeps its prefix blocks apart from others' (law 7).

    `traffic_class` is the highest class that its requests may have.
    """

    tenant: str = "default"
    cache_salt: str = ""
    traffic_class: TrafficClass = TrafficClass.STANDARD


class Door(Protocol):
    """Decides who may come in."""

    async def admit(self, path: str, headers: Headers) -> Caller:
        """The caller.

        Raises:
            Unauthenticated: no valid key.
            Forbidden: a valid key, whose scopes or tenant do not allow this.
            StateUnavailable: the keys cannot be read.
        """
        ...


class OpenDoor:
    """No tenants, no keys."""

    async def admit(self, path: str, headers: Headers) -> Caller:
        return Caller()


class KeyedDoor:
    """Every tenant that the contract declares, with its class, by the keys of the state store."""

    def __init__(self, tenants: Mapping[str, TrafficClass], ring: KeyRing) -> None:
        self._tenants = tenants
        self._ring = ring

    async def admit(self, path: str, headers: Headers) -> Caller:
        scope = scope_of(path)
        if scope is None:
            return Caller(tenant="")
        key_id, secret = _presented(headers)
        record, now = await self._ring.find(key_id)
        record = _valid(record, secret, now)
        if record.tenant not in self._tenants:
            raise Forbidden(
                "this key's tenant is not one of this deployment",
                rule="key.tenant",
                value=record.tenant,
                fix="declare the tenant in the contract, or use another key",
            )
        if scope not in record.scopes:
            raise Forbidden(
                "this key's scopes do not include what this path needs",
                rule="key.scope",
                value=", ".join(sorted(record.scopes)),
                limit=scope.value,
                fix=f"use a key made with --scope {scope.value}",
            )
        return Caller(
            record.tenant,
            cache_salt=f"tenant:{record.tenant}",
            traffic_class=self._tenants[record.tenant],
        )


def scope_of(path: str) -> Scope | None:
    """What a path needs; None is nothing."""
    if path in OPEN_PATHS or path.startswith(OPEN_TREE):
        return None
    return Scope.OPERATIONS if path in OPERATIONS_PATHS else Scope.INFERENCE


def _presented(headers: Headers) -> tuple[str, str]:
    """The id and the secret of the key that came."""
    scheme, _, text = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated(
            "no API key came with the request",
            rule="key.missing",
            fix="send `Authorization: Bearer sk-salver-…`",
        )
    parts = split_key(text.strip())
    if parts is None:
        raise _unknown()
    return parts


_NOBODY = KeyRecord("nobody", bytes(32), "", frozenset(), "", 0.0, None, None)


def _valid(record: KeyRecord | None, secret: str, now: float) -> KeyRecord:
    """The record, if the secret is its own and it lives. Only who has the secret hears more."""
    known = (record or _NOBODY).matches(secret)  # for nobody's key too: the same time is taken
    if record is None or not known:
        raise _unknown()
    if record.revoked is not None:
        raise Unauthenticated("this API key was revoked", rule="key.revoked", value=record.id)
    if record.expired(now):
        raise Unauthenticated("this API key has expired", rule="key.expired", value=record.id)
    return record


def _unknown() -> Unauthenticated:
    return Unauthenticated(
        "this API key is not known here", rule="key.unknown", fix="check it for typing errors"
    )
