"""The class of a call: its tenant's, or a lower one that it asks for."""

import httpx
import pytest
from starlette.datastructures import Headers

from salver.contract import TrafficClass
from salver.gateway.arrival import class_of
from salver.testing import FakeBackend


@pytest.mark.parametrize(
    ("highest", "asked", "got"),
    [
        ("standard", None, "standard"),
        ("standard", "batch", "batch"),
        ("critical", "standard", "standard"),
        ("standard", "critical", "standard"),
        ("batch", "critical", "batch"),
    ],
)
def test_a_header_lowers_a_class_and_never_raises_it(
    highest: str, asked: str | None, got: str
) -> None:
    headers = Headers({} if asked is None else {"x-salver-class": asked})
    assert class_of(headers, TrafficClass(highest)) == got


async def test_the_class_and_the_tenant_travel_with_the_request(
    client: httpx.AsyncClient, backend: FakeBackend
) -> None:
    for asked in ("batch", "critical"):
        await client.post(
            "/v1/completions",
            json={"model": "tiny", "prompt": [1, 2, 3], "max_tokens": 4},
            headers={"x-salver-class": asked},
        )
    classes = [(request.tenant, request.traffic_class) for request in backend.requests]
    assert classes == [("default", TrafficClass.BATCH), ("default", TrafficClass.STANDARD)]
