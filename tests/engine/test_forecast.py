"""What is foretold is what comes, on a machine that is its LatencyModel."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salver.contract import GenerateRequest, LatencyModel, SamplingParams, Timings
from salver.engine import EngineCore, Limits
from salver.engine.forecast import Concurrency, Forecast, Verdict, forecast_tpot, forecast_ttft
from salver.flow import QueueBound
from salver.testing import LetterDecoder, ManualClock, TimedRunner

BLOCK, CONTEXT, BATCH = 4, 64, 32
ROUNDING = 1e-9  # sums of a few hundred doubles of at most a second, in other orders

costs = st.floats(0, 1e-2)
machines = st.builds(LatencyModel, st.floats(1e-4, 1e-2), costs, st.floats(0, 1e-4), costs)


def at_once(running: int) -> Concurrency:
    return Concurrency(running, BATCH, CONTEXT, kv_tokens=running * CONTEXT, block_size=BLOCK)


def served(machine: LatencyModel, running: int, prompt: int, tpot: float) -> Timings:
    """Of a request with `prompt` tokens that comes among `running` - 1 that decode."""
    clock = ManualClock()
    runner = TimedRunner(machine, clock, block_size=BLOCK)
    limits = Limits(running, BATCH, CONTEXT, tpot)
    core = EngineCore.build(
        runner, clock, limits, QueueBound(50, 10_000), frozenset(), LetterDecoder, machine
    )
    for index in range(running - 1):
        core.add(request(f"r{index}", range(index, index + 4), 30))
    if running > 1:
        core.step()
    core.add(request("late", range(20, 20 + prompt), 4))
    while core.has_work:
        for chunk in core.step():
            if chunk.request_id == "late" and chunk.finish:
                return chunk.finish.timings
    raise AssertionError("it never ended")


def request(name: str, prompt: range, max_tokens: int) -> GenerateRequest:
    return GenerateRequest(name, tuple(prompt), SamplingParams(max_tokens, temperature=0.0))


@settings(max_examples=60)
@given(
    machine=machines,
    running=st.integers(1, 7),
    prompt=st.integers(1, CONTEXT - 4),
    tpot=st.floats(1e-3, 0.3),
)
def test_what_is_served_lies_within_what_was_foretold(
    machine: LatencyModel, running: int, prompt: int, tpot: float
) -> None:
    late = served(machine, running, prompt, tpot)
    assert late.first_token is not None
    first = forecast_ttft(machine, at_once(running), 1.0, tpot)
    assert first.least - ROUNDING <= late.first_token - late.arrived <= first.most + ROUNDING
    paced = forecast_tpot(machine, at_once(running), tpot)
    own = (late.ended - late.first_token) / 3
    assert own <= max(paced.most, tpot) + ROUNDING


@pytest.mark.parametrize(
    ("limit", "verdict"),
    [(0.02, Verdict.BROKEN), (0.1, Verdict.DEPENDS), (0.3, Verdict.KEPT)],
)
def test_the_verdict(limit: float, verdict: Verdict) -> None:
    assert Forecast("slo.tpot_p95", limit, least=0.05, most=0.2).verdict is verdict


def test_by_hand() -> None:
    """Two sequences of 64 tokens at most, blocks of 4, costs of whole milliseconds, none in doubt
    beyond the fifth that every model is."""
    machine = LatencyModel(base=0.010, per_token=0.001, per_attended=0.0001, per_logit_row=0.002)
    tpot = forecast_tpot(machine, at_once(2), 0.1)
    # two tokens that attend to themselves: 10 + 2 * (1 + 0.1 + 2) ms, less a fifth
    assert tpot.least == pytest.approx(0.8 * 0.0162)
    # two tokens over 128, and four tokens of a prompt from 60 on: 61 + 62 + 63 + 64 pairs, one row
    assert tpot.most == pytest.approx(
        1.2 * (0.010 + 2 * 0.003 + 0.0128 + 4 * 0.001 + 0.025 + 0.002)
    )
    ttft = forecast_ttft(machine, at_once(1), 1.0, tpot=None)
    # alone: the step under way over 64, then 32 tokens, and of 32 more as many as cost no more than
    # 32 fresh ones and eight rows, 32 + 52.8 + 16 ms: 19, and 13; 64 * 65 / 2 pairs in all
    begun = 0.010 + 0.003 + 0.0064
    assert ttft.most == pytest.approx(1.2 * (begun + 3 * 0.010 + 64 * 0.001 + 0.208 + 0.002))


def test_more_sequences_than_a_step_holds_take_turns() -> None:
    machine = LatencyModel(base=0.010, per_token=0.0, per_attended=0.0, per_logit_row=0.0)
    assert forecast_tpot(machine, at_once(2 * BATCH), 1.0).least == pytest.approx(0.8 * 0.020)
