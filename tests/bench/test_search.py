"""Searching for a rate, and comparing two servers, without a server."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as replace_record

from salver.bench.kept import kept
from salver.bench.measure import Measurement
from salver.bench.plots import distribution
from salver.bench.record import Record
from salver.bench.report import Report
from salver.bench.results import of_comparison, of_points, of_run
from salver.bench.run import Run
from salver.bench.search import Measure, compare, highest_rate, probe, sweep
from salver.bench.several import pooled
from salver.bench.statistics import Percentiles, bootstrap
from salver.bench.summary import Summary, Window
from salver.bench.table import seconds
from salver.bench.validity import check_client
from salver.errors import InvalidValue
from salver.telemetry import Ending, Objectives
from salver.workload import load_mix

SLO = Objectives(ttft=1.0)
WINDOW = Window(0.0, 100.0)
A_MIX = load_mix("""\
apiVersion: salver/v1
kind: TrafficMix
name: mix
duration: 100s
slo: {ttft: 1s}
flows:
  - name: f
    arrivals: {poisson: {rate: 2}}
    prompts: {tokens: [1, 9]}
    input: {fixed: 8}
    output: {fixed: 3}
""")


class Pretend:
    """A server that is good for all arrivals up to its capacity, and for none of those beyond."""

    def __init__(self, capacity: float, *, ttft: float = 0.1, valid: bool = True) -> None:
        self.capacity = capacity
        self.ttft = ttft
        self.valid = valid
        self.rates: list[float] = []

    async def measure(self, rate: float, seed: int) -> Measurement:
        self.rates.append(rate)
        return of_records(self.records(rate, seed), seed=seed, valid=self.valid)

    def records(self, rate: float, seed: int) -> list[Record]:
        random = np.random.default_rng(seed)
        return [self._record(n, rate, random) for n in range(200)]

    def _record(self, number: int, rate: float, random: np.random.Generator) -> Record:
        late = number / 200 >= self.capacity / rate
        ttft = (5.0 if late else self.ttft) * random.uniform(0.9, 1.1)
        at = number * 0.5
        return Record(
            number, at, "f", "a", "standard", "", 0, 8, 3, at,
            [at + ttft, at + ttft + 0.1, at + ttft + 0.2], at + ttft + 0.2, 3, 0, True, 200,
            Ending.COMPLETE,
        )  # fmt: skip


def of_records(records: list[Record], *, seed: int = 0, valid: bool = True) -> Measurement:
    run = Run(records, [0.0 if valid else 9.0], 0.1, 100.0)
    total = Summary.of(records, SLO, WINDOW)
    names = {record.tenant for record in records}
    tenants = {
        name: Summary.of([one for one in records if one.tenant == name], SLO, WINDOW)
        for name in names
    }
    client = check_client(run, [], 1.0, judged=len(records))
    report = Report(
        "mix", "http://x", "m", seed, 1.0, False, SLO, WINDOW, (), client, total, tenants, 0.0
    )
    return Measurement(report, records)


def _refused(number: int) -> Record:
    at = number * 0.5
    return Record(
        number, at, "f", "a", "standard", "", 0, 8, 3, at, [], at + 0.001, ending=Ending.REFUSED
    )


def _always(made: Measurement) -> Measure:
    async def run(rate: float, seed: int) -> Measurement:
        return made

    return run


@given(capacity=st.floats(0.5, 300), start=st.floats(0.5, 50))
@settings(max_examples=20)
async def test_the_highest_rate_is_found_to_five_percent(capacity: float, start: float) -> None:
    server = Pretend(capacity)
    found = await highest_rate(server.measure, start=start, share=0.95, seeds=(0,))
    assert found.failed is not None
    assert found.highest <= capacity / 0.945
    assert found.failed >= capacity / 0.96
    assert found.failed - found.highest <= 0.05 * found.failed
    assert len(server.rates) < 20


async def test_a_server_that_never_holds_has_no_rate() -> None:
    found = await highest_rate(Pretend(1e-9).measure, start=1, share=0.95, seeds=(0,))
    assert found.highest == 0
    assert "No rate" in of_points("title", found.points, found).text


async def test_a_dead_server_is_not_asked_until_nothing_comes() -> None:
    """At a rate at which nothing is judged, nothing was late."""
    rates: list[float] = []

    async def refuses(rate: float, seed: int) -> Measurement:
        rates.append(rate)
        return of_records([_refused(n) for n in range(int(rate * 10))])

    found = await highest_rate(refuses, start=8, share=0.95, seeds=(0,))
    assert found.highest == 0
    assert rates == [8, 4, 2, 1, 0.5]


async def test_a_run_in_which_nothing_is_judged_is_no_measurement() -> None:
    made = of_records([])
    assert made.report.client.problems == ("no arrival was judged",)
    point = await probe(_always(made), 1.0, (0,))
    assert not point.valid
    assert (point.share.low, point.share.high) == (0.0, 1.0)


async def test_few_arrivals_prove_little() -> None:
    records = Pretend(100).records(10, 0)[:2]
    point = await probe(_always(of_records(records)), 1.0, (0,))
    assert point.share.value == 1.0
    assert point.share.low == pytest.approx(0.34, abs=0.01)


async def test_the_rate_that_was_drawn_stands_beside_the_one_asked() -> None:
    made = await Pretend(100).measure(10, 0)
    client = replace(made.report.client, intended_rate=1.75)
    drawn = Measurement(replace(made.report, client=client), made.records)
    point = await probe(_always(drawn), 2.0, (0, 1))
    results = of_points("title", [point])
    assert results.record["points"][0]["drawn_rate"] == 1.75
    assert "2.00/s  1.75/s" in results.text


async def test_a_rate_that_the_client_spoiled_does_not_count() -> None:
    found = await highest_rate(Pretend(50, valid=False).measure, start=1, share=0.5, seeds=(0,))
    assert found.highest == 0


async def test_a_sweep_pools_its_seeds() -> None:
    (below, above) = await sweep(Pretend(10).measure, [8, 20], seeds=(1, 2, 3))
    assert below.share.value == 1.0
    assert above.share.value == pytest.approx(0.5, abs=0.01)
    assert above.share.low < 0.5 < above.share.high
    assert len(above.runs) == 3
    results = of_points("title", [below, above])
    assert set(results.runs) >= {"rate-8-seed-1", "rate-20-seed-3"}
    assert "Goodput against rate" in results.html


async def test_a_comparison_alternates_and_gives_ratios() -> None:
    order: list[str] = []

    def noted(name: str, server: Pretend):  # type: ignore[no-untyped-def]
        async def run(rate: float, seed: int) -> Measurement:
            order.append(name)
            return await server.measure(rate, seed)

        return run

    a, b = noted("A", Pretend(100, ttft=0.2)), noted("B", Pretend(100, ttft=0.1))
    comparison = await compare(a, b, rate=10, seeds=(0, 1, 2))
    assert order == ["A", "B", "B", "A", "A", "B"]
    ttft, goodput = comparison.ratios["TTFT"], comparison.ratios["goodput"]
    assert ttft is not None
    assert goodput is not None
    assert ttft.interval is not None
    assert ttft.interval.low < 2.0 < ttft.interval.high
    assert ttft.value == pytest.approx(2, rel=0.05)
    assert goodput.value == 1.0
    results = of_comparison("title", comparison)
    assert results.valid
    assert len(results.runs) == 6


@given(seed=st.integers(0, 2**32))
@settings(max_examples=10)
def test_a_bootstrap_interval_holds_the_mean(seed: int) -> None:
    samples = np.random.default_rng(seed).normal(5.0, 1.0, 300)
    interval = bootstrap([[samples.tolist()]], lambda groups: float(groups[0].mean()))
    assert interval.low < interval.value < interval.high
    assert interval.high - interval.low == pytest.approx(4 / 300**0.5, rel=0.3)


def test_what_a_round_has_in_common_is_no_chance_of_its_samples() -> None:
    """Two rounds of 1 and two of 3, each of many samples: their mean is 1 to 3, not 2."""
    rounds = [[[level] * 500] for level in (1.0, 3.0, 1.0, 3.0)]
    interval = bootstrap(rounds, lambda groups: float(groups[0].mean()))
    assert interval.value == 2.0
    assert interval.low < 1.5
    assert interval.high > 2.5


async def test_who_waited_in_vain_is_in_the_ratio_of_ttft() -> None:
    """B answers fewer than half, and those at once."""

    def vain(record: Record) -> Record:
        if record.number % 5 < 2:
            return record
        return replace_record(record, ending=Ending.EXPIRED, events=[], ended=record.at + 30)

    fair = Pretend(100).records(10, 0)
    b = _always(of_records([vain(record) for record in Pretend(100, ttft=0.05).records(10, 0)]))
    comparison = await compare(_always(of_records(fair)), b, rate=10, seeds=(0,))
    ttft = comparison.ratios["TTFT"]
    assert ttft is not None
    assert ttft.value < 0.01
    assert ttft.interval is None
    results = of_comparison("title", comparison)
    assert results.record["ratios"]["TTFT"]["low"] is None


async def test_several_runs_are_reported_over_all_seeds() -> None:
    """The second seed's runs are slow, and by a client that stood still; two tenants ask."""

    async def server(rate: float, seed: int) -> Measurement:
        records = Pretend(100, ttft=0.1 if seed == 0 else 0.5).records(rate, seed)
        named = [replace_record(one, tenant="ab"[one.number % 2]) for one in records]
        return of_records(named, seed=seed, valid=seed == 0)

    (point,) = await sweep(server, [2.0], seeds=(0, 1))
    text = of_points("title", [point]).text
    assert pooled(point.runs).arrivals == 400
    worst = pooled(point.runs).ttft.p95
    assert worst is not None
    assert seconds(worst) in text
    assert "objectives       TTFT <= 1.00 s" in text
    assert "seeds            0, 1" in text
    assert "client at worst  lag p99 0.0 ms (allowed 50.0 ms), standstill 9.00 s" in text
    assert "INVALID          at factor 1, seed 1: the client stood still" in text
    assert text.count("2.00/s  ") >= 3  # the point, and each of its tenants


def test_a_p99_needs_a_thousand_samples() -> None:
    assert Percentiles.of([1.0] * 999).p99 is None
    assert Percentiles.of([1.0] * 1000).p99 == 1.0
    assert Percentiles.of([]).p50 is None


async def test_who_waited_in_vain_counts_as_having_waited() -> None:
    run = await Pretend(100).measure(10, 0)
    waiting = Record(
        999, 1.0, "f", "a", "standard", "", 0, 8, 3, 1.0, [], 61.0, ending=Ending.EXPIRED
    )
    refused = Record(
        998, 1.0, "f", "a", "standard", "", 0, 8, 3, 1.0, [], 1.001, ending=Ending.REFUSED
    )
    gone = Record(
        997, 1.0, "f", "a", "standard", "", 0, 8, 3, 1.0, [], 43.0, ending=Ending.ABANDONED
    )
    summary = Summary.of([*run.records, waiting, refused, gone], SLO, WINDOW)
    assert summary.ttft.worst == 60.0
    assert summary.ttft.samples == 202
    assert summary.goodput.arrivals == 203
    assert summary.goodput.good == 200


def test_tokens_per_second_are_of_those_that_came_in_the_window() -> None:
    """Asked for before it, in it, and answered long after it; four tokens in two events each."""

    def answer(number: int, at: float, events: list[float]) -> Record:
        return Record(
            number, at, "f", "a", "standard", "", 0, 8, 4, at, events, events[-1], 4, 0, True, 200,
            Ending.COMPLETE,
        )  # fmt: skip

    records = [
        answer(0, 1.0, [6.0, 6.5]),
        answer(1, 7.0, [8.0, 9.0]),
        answer(2, 14.0, [14.0, 40.0]),
    ]
    summary = Summary.of(records, SLO, Window(5.0, 15.0))
    assert summary.arrivals == 2
    assert summary.output_tokens == 8
    assert summary.output_rate == (4 + 4 + 2) / 10


def test_a_share_of_arrivals_is_over_all_of_them() -> None:
    """Two of four waited and know how long, one of them not at all."""
    assert distribution("x", [3.0, 0.0], among=4).points == [(3.0, 0.5)]


async def test_a_page_needs_nothing_from_elsewhere() -> None:
    measured = await Pretend(5).measure(10, 0)
    named = replace(measured.report, mix="<b>mix</b>")
    html = of_run(Measurement(named, measured.records)).html
    assert html.count("<svg") == 6
    assert "<b>mix" not in html
    for outside in ("src=", "href=", "@import", "url("):
        assert outside not in html


@pytest.mark.parametrize("interrupted_after", range(4))
async def test_a_search_goes_on_where_it_was_interrupted(
    tmp_path: Path, interrupted_after: int
) -> None:
    whole, first, second = Pretend(20), Pretend(20), Pretend(20)

    async def dies(rate: float, seed: int) -> Measurement:
        if len(first.rates) == interrupted_after:
            raise KeyboardInterrupt
        return await first.measure(rate, seed)

    expected = await highest_rate(whole.measure, start=5, share=0.95, seeds=(0,))
    with pytest.raises(KeyboardInterrupt):
        await highest_rate(kept(dies, tmp_path, A_MIX, {}), start=5, share=0.95, seeds=(0,))
    again = kept(second.measure, tmp_path, A_MIX, {})
    assert await highest_rate(again, start=5, share=0.95, seeds=(0,)) == expected
    assert first.rates + second.rates == whole.rates


async def test_an_invalid_run_is_made_again(tmp_path: Path) -> None:
    server = Pretend(20, valid=False)
    for _ in range(2):
        await kept(server.measure, tmp_path, A_MIX, {})(1.0, 0)
    assert server.rates == [1.0, 1.0]


async def test_runs_of_another_mix_are_refused(tmp_path: Path) -> None:
    kept(Pretend(20).measure, tmp_path, A_MIX, {})
    with pytest.raises(InvalidValue, match="cannot be gone on from"):
        kept(Pretend(20).measure, tmp_path, A_MIX.model_copy(update={"seed": 1}), {})


async def test_runs_of_another_server_are_refused(tmp_path: Path) -> None:
    kept(Pretend(20).measure, tmp_path, A_MIX, {"url": "a", "model": "m"})
    kept(Pretend(20).measure, tmp_path, A_MIX, {"url": "a"})
    with pytest.raises(InvalidValue) as caught:
        kept(Pretend(20).measure, tmp_path, A_MIX, {"url": "a", "model": "n"})
    assert "model was m and is n" in str(caught.value.fix)


async def test_runs_from_before_claims_were_kept_are_gone_on_from(tmp_path: Path) -> None:
    server = Pretend(20)
    first = await kept(server.measure, tmp_path, A_MIX, {})(1.0, 0)
    (tmp_path / "claims.json").unlink()
    assert await kept(server.measure, tmp_path, A_MIX, {"url": "a"})(1.0, 0) == first
    assert server.rates == [1.0]
    with pytest.raises(InvalidValue):
        kept(server.measure, tmp_path, A_MIX, {"url": "b"})


async def test_a_kept_run_that_was_damaged_is_refused(tmp_path: Path) -> None:
    measure = kept(Pretend(20).measure, tmp_path, A_MIX, {})
    await measure(1.0, 0)
    (tmp_path / "run-1-seed-0.json").write_text("{}")
    with pytest.raises(InvalidValue, match="remove it"):
        await measure(1.0, 0)
