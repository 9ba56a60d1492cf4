"""Readiness is a measurement: a real inference passed within the probe interval.

A probe waits its turn like every request. Where it does not get one in time, the traffic it waited
behind is the evidence: steps that were computed meanwhile are real inferences too, so a backend
that is busy stays ready, and one that computes nothing does not. So a probe states no deadline, by
which a busy backend would refuse it at once; it is cancelled when its time is over.
"""

import asyncio
import logging
from contextlib import aclosing
from itertools import count

from salver.clock import Clock
from salver.contract import Backend, GenerateRequest, Outcome, SamplingParams, TrafficClass
from salver.errors import BackendLost, SalverError

_MESSAGES = b'[{"role":"user","content":"Hello"}]'  # for a backend that takes no token ids

log = logging.getLogger(__name__)


class ReadinessProbe:
    """Asks a backend for one token every `interval` seconds and remembers when that last worked.

    Args:
        backend: what to probe.
        prompt: token ids of the probe's prompt, at least one.
        interval: seconds between probes; also the time a probe may take.
        clock: what deadlines and `ready` are measured on.
    """

    def __init__(
        self, backend: Backend, prompt: tuple[int, ...], interval: float, clock: Clock
    ) -> None:
        self.last_success: float | None = None  # an instant
        self.last_error = "no probe has run yet"
        self._backend = backend
        self._prompt = prompt
        self._interval = interval
        self._clock = clock
        self._numbers = count(1)

    def ready(self, now: float) -> bool:
        """Whether the backend takes requests, and a probe succeeded within the last interval, with
        one more interval of grace."""
        recent = self.last_success is not None and now - self.last_success <= 2 * self._interval
        return recent and self._backend.ready

    async def run(self) -> None:
        """Probe until cancelled."""
        while True:
            await self.probe()
            await asyncio.sleep(self._interval)

    async def probe(self) -> bool:
        """Run one probe now, for at most `interval` seconds; True when the backend computed."""
        steps = self._backend.load().steps
        try:
            async with asyncio.timeout(self._interval):
                await self._infer()
        except (SalverError, TimeoutError) as error:
            if not self._backend.ready or self._backend.load().steps == steps:
                self.last_error = str(error) or f"no answer within {self._interval:g} s"
                log.warning(
                    "event=probe_failed backend=%s why=%r", self._backend.name, self.last_error
                )
                return False
        self.last_success, self.last_error = self._clock.now(), ""
        return True

    async def _infer(self) -> None:
        tokens = 0
        async with aclosing(self._backend.generate(self._request())) as chunks:
            async for chunk in chunks:
                tokens += chunk.num_tokens
                if chunk.finish and chunk.finish.outcome is not Outcome.FINISHED:
                    raise BackendLost(f"the probe's inference {chunk.finish.outcome}")
        if not tokens:
            raise BackendLost("the probe's inference gave no token")

    def _request(self) -> GenerateRequest:
        return GenerateRequest(
            id=f"probe-{next(self._numbers)}",
            prompt_token_ids=self._prompt,
            sampling=SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True),
            tenant="salver-probe",
            cache_salt="salver-probe",
            messages=_MESSAGES,
            traffic_class=TrafficClass.CRITICAL,
        )

    def __repr__(self) -> str:
        state = self.last_error or f"succeeded at {self.last_success}"
        return f"<ReadinessProbe {self._backend.name} {state}>"
