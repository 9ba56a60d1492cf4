"""Where the gateway talks to the state store: on threads, so that the event loop never waits.

Every call is bounded in time. One whose caller has gone is not started any more; one that was
running then is undone by what its caller said would undo it.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from salver.errors import StateUnavailable

PATIENCE_SECONDS = 5.0  # above the store's own, which is for a single wait

T = TypeVar("T")

logger = logging.getLogger("salver.gateway")


class StoreThreads:
    """`threads` that wait for the store. Their queue is as long as there are calls in flight."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="salver-state")

    async def run(self, work: Callable[[], T], undo: Callable[[T], None] | None = None) -> T:
        """What `work` returns; `undo` is given it where nobody waits for it any more.

        Raises:
            StateUnavailable: by the store, or because it does not answer.
        """
        running = self._pool.submit(work)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await asyncio.wrap_future(running)
        except TimeoutError:
            _when_done(running, undo)
            raise StateUnavailable(
                "the state store does not answer",
                rule="state.patience_seconds",
                limit=PATIENCE_SECONDS,
            ) from None
        except asyncio.CancelledError:
            _when_done(running, undo)
            raise

    def later(self, work: Callable[[], object]) -> None:
        """Do it without anybody waiting; what fails is logged."""

        def logged() -> None:
            try:
                work()
            except StateUnavailable as error:
                logger.warning("not written: %s", error)
            except Exception:
                logger.exception("not written")

        try:
            self._pool.submit(logged)
        except RuntimeError:  # closed already; leases end what is left
            logger.warning("not written: the gateway has ended")

    def close(self) -> None:
        """Finish what was begun or queued."""
        self._pool.shutdown()


def _when_done(running: "Future[T]", undo: Callable[[T], None] | None) -> None:
    def undone(future: "Future[T]") -> None:
        if undo is not None and not future.cancelled() and future.exception() is None:
            undo(future.result())

    running.add_done_callback(undone)
