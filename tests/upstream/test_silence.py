from hypothesis import given
from hypothesis import strategies as st

from salver.testing import ManualClock
from salver.upstream.silence import Silence

EVENTS = st.lists(st.one_of(st.sampled_from(["begin", "end", "heard"]), st.integers(0, 9)))


@given(EVENTS)
def test_it_is_the_time_since_the_last_byte_in_which_somebody_awaited_one(
    events: list[str | int],
) -> None:
    clock = ManualClock()
    silence, awaiting, in_all, stretch = Silence(clock), 0, 0, 0
    for event in events:
        if isinstance(event, int):
            clock.advance(event)
            in_all += event if awaiting else 0
            stretch += event if awaiting else 0
        elif event == "begin":
            silence.begin()
            awaiting += 1
        elif event == "heard":
            silence.heard()
            in_all = stretch = 0
        elif awaiting:
            silence.end()
            awaiting -= 1
        stretch = stretch if awaiting else 0
        assert (silence.in_all, silence.stretch) == (in_all, stretch)


def test_no_second_of_it_is_judged_twice() -> None:
    clock = ManualClock()
    silence = Silence(clock)
    silence.begin()
    clock.advance(29)
    assert not silence.judge(30, 2)
    clock.advance(1)
    assert silence.judge(30, 2)
    clock.advance(1)
    assert not silence.judge(30, 2)
    clock.advance(1)
    assert silence.judge(30, 2)
    silence.heard()
    clock.advance(2)
    assert not silence.judge(30, 2)
    assert silence.judge(2, 2), "asked for less, it is enough"
