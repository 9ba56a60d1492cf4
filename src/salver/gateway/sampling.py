"""From request fields to SamplingParams: defaults filled in, bounds that need the model checked."""

from dataclasses import dataclass
from typing import TypeVar

from salver.contract import SamplingParams
from salver.errors import InvalidValue
from salver.gateway.service import Limits
from salver.gateway.wire.sampling import SamplingFields

T = TypeVar("T")


def sampling_params(
    fields: SamplingFields,
    *,
    max_tokens: int,
    seed: int,
    vocab_size: int,
    logprobs: int | None,
    prompt_logprobs: int | None,
) -> SamplingParams:
    """The params of one request; `seed` is used where the caller gave none.

    Raises:
        InvalidValue: a token id outside the vocabulary, or min_tokens over max_tokens.
    """
    min_tokens = _or(fields.min_tokens, 0)
    if min_tokens > max_tokens:
        raise InvalidValue(
            "min_tokens: more than max_tokens allows",
            param="min_tokens",
            rule="request.min_tokens",
            value=min_tokens,
            limit=max_tokens,
        )
    bias = {int(token): added for token, added in (fields.logit_bias or {}).items()}
    stop_token_ids = tuple(fields.stop_token_ids or ())
    _check_tokens(tuple(bias), vocab_size, "logit_bias")
    _check_tokens(stop_token_ids, vocab_size, "stop_token_ids")
    return SamplingParams(
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        temperature=_or(fields.temperature, 1.0),
        top_k=max(0, _or(fields.top_k, 0)),
        top_p=_or(fields.top_p, 1.0),
        min_p=_or(fields.min_p, 0.0),
        presence_penalty=_or(fields.presence_penalty, 0.0),
        frequency_penalty=_or(fields.frequency_penalty, 0.0),
        repetition_penalty=_or(fields.repetition_penalty, 1.0),
        logit_bias=bias,
        seed=_or(fields.seed, seed) % 2**64,
        stop=(fields.stop,) if isinstance(fields.stop, str) else tuple(fields.stop or ()),
        stop_token_ids=stop_token_ids,
        include_stop=_or(fields.include_stop_str_in_output, False),
        ignore_eos=_or(fields.ignore_eos, False),
        skip_special_tokens=_or(fields.skip_special_tokens, True),
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """How many tokens a caller asks for each choice, in the field `param`."""

    tokens: int
    param: str

    @classmethod
    def of(cls, value: int | None, param: str) -> "Asked | None":
        """None where the caller leaves it open."""
        return None if value is None else cls(value, param)

    def check(self, prompt_tokens: int, limits: Limits) -> None:
        """Holds it against the envelope, beside a prompt of at least so many tokens.

        Raises:
            InvalidValue: more than the envelope's output bound, or than the context has room for.
        """
        if self.tokens > limits.max_output_tokens:
            raise InvalidValue(
                f"{self.param}: over this deployment's bound on output",
                param=self.param,
                rule="envelope.max_output_tokens",
                value=self.tokens,
                limit=limits.max_output_tokens,
            )
        room = limits.max_context_tokens - prompt_tokens
        if self.tokens > room:
            raise InvalidValue(
                f"{self.param}: beside a prompt of {prompt_tokens} tokens or more, the context has "
                f"room for {room}",
                param=self.param,
                rule="envelope.max_context_tokens",
                value=prompt_tokens + self.tokens,
                limit=limits.max_context_tokens,
            )


def resolve_max_tokens(
    asked: Asked | None, *, default: int | None, prompt_tokens: int, limits: Limits
) -> int:
    """How many tokens a request may generate.

    What the caller asks for must fit and is never cut; the default is whatever fits.

    Raises:
        InvalidValue: more than the envelope's output bound, or than the context has room for.
    """
    if asked is None:
        room = limits.max_context_tokens - prompt_tokens
        return min(room, limits.max_output_tokens, default or room)
    asked.check(prompt_tokens, limits)
    return asked.tokens


def check_options(fields: SamplingFields, prompts: int, limits: Limits) -> int:
    """Bounds that span fields; returns `n`.

    Raises:
        InvalidValue: too many choices, `stream_options` without `stream`, or `prompt_logprobs`
            with it.
    """
    n = _or(fields.n, 1)
    if n * prompts > limits.max_choices:
        raise InvalidValue(
            "n: too many choices in one call",
            param="n" if n > 1 else "prompt",
            rule="gateway.max_choices",
            value=n * prompts,
            limit=limits.max_choices,
        )
    if fields.stream_options is not None and not fields.stream:
        raise _contradiction("stream_options", "only has a meaning with stream: true")
    if fields.prompt_logprobs is not None and fields.stream:
        raise _contradiction("prompt_logprobs", "cannot be streamed; leave stream out")
    return n


def _contradiction(param: str, problem: str) -> InvalidValue:
    return InvalidValue(f"{param}: {problem}", param=param, rule=f"request.{param}")


def _check_tokens(token_ids: tuple[int, ...], vocab_size: int, param: str) -> None:
    largest = max(token_ids, default=0)
    if largest >= vocab_size:
        raise InvalidValue(
            f"{param}: not a token id of this model",
            param=param,
            rule="model.vocab_size",
            value=largest,
            limit=vocab_size - 1,
        )


def _or(value: T | None, default: T) -> T:
    return default if value is None else value
