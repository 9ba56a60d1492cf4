"""What an answer cost, and what the model thought of the prompt."""

from salver.gateway.wire.fields import WireModel


class PromptTokensDetails(WireModel):
    """`cached_tokens` of the prompt were found in the prefix cache."""

    cached_tokens: int


class Usage(WireModel):
    """Token counts over all prompts and choices of one call; a prompt counts once.

    `prompt_tokens_details` is null in the events of a stream before its last.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails | None


class PromptLogprob(WireModel):
    """vLLM's shape. `rank` is 1 for the likeliest token, null when not among the alternatives."""

    logprob: float
    rank: int | None
    decoded_token: str


PromptLogprobs = list[dict[str, PromptLogprob] | None]
