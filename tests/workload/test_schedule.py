"""A schedule is a pure value: same seed, same bytes; a part of it depends on its own part only."""

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import json

from salver.errors import MixError
from salver.workload import Arrival, Workload, load_mix

MakeWorkload = Callable[..., Workload]

RICH: dict[str, Any] = {
    "arrivals": {"gamma": {"rate": 3, "burstiness": 0.3}},
    "input": {"lognormal": {"mean": 12, "cv": 1.0}, "max": 60},
    "output": {"uniform": [2, 9]},
    "prefixes": {"count": 3, "tokens": 5},
    "sessions": {"turns": {"empirical": [1, 1, 2, 4]}, "think": "7s"},
    "tenants": [
        {"name": "a", "share": 3},
        {"name": "b", "class": "batch"},
    ],
    "abandoned": {"share": "25%", "after": "2s"},
}


def whole(workload: Workload, **options: Any) -> list[Arrival]:
    return list(workload.schedule(**options))


@given(seed=st.integers(0, 2**62))
@settings(max_examples=15)
def test_the_same_seed_is_the_same_bytes(make_workload: MakeWorkload, seed: int) -> None:
    first = json.encode(whole(make_workload(**RICH), seed=seed))
    again = json.encode(whole(make_workload(**RICH), seed=seed))
    assert first == again
    assert first != json.encode(whole(make_workload(**RICH), seed=seed + 1))


def test_the_bytes_are_those_of_last_time(make_workload: MakeWorkload) -> None:
    """Guards against a change of draws that nobody meant: schedules are cited by mix and seed."""
    first = whole(make_workload(**RICH), seed=7)[0]
    assert (first.tenant, first.max_tokens, first.prompt[:4]) == FIRST_OF_SEED_7


@given(seed=st.integers(0, 2**32))
@settings(max_examples=15)
def test_arrivals_are_in_order_numbered_and_inside(make_workload: MakeWorkload, seed: int) -> None:
    arrivals = whole(make_workload(**RICH), seed=seed)
    assert [arrival.number for arrival in arrivals] == list(range(len(arrivals)))
    times = [arrival.at for arrival in arrivals]
    assert times == sorted(times)
    assert not times or (times[0] >= 0 and times[-1] < 100)


@pytest.mark.parametrize(
    ("part", "value", "kept"),
    [
        ("output", {"fixed": 3}, ("at", "tenant", "abandon_after", "session")),
        ("input", {"fixed": 3}, ("at", "tenant", "max_tokens", "abandon_after")),
        ("tenants", [{"name": "c"}], ("at", "prompt", "max_tokens", "abandon_after")),
        ("abandoned", None, ("at", "prompt", "tenant", "max_tokens")),
        ("prefixes", None, ("at", "tenant", "max_tokens", "abandon_after")),
        ("arrivals", {"poisson": {"rate": 3}}, ()),
    ],
)
def test_changing_one_part_leaves_the_others(
    make_workload: MakeWorkload, part: str, value: object, kept: tuple[str, ...]
) -> None:
    before = whole(make_workload(**RICH))
    after = whole(make_workload(**RICH | {part: value}))
    for name in kept:
        assert [getattr(one, name) for one in before] == [getattr(one, name) for one in after]
    assert before != after


def test_a_flow_does_not_know_the_others(make_workload: MakeWorkload) -> None:
    alone = make_workload(**RICH)
    flow = alone.mix.flows[0]
    other = flow.model_copy(update={"name": "other"})
    both = Workload(alone.mix.model_copy(update={"flows": (other, flow)}))
    kept = [(one.at, one.prompt) for one in whole(both) if one.flow == "one"]
    assert kept == [(one.at, one.prompt) for one in whole(alone)]


@given(factor=st.floats(0.2, 5.0))
@settings(max_examples=15)
def test_another_rate_is_the_same_sessions_sooner(
    make_workload: MakeWorkload, factor: float
) -> None:
    before = [a for a in whole(make_workload(**RICH)) if a.turn == 0]
    after = [a for a in whole(make_workload(**RICH), rate_factor=factor) if a.turn == 0]
    assert after
    for one, other in zip(before, after, strict=False):
        assert other.at * factor == pytest.approx(one.at)
        sizes = [(each.tenant, each.input_tokens, each.max_tokens) for each in (one, other)]
        assert sizes[0] == sizes[1]


def test_another_rate_says_other_things(make_workload: MakeWorkload) -> None:
    """A server that was measured at one rate must not know the prompts of the next."""
    workload = make_workload(**RICH | {"input": {"fixed": 30}, "prefixes": None})
    once, faster = ({a.prompt for a in whole(workload, rate_factor=f)} for f in (1.0, 1.5))
    assert len(once) > 100
    assert once.isdisjoint(faster)


def test_each_turn_repeats_all_before_it(make_workload: MakeWorkload) -> None:
    sessions: dict[str, list[Arrival]] = {}
    for arrival in whole(make_workload(**RICH)):
        sessions.setdefault(arrival.session, []).append(arrival)
    assert max(map(len, sessions.values())) == 4
    for turns in sessions.values():
        assert [turn.turn for turn in turns] == list(range(len(turns)))
        for before, after in itertools.pairwise(turns):
            assert after.prompt[: len(before.prompt)] == before.prompt
            assert len(after.prompt) > len(before.prompt) + before.max_tokens


def test_prefixes_are_shared_and_as_many_as_stated(make_workload: MakeWorkload) -> None:
    prefixes = Counter(arrival.prompt[:5] for arrival in whole(make_workload(**RICH)))
    assert len(prefixes) == 3
    assert min(prefixes.values()) > 20


def test_tenants_get_their_shares(make_workload: MakeWorkload) -> None:
    single = RICH | {"sessions": None, "arrivals": {"poisson": {"rate": 50}}}
    tenants = Counter(arrival.tenant for arrival in whole(make_workload(**single)))
    assert tenants["a"] / tenants.total() == pytest.approx(0.75, abs=0.03)
    classes = {arrival.tenant: arrival.traffic_class for arrival in whole(make_workload(**single))}
    assert classes == {"a": "standard", "b": "batch"}


def test_a_share_of_callers_hangs_up(make_workload: MakeWorkload) -> None:
    single = RICH | {"sessions": None, "arrivals": {"poisson": {"rate": 50}}}
    after = [one.abandon_after for one in whole(make_workload(**single))]
    times = [time for time in after if time is not None]
    assert len(times) / len(after) == pytest.approx(0.25, abs=0.03)
    assert np.mean(times) == pytest.approx(2.0, rel=0.15)


@pytest.mark.parametrize(
    "arrivals",
    [
        {"poisson": {"rate": 3}},
        {"gamma": {"rate": 3, "burstiness": 0.3}},
        {"ramp": {"begin": 1, "end": 5}},
        {"diurnal": {"rate": 3, "swing": "80%", "period": "40s"}},
    ],
    ids=lambda arrivals: next(iter(arrivals)),
)
@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_the_rate_counts_turns_that_come_in_time(
    make_workload: MakeWorkload, arrivals: dict[str, Any], factor: float
) -> None:
    """Of sessions of 80 s in a mix of 60 s most turns do not."""
    sessions = {"turns": {"fixed": 5}, "think": "20s"}
    workload = make_workload(mix={"duration": "60s"}, arrivals=arrivals, sessions=sessions)
    wanted = workload.rate * factor
    came = [
        len(whole(workload, seed=seed, rate_factor=workload.factor_for(wanted)))
        for seed in range(12)
    ]
    assert np.mean(came) / 60 == pytest.approx(wanted, rel=0.08)


def test_a_rate_of_sessions_that_begin_by_a_trace(
    make_workload: MakeWorkload, tmp_path: Path
) -> None:
    rows = ({"at": at / 2, "input_tokens": 1, "output_tokens": 1} for at in range(400))
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(json.encode(row).decode() + "\n" for row in rows))
    workload = make_workload(
        mix={"duration": "60s"},
        trace={"file": str(path), "format": "salver"},
        arrivals={"trace": {}},
        sessions={"turns": {"fixed": 3}, "think": "20s"},
    )
    factor = workload.factor_for(3.0)
    came = [len(whole(workload, seed=seed, rate_factor=factor)) for seed in range(8)]
    assert np.mean(came) / 60 == pytest.approx(3.0, rel=0.08)


def test_a_file_s_conversations_have_no_more_turns_than_are_written(
    make_workload: MakeWorkload, tmp_path: Path
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"turns": ["one", "two"]}\n{"turns": ["one"]}\n')
    workload = make_workload(
        prompts={"jsonl": {"file": str(path)}},
        input=None,
        sessions={"turns": {"fixed": 9}, "think": "1ms"},
    )
    assert workload.rate == pytest.approx(10 * 1.5, rel=0.02)


def test_a_synthetic_rate_is_had_by_its_ratio(make_workload: MakeWorkload) -> None:
    workload = make_workload(**RICH)
    for rate in (0.01, 3.0, 500.0):
        assert workload.factor_for(rate) == pytest.approx(rate / workload.rate)


@given(gaps=st.lists(st.sampled_from([0.0, 0.125, 0.5, 30.0]), min_size=8, max_size=60))
def test_a_trace_is_played_until_the_rate_is_reached(
    gaps: list[float], make_workload: MakeWorkload, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The least factor: at it the requests come, and just below it they do not."""
    instants = np.cumsum(
        [0.0, 0.5, *gaps, 100.0]
    ).tolist()  # the last only makes the trace long enough
    path = tmp_path_factory.mktemp("trace") / "trace.jsonl"
    rows = ({"at": at, "input_tokens": 1, "output_tokens": 1} for at in instants)
    path.write_text("".join(json.encode(row).decode() + "\n" for row in rows))
    flow = {"trace": {"file": str(path), "format": "salver"}, "arrivals": {"trace": {}}}
    workload = make_workload(mix={"duration": "4s"}, **flow)
    for wanted in range(2, len(gaps) + 2):
        factor = workload.factor_for(wanted / 4)
        assert len(list(workload.schedule(rate_factor=factor))) >= wanted
        assert len(list(workload.schedule(rate_factor=factor * (1 - 1e-9)))) < wanted


def test_a_rate_beyond_a_trace_is_refused(make_workload: MakeWorkload, tmp_path: Path) -> None:
    (tmp_path / "trace.jsonl").write_text('{"at": 0, "input_tokens": 1, "output_tokens": 1}\n')
    trace = {"file": str(tmp_path / "trace.jsonl"), "format": "salver"}
    workload = make_workload(trace=trace, arrivals={"trace": {}})
    with pytest.raises(MixError, match="ends too early"):
        list(workload.schedule(rate_factor=workload.factor_for(9.0)))


def test_a_closed_loop_has_users_and_no_rate(make_workload: MakeWorkload) -> None:
    workload = make_workload(arrivals={"closed_loop": {"users": 3, "think": "2s"}})
    assert workload.rate == 0
    users = workload.users()
    assert len(users) == 3
    asked = [list(itertools.islice(user, 200)) for user in users]
    assert len({arrival.number for arrivals in asked for arrival in arrivals}) == 600
    assert len({arrival.prompt for arrivals in asked for arrival in arrivals}) == 600
    pauses = [arrival.at for arrivals in asked for arrival in arrivals]
    assert np.mean(pauses) == pytest.approx(2.0, rel=0.2)


def test_the_example_mix_can_be_drawn() -> None:
    workload = Workload(load_mix(Path(__file__).parents[2] / "examples" / "mix.yaml"))
    arrivals = whole(workload)
    assert {arrival.tenant for arrival in arrivals} == {"search", "support", "nightly"}
    assert len(arrivals) == pytest.approx(workload.rate * 30, rel=0.4)


FIRST_OF_SEED_7 = ("a", 3, (361, 787, 672, 669))
