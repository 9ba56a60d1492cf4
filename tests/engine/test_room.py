"""What would be given back, against what is."""

from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from salver.contract import GenerateRequest, SamplingParams, TrafficClass
from salver.engine import BlockPool, KVCacheManager, Request
from salver.engine.leaving import Leaving
from salver.testing import LetterDecoder

BLOCK = 4
kinds = st.tuples(
    st.sampled_from(["red", "blue"]),
    st.sampled_from([TrafficClass.STANDARD, TrafficClass.BATCH]),
    st.integers(0, 6),  # blocks of a common beginning
    st.integers(1, 12),  # tokens after it
)


def sequence(name: str, kind: tuple[str, TrafficClass, int, int]) -> Request:
    tenant, traffic_class, common, own = kind
    first = 1000 * (int(name) + 1)
    prompt = (*range(BLOCK * common), *range(first, first + own))
    source = GenerateRequest(
        name,
        prompt,
        SamplingParams(max_tokens=4),
        tenant=tenant,
        cache_salt=tenant,
        traffic_class=traffic_class,
    )
    return next(Request.choices(source, 0.0, lambda _: LetterDecoder()))


S = TrafficClass.STANDARD


@example([("red", S, 6, 1), ("blue", S, 0, 12), ("blue", S, 0, 8)], ("red", S, 6, 12), {0})
@given(st.lists(kinds, min_size=1, max_size=7), kinds, st.sets(st.integers(0, 6)))
def test_what_would_be_given_back_is_what_is(
    running: Sequence[tuple[str, TrafficClass, int, int]],
    newcomer: tuple[str, TrafficClass, int, int],
    who: set[int],
) -> None:
    """Blocks that several share are free when the last of them has left; and a newcomer that shares
    them too has room just where enough others are."""
    pool = BlockPool(13)
    kv = KVCacheManager(pool, BLOCK)
    requests = [sequence(str(index), kind) for index, kind in enumerate(running)]
    there = []
    for each in requests:
        if kv.attach(each, each.num_tokens):
            there.append(each)
            each.num_computed_tokens = each.num_tokens
            kv.publish(each)
    last = sequence("99", newcomer)
    lacking, shared = kv.lacking(last, last.num_tokens)
    leaving, beside = Leaving(kv), Leaving(kv, kept=shared)
    before = pool.num_available
    gone = [each for index, each in enumerate(there) if index in who]
    for each in gone:
        leaving.add(each)
        beside.add(each)
    owners = {each.owner for each in there}
    would_hold = {owner: leaving.num_held(owner) for owner in owners}
    for each in gone:
        kv.release(each)
    assert leaving.num_freed == pool.num_available - before
    assert would_hold == {owner: kv.num_held(owner) for owner in owners}
    assert kv.attach(last, last.num_tokens) == (beside.num_freed >= lacking)
