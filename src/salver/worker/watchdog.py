"""A worker is wedged when requests are in flight and it says nothing for too long."""

import asyncio

from salver.worker.connection import Connection

LOOKS = 4  # how often a worker is looked at within `wedge_after`


async def until_wedged(connection: Connection, wedge_after: float) -> str:
    """Return, saying so, once requests were in flight for `wedge_after` seconds without a report.

    A step that serves anybody ends in a report, so silence means that no step ends. It is counted
    in looks, not in seconds: a gateway that was itself held up does not blame its worker for
    reports that it has not read yet.
    """
    silent, seen = 0, connection.num_reports
    while silent <= LOOKS:
        await asyncio.sleep(wedge_after / LOOKS)
        heard = connection.num_reports != seen
        silent = 0 if heard or not connection.in_flight else silent + 1
        seen = connection.num_reports
    return (
        f"it was wedged: {connection.in_flight} requests in flight and no step "
        f"for {wedge_after:g} s"
    )
