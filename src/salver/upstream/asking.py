"""From a GenerateRequest to the body of an OpenAI call.

What shapes every draw is always sent, since servers' own defaults differ: llama.cpp has a top-k of
40, and vLLM takes the model publisher's. Of the rest only what was asked for is sent, so that a
server which lacks an extension is troubled with it by those alone who want it.
"""

from dataclasses import fields

import msgspec

from salver.contract import GenerateRequest, PromptForm, SamplingParams
from salver.errors import UnsupportedField
from salver.upstream.address import Address

_SENT_AS = {
    "min_tokens": "min_tokens",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repetition_penalty",
    "stop": "stop",
    "stop_token_ids": "stop_token_ids",
    "include_stop": "include_stop_str_in_output",
    "ignore_eos": "ignore_eos",
    "skip_special_tokens": "skip_special_tokens",
}
_ALWAYS = {"top_k", "top_p", "min_p", "repetition_penalty"}
_DEFAULTS = {each.name: each.default for each in fields(SamplingParams)}


def body_of(request: GenerateRequest, address: Address, *, salted: bool) -> bytes:
    """The JSON body of a streamed call; `salted` where the server knows vLLM's `cache_salt`.

    Raises:
        UnsupportedField: see `check_supported`.
    """
    check_supported(request, address)
    params = request.sampling
    body: dict[str, object] = {
        "model": address.model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": params.max_tokens,
        "temperature": params.temperature,
        "seed": params.seed >> 1,  # vLLM takes 63 bits
        "n": request.n,
        **{_SENT_AS[name]: value for name, value in _set(params)},
    }
    if params.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in params.logit_bias.items()}
    if salted and request.cache_salt:
        body["cache_salt"] = request.cache_salt
    if address.form is PromptForm.TOKENS:
        body["prompt"] = request.prompt_token_ids
    else:
        body["messages"] = msgspec.Raw(request.messages)
    return msgspec.json.encode(body)


def _set(params: SamplingParams) -> list[tuple[str, object]]:
    values = ((name, getattr(params, name)) for name in _SENT_AS)
    return [(name, each) for name, each in values if name in _ALWAYS or each != _DEFAULTS[name]]


def check_supported(request: GenerateRequest, address: Address) -> None:
    """Whether the server can be asked for it at all; nobody has to be troubled to know.

    Raises:
        UnsupportedField: log-probabilities, whose token ids the protocol does not carry; or token
            ids, or no conversation, for a server that is sent conversations.
    """
    params = request.sampling
    if params.logprobs is not None or params.prompt_logprobs is not None:
        raise UnsupportedField(
            "logprobs: another server computes the answer, and does not tell token ids",
            param="logprobs",
            rule="upstream.logprobs",
            fix="leave logprobs and prompt_logprobs out",
        )
    by_id = params.logit_bias or params.stop_token_ids
    if address.form is PromptForm.MESSAGES and (by_id or not request.messages):
        raise UnsupportedField(
            f"the server {address.name!r} has a tokenizer of its own: it takes conversations "
            "without tools, and no token ids",
            rule="upstream.prompts",
            value=address.form.value,
            fix="use /v1/chat/completions without tools, logit_bias and stop_token_ids",
        )
