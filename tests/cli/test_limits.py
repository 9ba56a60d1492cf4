"""What the gateway admits under a contract."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.cli.service import limits_of
from salver.contract import Deployment, load_deployment

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLE = load_deployment(EXAMPLES / "full.yaml")
CONTRACTS = sorted(path for path in EXAMPLES.glob("*.yaml") if path.name != "mix.yaml")


def with_bounds(running: int, queued: int) -> Deployment:
    envelope = EXAMPLE.release.envelope.model_copy(update={"max_running": running})
    release = EXAMPLE.release.model_copy(update={"envelope": envelope})
    admission = EXAMPLE.admission.model_copy(update={"max_queued_requests": queued})
    return EXAMPLE.model_copy(update={"release": release, "admission": admission})


@given(running=st.integers(1, 65536), queued=st.integers(1, 2**31 - 1))
def test_law_the_backends_queue_is_full_before_the_gateway_is(running: int, queued: int) -> None:
    """Only there are class, tenant and deadline looked at."""
    assert limits_of(with_bounds(running, queued)).max_in_flight > running + queued


@pytest.mark.parametrize("path", CONTRACTS, ids=lambda path: path.name)
def test_so_it_is_in_every_example(path: Path) -> None:
    deployment = load_deployment(path)
    servers = max(1, len(deployment.served_by))
    computing = servers * deployment.release.envelope.max_running
    waiting = deployment.admission.max_queued_requests
    assert limits_of(deployment).max_in_flight > computing + waiting
