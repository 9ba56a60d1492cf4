"""Other servers that a deployment may use, and what happens when they fail.

Where a server is and how it is treated changes no token that a release promises, so none of it is
part of the release.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from salver.contract.policy import Name, Text
from salver.contract.quantities import Duration, Fraction
from salver.contract.release import Count
from salver.contract.section import Section


class PromptForm(StrEnum):
    """What an upstream is sent."""

    TOKENS = "tokens"
    MESSAGES = "messages"


class FallbackStep(Section):
    """One thing to try when the release cannot answer: another server or a fixed text."""

    backend: Name | None = Field(
        default=None, description="A server named under backends.", examples=["upstream-small"]
    )
    static: Text | None = Field(
        default=None, description="A fixed answer.", examples=["Busy, please retry."]
    )


class UpstreamBackend(Section):
    """Another server this deployment may use."""

    name: Name = Field(
        description="The name used under served_by and fallback.", examples=["upstream-small"]
    )
    openai: Annotated[str, Field(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$", max_length=1024)] = (
        Field(
            description="Base URL of its OpenAI-compatible API.",
            examples=["http://127.0.0.1:8001/v1"],
        )
    )
    model: Text = Field(description="The model to ask it for.", examples=["small"])
    prompts: PromptForm = Field(
        default=PromptForm.TOKENS,
        description="`tokens` sends the token ids of the release's tokenizer, for a server that "
        "serves the same model; `messages` sends the conversation as the caller wrote it.",
        examples=["tokens"],
    )
    max_tokens_in_flight: Count | None = Field(
        default=None,
        description="The most that its requests in flight may use, prompts and outputs together; "
        "if absent, what its metrics say its KV pool holds, and 65536 where they do not say.",
        examples=[65536],
    )
    bearer_variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")] | None = (
        Field(
            default=None,
            description="The environment variable with the key to send it; none is sent if absent.",
            examples=["VLLM_API_KEY"],
        )
    )


class Upstreams(Section):
    """When to retry, to leave a server alone, and to believe that it hangs."""

    retries: Annotated[Fraction, Field(le=0.5)] = Field(
        default=0.1,
        description="Retries as a share of the requests, at most; never after a byte was sent.",
        examples=["10%"],
        json_schema_extra={"default": "10%"},
    )
    hedging: Literal["off"] = Field(
        default="off",
        description="Whether a slow request is sent a second time elsewhere.",
        examples=["off"],
    )
    breaker_failures: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=5,
        description="Failures in a row after which a server is left alone.",
        examples=[5],
    )
    breaker_wait: Duration = Field(
        default=2.0,
        description="How long, before one request tries it; doubles with each failed trial, to 30s.",
        examples=["2s"],
        json_schema_extra={"default": "2s"},
    )
    connect_within: Duration = Field(
        default=2.0,
        description="A connection that takes longer has failed.",
        examples=["2s"],
        json_schema_extra={"default": "2s"},
    )
    silent_after: Duration = Field(
        default=30.0,
        description="A server that sends no byte for so long while requests await one hangs; a "
        "caller that does not read on for so long is given up.",
        examples=["30s"],
        json_schema_extra={"default": "30s"},
    )
