"""The request fields that chat and text completions share."""

from typing import Annotated

from pydantic import Field

from salver.gateway.wire.fields import (
    MAX_STOP_TOKENS,
    Alternatives,
    LogitBias,
    Only,
    Stop,
    TokenId,
    WireModel,
)


class StreamOptions(WireModel):
    """Options of a streamed answer."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = Field(
        None, description="vLLM's: with `include_usage`, every event says the usage so far."
    )
    include_obfuscation: Annotated[object, Only(False)] = None


class NotImplementedOptions(WireModel):
    """Options of OpenAI's and vLLM's APIs that have no effect at their default and are refused else."""

    best_of: Annotated[object, Only(1)] = None
    store: Annotated[object, Only(False)] = None
    metadata: Annotated[object, Only({})] = None
    service_tier: Annotated[object, Only("auto", "default")] = None
    response_format: Annotated[object, Only({"type": "text"})] = None
    use_beam_search: Annotated[object, Only(False)] = None
    length_penalty: Annotated[object, Only(1.0)] = None
    spaces_between_special_tokens: Annotated[object, Only(True)] = None
    truncate_prompt_tokens: Annotated[object, Only()] = None
    allowed_token_ids: Annotated[object, Only()] = None
    bad_words: Annotated[object, Only([])] = None
    priority: Annotated[object, Only(0)] = None


class SamplingFields(NotImplementedOptions):
    """How tokens are chosen and how the answer is returned. A null stands for the default."""

    model: str = Field(description="The served model's name, as /v1/models lists it.")
    n: Annotated[int, Field(ge=1)] | None = Field(None, description="Choices per prompt; 1.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = Field(
        None, description="Accepted for compatibility: names your end user, changes nothing."
    )
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(None, description="Default 1.")
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = Field(None, description="0 and -1 are off.")
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    logit_bias: LogitBias | None = Field(None, description="Token id to added logit.")
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    stop: Stop | None = None
    stop_token_ids: (
        Annotated[list[TokenId], Field(fail_fast=True, max_length=MAX_STOP_TOKENS)] | None
    ) = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = Field(None, description="Default true.")
    prompt_logprobs: Alternatives | None = Field(None, description="Not with `stream`.")
    add_special_tokens: bool | None = Field(
        None, description="Default true for text prompts, false for chat."
    )
