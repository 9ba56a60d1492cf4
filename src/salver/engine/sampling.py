"""From one row of logits to one token: pure functions, float64, the same everywhere.

The order is fixed (see `SamplingParams`): logit bias, bans, penalties, temperature, top-k, top-p,
min-p, draw. Where two tokens are equally likely the lower id goes first, in every step of it.

The draw is a documented function of (`seed`, number of tokens drawn before) and keeps no state: one
uniform number from a counter-based hash, then the inverse of the cumulative distribution over the
kept tokens in order of id. So it depends neither on the batch nor on a preemption in between, and
another implementation can repeat it. The rejected alternative, a generator per request, would have
to be saved, moved and rewound together with the request.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from salver.contract import SamplingParams, TokenLogprobs
from salver.engine.plan import SampleSpec
from salver.errors import BackendError

Row = NDArray[np.float32]
Weights = NDArray[np.float64]
TokenIds = NDArray[np.intp]

_MASK = 2**64 - 1
_LARGEST = 1e300  # keeps a logit divided by a tiny penalty finite


def sample(logits: Row, spec: SampleSpec) -> TokenLogprobs:
    """Choose the next token from `logits` [vocab_size].

    `logprob` and `top` are of the raw distribution, and left out unless the params ask for them.

    Raises:
        BackendError: a logit is not finite (`sampling.finite_logits`), or the bans leave no token
            (`sampling.some_token_allowed`).
    """
    token_id = _choose(processed_logits(logits, spec), spec)
    if spec.params.logprobs is None:
        return TokenLogprobs(token_id, 0.0)
    return token_logprobs(logits, token_id, spec.params.logprobs)


def token_logprobs(logits: Row, token_id: int, num_top: int) -> TokenLogprobs:
    """The raw log-probability of `token_id` and of the `num_top` likeliest tokens, likeliest first.

    Raises:
        BackendError: a logit is not finite.
    """
    logprobs = log_softmax(logits)
    top = likeliest(logprobs, num_top)
    return TokenLogprobs(
        token_id, float(logprobs[token_id]), tuple((int(i), float(logprobs[i])) for i in top)
    )


def log_softmax(logits: Row) -> Weights:
    """Natural-log probabilities of `logits` [vocab_size]."""
    _require_finite(logits)
    shifted = logits.astype(np.float64) - float(logits.max())
    return shifted - float(np.log(np.exp(shifted).sum()))


def processed_logits(logits: Row, spec: SampleSpec) -> Weights:
    """`logits` after bias, bans and penalties, before temperature. A banned token is at -inf.

    Ids outside the vocabulary have no logit and are passed over.
    """
    _require_finite(logits)
    values = logits.astype(np.float64)
    for token_id, bias in spec.params.logit_bias.items():
        if 0 <= token_id < len(values):
            values[token_id] += bias
    values[in_vocabulary(spec.banned, len(values))] = -np.inf
    _penalize(values, spec)
    if np.isneginf(values.max()):
        raise BackendError(
            "every token of the vocabulary is banned",
            rule="sampling.some_token_allowed",
            value=len(values),
            fix="ask for fewer stop_token_ids, or leave min_tokens at 0",
        )
    return values


def _penalize(values: Weights, spec: SampleSpec) -> None:
    """Repetition (CTRL, arXiv 1909.05858) over prompt and output, the others over the output."""
    params, size = spec.params, len(values)
    if params.repetition_penalty != 1.0:
        seen = np.union1d(in_vocabulary(spec.prompt, size), in_vocabulary(spec.output, size))
        old = values[seen]
        with np.errstate(over="ignore"):
            new = np.where(
                old > 0, old / params.repetition_penalty, old * params.repetition_penalty
            )
        values[seen] = np.minimum(new, _LARGEST)
    if params.presence_penalty or params.frequency_penalty:
        drawn, counts = np.unique(in_vocabulary(spec.output, size), return_counts=True)
        values[drawn] -= params.presence_penalty + params.frequency_penalty * counts


def _choose(values: Weights, spec: SampleSpec) -> int:
    if spec.params.temperature == 0:
        return int(values.argmax())
    cumulative = np.cumsum(draw_weights(values, spec.params))
    total = cumulative[-1]
    drawn = np.searchsorted(cumulative, uniform(spec.seed, len(spec.output)) * total, side="right")
    last = np.searchsorted(cumulative, total)  # should the product round up to the total
    return int(min(drawn, last))


def draw_weights(values: Weights, params: SamplingParams) -> Weights:
    """Weights proportional to each token's probability of being drawn; 0 where a filter drops it.

    `values` are processed logits; temperature must not be 0. The likeliest token always stays and
    has weight 1. Top-p applies to what top-k kept, min-p to what top-p kept.
    """
    with np.errstate(over="ignore"):  # a tiny temperature sends the rest to weight 0
        scaled = (values - values.max()) / params.temperature
    weights: Weights = np.exp(scaled)
    if params.top_k:
        weights = _only(likeliest(scaled, params.top_k), weights)
    if params.top_p < 1:
        weights = _only(_nucleus(weights, params.top_p), weights)
    if params.min_p > 0:
        weights[weights < params.min_p] = 0.0
    return weights


def _only(kept: TokenIds, weights: Weights) -> Weights:
    """`weights` with everything but `kept` at 0."""
    left = np.zeros_like(weights)
    left[kept] = weights[kept]
    return left


def _nucleus(weights: Weights, top_p: float) -> TokenIds:
    """The fewest tokens, likeliest first, that hold at least `top_p` of the weight.

    Tokens below (1 - top_p) / n of the total cannot be among them, even all together, so they are
    left out before sorting: a vocabulary has a long tail.
    """
    total = float(weights.sum())
    ids = np.flatnonzero(weights >= (1 - top_p) / len(weights) * total)
    ids = ids[np.lexsort((ids, -weights[ids]))]
    reached = np.searchsorted(np.cumsum(weights[ids]), top_p * total, side="left")
    return ids[: reached + 1]


def likeliest(values: Weights, count: int) -> TokenIds:
    """Ids of the `count` largest values, largest first, the lower id first where equal."""
    if count == 0:
        return np.arange(0)
    count = min(count, len(values))
    bound = np.partition(values, len(values) - count)[len(values) - count]
    candidates = np.flatnonzero(values >= bound)
    return candidates[np.lexsort((candidates, -values[candidates]))][:count]


def uniform(seed: int, index: int) -> float:
    """The number in [0, 1) for draw `index` of `seed`: 53 bits of a hash of the two.

    splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014) applied to
    the seed, then to that xor the index; the top 53 bits times 2**-53.
    """
    return (splitmix64(splitmix64(seed & _MASK) ^ index) >> 11) * 2.0**-53


def splitmix64(state: int) -> int:
    """One output of the generator from a 64-bit state."""
    z = (state + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def in_vocabulary(token_ids: Sequence[int] | Iterable[int], size: int) -> TokenIds:
    """Those of `token_ids` that are in [0, size)."""
    ids = np.fromiter(token_ids, np.int64)
    return ids[(ids >= 0) & (ids < size)]


def _require_finite(logits: Row) -> None:
    if not np.isfinite(logits).all():
        raise BackendError(
            "the model's logits are not finite",
            rule="sampling.finite_logits",
            value=int(np.count_nonzero(~np.isfinite(logits))),
            fix="check the model file: its weights are damaged or overflow float32",
        )
