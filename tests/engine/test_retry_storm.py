"""Clients that ask again at once on every refusal: when they are gone, so is what they did.

On a simulated machine that is exactly its LatencyModel, so that every instant is known.
"""

import random

import pytest

from salver.contract import GenerateRequest, LatencyModel, SamplingParams
from salver.engine import EngineCore, Limits
from salver.engine.admission import Admission
from salver.errors import Refused
from salver.flow import FirstTokenBound, QueueBound, Share
from salver.testing import LetterDecoder, ManualClock, TimedRunner

MACHINE = LatencyModel(base=0.004, per_token=0.001, per_attended=0.0, per_logit_row=0.0005)
WITHIN, PATIENCE, ENDS = 0.5, 2.0, 10.0
PROMPT, OUTPUT = 40, 10
CAPACITY = 1 / (PROMPT * 0.001 + OUTPUT * 0.0015 + 0.004)  # requests/s, a little less in truth


class Storm:
    """Three times the capacity until ENDS, asked again for PATIENCE; half of it after that, asked once."""

    def __init__(self, seed: int, *, fair: bool) -> None:
        self.clock = ManualClock()
        self.core = EngineCore.build(
            TimedRunner(MACHINE, self.clock, num_blocks=2048),
            self.clock,
            Limits(16, 64, 200, tpot_seconds=0.08),
            Admission(QueueBound(20, 10**6), FirstTokenBound(WITHIN)),
            frozenset(),
            LetterDecoder,
            MACHINE,
            shares={"a": Share(1.0)} if fair else None,
        )
        chance = random.Random(seed)
        self.came: dict[str, float] = {}
        at = 0.0
        while (at := at + chance.expovariate((3.0 if at < ENDS else 0.5) * CAPACITY)) < 25.0:
            self.came[f"{'storm' if at < ENDS else 'light'}-{len(self.came)}"] = at
        self.tries = 0
        self.first: dict[str, float] = {}
        self.left_at: dict[str, float] = {}  # refused, for the last time
        self._run()

    def _run(self) -> None:
        coming, again = list(self.came), list[str]()
        while coming or again or self.core.has_work:
            if not self.core.has_work and not again:
                self.clock.advance(max(0.0, self.came[coming[0]] - self.clock.now()))
            while coming and self.came[coming[0]] <= self.clock.now():
                again.append(coming.pop(0))
            refused = [name for name in again if not self._asks(name)]
            if not self.core.has_work:
                self.clock.advance(0.001)
            for chunk in self.core.step():
                self.first.setdefault(chunk.request_id, self.clock.now())
            refused += [name for name, _ in self.core.take_shed()]
            again = [name for name in refused if self._asks_again(name)]

    def _asks(self, name: str) -> bool:
        self.tries += 1
        prompt = tuple(random.Random(name).choices(range(97), k=PROMPT))
        params = SamplingParams(OUTPUT, temperature=0.0, ignore_eos=True)
        came = self.came[name] if name.startswith("light") else self.clock.now()
        try:
            self.core.add(GenerateRequest(name, prompt, params, tenant="a", arrived=came))
        except Refused:
            return False
        return True

    def _asks_again(self, name: str) -> bool:
        now = self.clock.now()
        if name.startswith("storm") and now < self.came[name] + PATIENCE:
            return True
        self.left_at[name] = now
        return False


@pytest.mark.parametrize("fair", [False, True])
def test_nothing_of_it_is_left_when_they_are_gone(fair: bool) -> None:
    """By the time at which the last of them gave up and what then waited had its first token."""
    storm = Storm(1, fair=fair)
    assert storm.tries > 3 * len(storm.came)
    over = ENDS + PATIENCE + WITHIN
    light = [name for name in storm.came if name.startswith("light") and storm.came[name] > over]
    assert len(light) > 50
    for name in light:
        assert storm.first[name] - storm.came[name] <= WITHIN
    assert max(storm.left_at.values()) <= over
