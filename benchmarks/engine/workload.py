"""What is measured: the points, their prompts, and the way from instants to rates."""

import random
from dataclasses import dataclass
from typing import Literal

TOKEN_IDS = range(1000, 40000)  # ordinary words in every vocabulary we meet

Times = list[list[float]]  # per stream, the instants of its tokens in seconds


@dataclass(frozen=True)
class Point:
    """`repeats` are runs within one round; the round's value is their median."""

    name: str
    title: str
    measures: Literal["decode", "prefill"]
    streams: int
    prompt_tokens: int
    new_tokens: int
    repeats: int = 1


POINTS = (
    Point("decode_1", "decode at 1", "decode", 1, 128, 64, repeats=3),
    Point("decode_8", "decode at 8", "decode", 8, 128, 64, repeats=2),
    Point("decode_32", "decode at 32", "decode", 32, 128, 64),
    Point("prefill_8x128", "prefill 8 x 128", "prefill", 8, 128, 1, repeats=3),
    Point("prefill_1x128", "prefill 1 x 128", "prefill", 1, 128, 1, repeats=5),
    # 960 in and 128 out: 1,024 tokens of context in the middle of decoding. The output is long
    # enough that the first stream still decodes when the last has been prefilled.
    Point("decode_32_context_1024", "decode at 32, context 1,024", "decode", 32, 960, 128),
)
MAX_STREAMS = max(point.streams for point in POINTS)
MAX_CONTEXT = max(point.prompt_tokens + point.new_tokens for point in POINTS) + 64


def prompts(point: Point, seed: str) -> list[list[int]]:
    """Random token ids, the same for every contender; no two prompts share a prefix."""
    rng = random.Random(f"{point.name} {seed}")
    return [rng.choices(TOKEN_IDS, k=point.prompt_tokens) for _ in range(point.streams)]


def rate(point: Point, sent: float, times: Times) -> float | None:
    """Tokens per second at this point; None where no instant had every stream decoding."""
    if point.measures == "prefill":
        return prefill_rate(point.streams * point.prompt_tokens, sent, times)
    return decode_rate(times)


def decode_rate(times: Times) -> float | None:
    """Tokens/s while every stream decodes: after the last stream's first token, until the first end.

    Engines that prefill one prompt while others already decode are not charged for it, and those
    whose streams end one after the other are not credited with a smaller batch.
    """
    start, end = max(stream[0] for stream in times), min(stream[-1] for stream in times)
    if end <= start:
        return None
    return sum(start < instant <= end for stream in times for instant in stream) / (end - start)


def prefill_rate(tokens: int, sent: float, times: Times) -> float:
    """Prompt tokens/s from sending until every stream has its first token."""
    return tokens / (max(stream[0] for stream in times) - sent)
