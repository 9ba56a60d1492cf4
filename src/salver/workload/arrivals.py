"""When requests come.

Every synthetic process is one thing twice: a renewal process with gaps of mean 1 in its own *inner*
time, and a rate that says how fast inner time passes. An arrival at inner time x happens when the
integral of the rate reaches x. Poisson and Gamma differ in the gaps only; on-off, diurnal and ramp
differ in the rate only. Multiplying a rate therefore scales the process and leaves its shape alone,
by construction. (Rejected: thinning, which spends draws on arrivals that do not happen, so that
another rate is another process.)

The renewal process is in equilibrium, as if it had begun long ago: its first gap is drawn as the
remainder of a gap met at random, so that the expected count in [0, t) is exactly the rate's
integral, however bursty it is.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from salver.workload.mix import Diurnal, Gamma, OnOff, Poisson, Ramp

Floats = NDArray[np.float64]
Synthetic = Poisson | Gamma | OnOff | Diurnal | Ramp

KNOTS_PER_PERIOD = 1024
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate by its integral: `work[i]` arrivals are expected in [0, times[i]); linear between.

    Both rise from 0, and `times` ends at the schedule's end.
    """

    times: Floats
    work: Floats

    @property
    def mean(self) -> float:
        """Expected arrivals per second."""
        return float(self.work[-1] / self.times[-1])

    def scaled(self, factor: float) -> "Rate":
        return Rate(self.times, self.work * factor)

    def instants(self, inner: Floats) -> Floats:
        """When inner time reaches these values, each below `work[-1]`."""
        return np.interp(inner, self.work, self.times)


def rate_of(process: Synthetic, duration: float, phases: np.random.Generator) -> Rate:
    """The process's rate over [0, duration). `phases` decides when on-off switches."""
    match process:
        case OnOff():
            return _on_off(process, duration, phases)
        case Diurnal():
            return _diurnal(process, duration)
        case Ramp():
            times = np.linspace(0, duration, KNOTS_PER_PERIOD + 1)
            rise = (process.end - process.begin) / duration
            return Rate(times, times * (process.begin + rise * times / 2))
        case Poisson() | Gamma():
            return Rate(np.array([0.0, duration]), np.array([0.0, process.rate * duration]))


def expected_rate(process: Synthetic, duration: float) -> Rate:
    """The process's rate over [0, duration), on average over how its phases may fall."""
    if isinstance(process, OnOff):
        mean = process.rate * process.on / (process.on + process.off)
        return Rate(np.array([0.0, duration]), np.array([0.0, mean * duration]))
    return rate_of(process, duration, np.random.default_rng(0))


def burstiness_of(process: Synthetic) -> float:
    """The Gamma shape of the gaps in inner time; 1 is exponential."""
    return process.burstiness if isinstance(process, Gamma) else 1.0


def renewals(until: float, burstiness: float, gaps: np.random.Generator) -> Floats:
    """The inner times in [0, until) of an equilibrium renewal process with Gamma gaps of mean 1.

    A gap met at random is longer than most, by its own length: Gamma of shape k + 1. What remains
    of it is uniform (Cox, *Renewal Theory*, chapter 5).
    """
    remainder = gaps.uniform() * gaps.gamma(burstiness + 1) / burstiness
    chunks, reached = [np.array([remainder])], remainder
    while reached < until:
        steps = gaps.gamma(burstiness, size=_CHUNK) / burstiness
        chunks.append(reached + np.cumsum(steps))
        reached = chunks[-1][-1]
    inner = np.concatenate(chunks)
    return inner[inner < until]


def _on_off(spec: OnOff, duration: float, phases: np.random.Generator) -> Rate:
    """Phases as they would be found at a random moment; being memoryless, the first is like any."""
    on = bool(phases.uniform() < spec.on / (spec.on + spec.off))
    times, work = [0.0], [0.0]
    while times[-1] < duration:
        stay = min(phases.exponential(spec.on if on else spec.off), duration - times[-1])
        times.append(times[-1] + stay)
        work.append(work[-1] + stay * spec.rate * on)
        on = not on
    return Rate(np.array(times), np.array(work))


def _diurnal(spec: Diurnal, duration: float) -> Rate:
    """From the mean upwards; the integral is exact at the knots."""
    knots = max(2, int(np.ceil(duration / spec.period * KNOTS_PER_PERIOD)) + 1)
    times = np.linspace(0, duration, knots)
    turn = 2 * np.pi / spec.period
    return Rate(times, spec.rate * (times + spec.swing / turn * (1 - np.cos(turn * times))))
