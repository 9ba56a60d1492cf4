"""Every key of the store, in memory, never older than a second.

A request that finds the ring older refreshes it first, and those that come meanwhile wait for the
same refresh; so a revoked key is refused REFRESH_SECONDS after its revocation at the latest, and no
task runs while there are no requests. A refresh asks for one number and reads the keys only if that
has changed. While the store is away, or tells what cannot be read, keys are refused, or, where the
contract says so, those last seen valid are still taken.
"""

import asyncio
import logging
from typing import TYPE_CHECKING

from salver.clock import Clock
from salver.errors import StateUnavailable
from salver.gateway.tenancy.store_threads import StoreThreads
from salver.state import KeyRecord, KeySnapshot

if TYPE_CHECKING:
    from salver.state import KeyStore

REFRESH_SECONDS = 1.0
UNKNOWN_SECONDS = 0.1  # an id that the ring does not have may be newer than the ring

logger = logging.getLogger("salver.gateway")


class KeyRing:
    """Finds keys by id. `fail_open` goes on with the last snapshot while the store is away."""

    def __init__(
        self, store: "KeyStore", threads: StoreThreads, clock: Clock, *, fail_open: bool
    ) -> None:
        self._store = store
        self._threads = threads
        self._clock = clock
        self._fail_open = fail_open
        self._snapshot: KeySnapshot | None = None
        self._taken = float("-inf")  # when the snapshot's query began
        self._failed: StateUnavailable | None = None
        self._refresh: asyncio.Task[None] | None = None

    async def find(self, key_id: str) -> tuple[KeyRecord | None, float]:
        """The key, and Unix time on the store's clock.

        Raises:
            StateUnavailable: the keys cannot be read, and fail closed or were never seen.
        """
        snapshot = await self._no_older_than(REFRESH_SECONDS)
        if key_id not in snapshot.records:
            snapshot = await self._no_older_than(UNKNOWN_SECONDS)
        now = snapshot.now + self._clock.now() - self._taken
        return snapshot.records.get(key_id), now

    async def _no_older_than(self, seconds: float) -> KeySnapshot:
        if self._clock.now() - self._taken >= seconds:
            if self._refresh is None:
                self._refresh = asyncio.create_task(self._take())
            await asyncio.shield(self._refresh)
        if self._snapshot is None or (self._failed and not self._fail_open):
            raise self._failed or StateUnavailable("no keys were read", rule="state.available")
        return self._snapshot

    async def _take(self) -> None:
        """Read the store; a failure of any kind is remembered as long as a success would be."""
        begun, known = self._clock.now(), self._snapshot
        try:
            self._snapshot = await self._threads.run(lambda: self._store.snapshot(known))
            self._failed = None
        except StateUnavailable as error:
            logger.warning("keys could not be read: %s", error)
            self._fail(error, begun)
        except Exception:
            logger.exception("keys could not be read")
            self._fail(_unreadable(), begun)
        finally:
            self._taken, self._refresh = begun, None

    def _fail(self, error: StateUnavailable, begun: float) -> None:
        self._failed = error
        if self._snapshot is not None:  # its clock goes on
            known = self._snapshot
            self._snapshot = KeySnapshot(
                known.revision, known.now + begun - self._taken, known.records
            )


def _unreadable() -> StateUnavailable:
    """The store is there, and answers what no store should."""
    return StateUnavailable(
        "the keys in the state store cannot be read",
        rule="state.keys",
        fix="the gateway's log says why",
    )
