"""/v1/completions, in and out."""

from typing import Annotated, Literal

from pydantic import Field

from salver.gateway.wire.fields import Alternatives, FinishWord, Only, Prompt, WireModel
from salver.gateway.wire.sampling import SamplingFields
from salver.gateway.wire.usage import PromptLogprobs, Usage


class CompletionRequest(SamplingFields):
    """A text, several texts, token ids, or several lists of token ids to continue."""

    prompt: Prompt
    echo: bool | None = Field(None, description="Give the prompt back before its continuation.")
    logprobs: Alternatives | None = Field(
        None, description="Alternatives per token; with `echo`, of the prompt's tokens too."
    )
    suffix: Annotated[object, Only("")] = None


class CompletionLogprobs(WireModel):
    """Parallel lists, one entry per token. `text_offset` counts characters.

    A token that is not UTF-8 by itself is written `bytes:\\xe4\\xbd`. The first token of an echoed
    prompt has null for both log-probabilities, since nothing precedes it.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(WireModel):
    """Choices of prompt i are numbered [i * n, (i + 1) * n)."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: FinishWord
    stop_reason: str | int | None = None
    prompt_logprobs: PromptLogprobs | None = None


class Completion(WireModel):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str = Field(description="The release that answered.")
    choices: list[CompletionChoice]
    usage: Usage


class CompletionChunkChoice(WireModel):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishWord | None
    stop_reason: str | int | None = None


class CompletionChunk(WireModel):
    """One `data:` event of a streamed completion."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChunkChoice]
    usage: Usage | None = None
