"""What a contract says of sharing the machine, as its engine and its upstreams take it."""

from salver.contract import Deployment, Scheduling, TooLate
from salver.flow import Share


def shares_of(deployment: Deployment) -> dict[str, Share] | None:
    """What each tenant is owed; None where turns are not to be fair."""
    if deployment.admission.scheduling is Scheduling.FCFS:
        return None
    return {each.name: Share(each.weight, each.kv_share) for each in deployment.tenants}


def first_token_within(deployment: Deployment) -> float | None:
    """The objective that requests are refused for; None where late is better than not at all."""
    slo, late = deployment.slo, deployment.admission.too_late
    return slo.ttft_p95 if slo and late is TooLate.REFUSE else None
