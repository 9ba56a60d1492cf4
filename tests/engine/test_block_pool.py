from salver.contract import GenerateRequest, SamplingParams
from salver.engine import BlockPool, KVCacheManager, OutputText, Request
from salver.testing import LetterDecoder


def filled(pool: BlockPool, keys: list[bytes]) -> list[int]:
    blocks = pool.allocate(len(keys))
    for block, key in zip(blocks, keys, strict=True):
        pool.publish(block, key)
    return blocks


def test_blocks_never_cached_are_taken_before_cached_ones() -> None:
    pool = BlockPool(4)
    cached = filled(pool, [b"a", b"b"])
    plain = pool.allocate(2)
    pool.release(cached)
    pool.release(plain)
    assert set(pool.allocate(2)) == set(plain)
    assert pool.find(b"a") is not None


def test_a_cached_chain_is_eaten_from_its_leaf() -> None:
    pool = BlockPool(3)
    pool.release(filled(pool, [b"root", b"middle", b"leaf"]))
    for gone, left in ((b"leaf", [b"root", b"middle"]), (b"middle", [b"root"]), (b"root", [])):
        pool.allocate(1)
        assert pool.find(gone) is None
        assert all(pool.find(key) is not None for key in left)


def test_the_least_recently_released_chain_goes_first() -> None:
    pool = BlockPool(4)
    old, new = filled(pool, [b"o1", b"o2"]), filled(pool, [b"n1", b"n2"])
    pool.release(old)
    pool.release(new)
    pool.hold(old)  # a hit makes it recent again
    pool.release(old)
    pool.allocate(2)
    assert pool.find(b"o2") is not None
    assert pool.find(b"n1") is None


def test_the_first_block_to_publish_a_key_keeps_it() -> None:
    pool = BlockPool(2)
    first, second = pool.allocate(2)
    pool.publish(first, b"same")
    pool.publish(second, b"same")
    assert pool.find(b"same") == first
    pool.release([second])
    assert pool.num_cached == 0


def test_repr_tells_the_three_states() -> None:
    pool = BlockPool(5)
    pool.allocate(1)
    pool.release(filled(pool, [b"a", b"b"]))
    assert repr(pool) == "<BlockPool 1 owned, 2 cached, 2 free>"


def test_attach_changes_nothing_when_there_is_no_room() -> None:
    kv = KVCacheManager(BlockPool(3), block_size=4)

    def sequence(name: str, length: int) -> Request:
        source = GenerateRequest(name, tuple(range(length)), SamplingParams(max_tokens=1))
        return Request(source, 0, 0.0, OutputText(LetterDecoder()))

    first = sequence("first", 8)
    assert kv.attach(first, 8)
    first.num_computed_tokens = 8
    kv.publish(first)
    kv.release(first)
    assert (kv.pool.num_cached, kv.pool.num_available) == (2, 3)
    assert not kv.attach(sequence("second", 16), 16)  # hits 2, needs 2 more, 1 is left
    assert (kv.pool.num_cached, kv.pool.num_available) == (2, 3)
    assert kv.tables == {}
