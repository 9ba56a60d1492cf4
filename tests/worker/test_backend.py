"""The backend over several workers: what it counts goes on over their deaths."""

from dataclasses import fields
from types import SimpleNamespace
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from salver.contract import LoadSnapshot
from salver.worker.backend import COUNTERS, WorkerBackend
from salver.worker.connection import Connection

GAUGES = {
    "requests_waiting",
    "requests_running",
    "tokens_waiting",
    "tokens_running",
    "queues",
    "told_at",
    "kv_block_tokens",
    "kv_blocks_total",
    "kv_blocks_owned",
    "kv_blocks_cached",
    "latency",
}


COUNTING = sorted({field.name for field in fields(LoadSnapshot)} - GAUGES)


def snapshots() -> st.SearchStrategy[LoadSnapshot]:
    numbers = {name: st.integers(0, 10**6) for name in [*COUNTING, "requests_running"]}
    return st.builds(LoadSnapshot, **numbers)


def test_every_field_of_a_load_is_a_gauge_or_goes_on() -> None:
    assert sorted(COUNTERS) == COUNTING


@given(lives=st.lists(snapshots(), max_size=5))
def test_law_no_counter_falls_when_a_worker_is_restarted(lives: list[LoadSnapshot]) -> None:
    """Each life ends at one load; a gauge is that of the worker there is."""
    backend = WorkerBackend("w")
    for number, ended in enumerate(lives, start=1):
        backend.attach(cast("Connection", SimpleNamespace(load=ended)))
        assert backend.load().requests_running == ended.requests_running
        backend.detach("it died")
        told = backend.load()
        assert told.requests_running == 0
        for name in COUNTING:
            assert getattr(told, name) == sum(getattr(each, name) for each in lives[:number]), name
