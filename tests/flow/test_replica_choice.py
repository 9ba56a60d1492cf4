from hypothesis import given
from hypothesis import strategies as st

from salver.flow.replica_choice import SLACK, Load, PrefixMap, choose, prefixes_of

LOADS = st.dictionaries(
    st.sampled_from("abcd"),
    st.builds(Load, st.integers(0, 1000), st.integers(1, 1000)),
    min_size=1,
)
MATCHED = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 9))


@given(LOADS, MATCHED, st.integers(1, 500))
def test_whoever_is_chosen_has_room_and_is_not_far_over_the_mean(
    loads: dict[str, Load], matched: dict[str, int], tokens: int
) -> None:
    chosen = choose(loads, matched, tokens)
    room = [name for name, load in loads.items() if load.has_room(tokens)]
    assert (chosen is None) == (not room)
    if chosen is None:
        return
    assert chosen in room
    share = loads[chosen].share(tokens)
    least = min(loads[name].share(tokens) for name in room)
    mean = sum(load.share(0) for load in loads.values()) / len(loads) + least / len(loads)
    assert share == least or share <= SLACK * mean


@given(LOADS, st.integers(1, 500))
def test_without_prefixes_the_least_loaded_is_chosen(loads: dict[str, Load], tokens: int) -> None:
    chosen = choose(loads, {}, tokens)
    if chosen is not None:
        room = [load.share(tokens) for load in loads.values() if load.has_room(tokens)]
        assert loads[chosen].share(tokens) == min(room)


def test_a_known_prefix_wins_until_its_replica_is_the_busier() -> None:
    matched = {"b": 3}
    assert choose({"a": Load(0, 1000), "b": Load(0, 1000)}, matched, 100) == "b"
    assert choose({"a": Load(0, 1000), "b": Load(300, 1000)}, matched, 100) == "a"


def test_an_idle_replica_takes_a_request_over_its_limit() -> None:
    assert choose({"a": Load(0, 10)}, {}, 100) == "a"
    assert choose({"a": Load(1, 10)}, {}, 100) is None


def test_the_longest_beginning_counts_and_the_oldest_are_forgotten() -> None:
    prefixes = PrefixMap(capacity=3)
    long = prefixes_of("", range(64 * 3))
    prefixes.note(long, "a")
    assert prefixes.matched(long) == {"a": 3}
    assert prefixes.matched(prefixes_of("", range(64 * 2))) == {"a": 2}
    prefixes.note(prefixes_of("", range(100, 100 + 64)), "b")
    assert len(prefixes) == 3
    assert prefixes.matched(long) == {}


def test_another_salt_has_other_prefixes() -> None:
    tokens = range(64)
    assert set(prefixes_of("one", tokens)).isdisjoint(prefixes_of("two", tokens))
    assert prefixes_of("one", range(63)) == ()
