"""Whether a token is a request's last."""

from dataclasses import dataclass

from salver.contract import FinishReason
from salver.engine.request import Request


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a new token means: the text that became final and, at the end, why and what matched."""

    text: str
    reason: FinishReason | None = None
    matched: str | int | None = None


def judge(request: Request, token_id: int, eos_token_ids: frozenset[int]) -> Verdict:
    """Hand the output's newest token to the request's text, and see whether it ends the request."""
    params = request.params
    may_stop = len(request.output) >= params.min_tokens
    is_eos = token_id in eos_token_ids and not params.ignore_eos
    if may_stop and (is_eos or token_id in params.stop_token_ids):
        kept = request.text.push(token_id, may_stop=False) if params.include_stop else ""
        matched = None if is_eos else token_id
        return Verdict(kept + request.text.finish(), FinishReason.STOP, matched)
    text = request.text.push(token_id, may_stop=may_stop)
    if request.text.matched is not None:
        return Verdict(text, FinishReason.STOP, request.text.matched)
    if len(request.output) >= params.max_tokens:
        return Verdict(text + request.text.finish(), FinishReason.LENGTH)
    return Verdict(text)
