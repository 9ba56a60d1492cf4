"""Whether a run is a measurement of the server, or of the client that made it.

A client that is late sends another load than it says, and a client that is not running sees answers
late; either would flatter or slander the server. The rules are those of docs/bench.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from salver.bench.run import Run
from salver.workload import Arrival

LAG_SHARE = 0.05  # of the TTFT objective, at the 99th percentile of sends
STOP_SHARE = 0.25  # of the TTFT objective, for any one heartbeat
RATE_SHARE = 0.01  # by which the achieved rate may miss
DEFAULT_TTFT = 1.0  # where a mix states no TTFT objective


@dataclass(frozen=True, slots=True)
class ClientCheck:
    """How the client did, against what it was allowed. Times in seconds, rates per second.

    `problems` is empty for a valid run.
    """

    lag_p50: float
    lag_p99: float
    lag_max: float
    lag_allowed: float
    beat_max: float
    beat_allowed: float
    intended_rate: float
    achieved_rate: float
    cpu_share: float
    problems: tuple[str, ...]

    @property
    def valid(self) -> bool:
        return not self.problems


def check_client(
    run: Run, arrivals: Sequence[Arrival], ttft: float | None, *, judged: int
) -> ClientCheck:
    """Hold a run against the rules. `arrivals` is its schedule; empty for a closed loop. `judged`
    is how many of them fall into the window."""
    bound = ttft or DEFAULT_TTFT
    lags = np.array([record.lag for record in run.records] or [0.0])
    lag_p99, beat_max = float(np.percentile(lags, 99)), max(run.beats, default=0.0)
    intended = _rate([arrival.at for arrival in arrivals])
    achieved = _rate([record.sent for record in run.records])
    problems = [] if judged else ["no arrival was judged"]
    if lag_p99 > LAG_SHARE * bound:
        problems.append(
            f"the client sent late: {lag_p99:.3f} s at the 99th percentile, over {LAG_SHARE:.0%} "
            f"of the TTFT objective"
        )
    if beat_max > STOP_SHARE * bound:
        problems.append(
            f"the client stood still for {beat_max:.3f} s, over {STOP_SHARE:.0%} of the TTFT "
            f"objective"
        )
    if arrivals and abs(achieved - intended) > RATE_SHARE * intended:
        problems.append(f"{achieved:.3f} requests/s were sent instead of {intended:.3f}")
    if arrivals and len(run.records) != len(arrivals):
        problems.append(f"{len(run.records)} of {len(arrivals)} arrivals were recorded")
    return ClientCheck(
        lag_p50=float(np.median(lags)),
        lag_p99=lag_p99,
        lag_max=float(lags.max()),
        lag_allowed=LAG_SHARE * bound,
        beat_max=beat_max,
        beat_allowed=STOP_SHARE * bound,
        intended_rate=intended,
        achieved_rate=achieved,
        cpu_share=run.cpu_seconds / run.seconds if run.seconds else 0.0,
        problems=tuple(problems),
    )


def _rate(instants: Sequence[float]) -> float:
    """Arrivals per second between the first and the last."""
    if len(instants) < 2 or max(instants) == min(instants):
        return 0.0
    return (len(instants) - 1) / (max(instants) - min(instants))
