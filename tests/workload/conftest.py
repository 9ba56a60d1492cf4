"""Mixes as texts, to be changed by a test before they are read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from salver.workload import Workload, load_mix

MakeWorkload = Callable[..., Workload]


@pytest.fixture(scope="session")
def make_workload() -> MakeWorkload:
    """A workload of one flow; keyword arguments replace keys of the flow, `mix` those of the mix."""

    def make(mix: dict[str, Any] | None = None, **flow: Any) -> Workload:
        return Workload(load_mix(_written(mix, **flow)), [Path()])

    return make


@pytest.fixture(scope="session")
def written() -> Callable[..., str]:
    """The text of such a mix."""
    return _written


def _written(mix: dict[str, Any] | None = None, **flow: Any) -> str:
    whole_flow = {
        "name": "one",
        "arrivals": {"poisson": {"rate": 10}},
        "prompts": {"tokens": [100, 1000]},
        "input": {"fixed": 8},
        "output": {"fixed": 4},
    } | flow
    whole = {
        "apiVersion": "salver/v1",
        "kind": "TrafficMix",
        "name": "test",
        "duration": "100s",
        "slo": {"ttft": "1s"},
        "flows": [{key: value for key, value in whole_flow.items() if value is not None}],
    }
    return json.dumps(whole | (mix or {}))  # JSON is YAML
