"""/v1/chat/completions, in and out."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, JsonValue, Tag

from salver.gateway.wire.fields import Alternatives, FinishWord, Only, WireModel
from salver.gateway.wire.sampling import SamplingFields
from salver.gateway.wire.usage import PromptLogprobs, Usage


class TextPart(WireModel):
    """A part of a message. Text is the only kind served."""

    type: Literal["text"]
    text: str


Content = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[TextPart], Tag("parts"), Field(fail_fast=True)],
    Discriminator(lambda value: "text" if isinstance(value, str) else "parts"),
]


class FunctionCall(WireModel):
    """A call the model made earlier; `arguments` is JSON text."""

    name: str
    arguments: str


class ToolCall(WireModel):
    id: str
    type: Literal["function"]
    function: FunctionCall


class SystemMessage(WireModel):
    role: Literal["system", "developer"]
    content: Content
    name: str | None = None


class UserMessage(WireModel):
    role: Literal["user"]
    content: Content
    name: str | None = None


class AssistantMessage(WireModel):
    role: Literal["assistant"]
    content: Content | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    refusal: Annotated[object, Only()] = None
    audio: Annotated[object, Only()] = None
    function_call: Annotated[object, Only()] = None
    annotations: Annotated[object, Only([])] = None


class ToolMessage(WireModel):
    role: Literal["tool"]
    content: Content
    tool_call_id: str


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]
Messages = Annotated[list[Message], Field(fail_fast=True, min_length=1)]


class FunctionSpec(WireModel):
    name: str
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None
    strict: Annotated[object, Only(False)] = None


class Tool(WireModel):
    type: Literal["function"]
    function: FunctionSpec


class ChatCompletionRequest(SamplingFields):
    """A chat. Tools are shown to the model only with `tool_choice: "none"`; see docs."""

    messages: Messages
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Alternatives | None = None
    add_generation_prompt: bool | None = Field(None, description="Default true.")
    tools: list[Tool] | None = Field(
        None,
        description="Rendered into the prompt by the model's chat template. Tool calls are not "
        'parsed from the answer, so `tool_choice` must be "none" beside it.',
    )
    tool_choice: Annotated[object, Only("none", "auto")] = None
    parallel_tool_calls: Annotated[object, Only(True)] = None
    functions: Annotated[object, Only([])] = None
    function_call: Annotated[object, Only("none")] = None
    modalities: Annotated[object, Only(["text"])] = None
    audio: Annotated[object, Only()] = None
    prediction: Annotated[object, Only()] = None
    reasoning_effort: Annotated[object, Only()] = None
    verbosity: Annotated[object, Only()] = None
    web_search_options: Annotated[object, Only()] = None
    echo: Annotated[object, Only(False)] = None
    continue_final_message: Annotated[object, Only(False)] = None
    documents: Annotated[object, Only([])] = None
    chat_template: Annotated[object, Only()] = None
    chat_template_kwargs: Annotated[object, Only({})] = None


class Alternative(WireModel):
    """`bytes` is exact; `token` replaces what is not UTF-8 by itself."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(Alternative):
    top_logprobs: list[Alternative]


class ChatLogprobs(WireModel):
    content: list[TokenLogprob]
    refusal: None = None


class AnswerMessage(WireModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(WireModel):
    """`stop_reason` is the stop string or stop token id that ended it, as vLLM gives it."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishWord
    stop_reason: str | int | None = None


class ChatCompletion(WireModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str = Field(description="The release that answered.")
    choices: list[ChatChoice]
    usage: Usage
    prompt_logprobs: PromptLogprobs | None = None


class Delta(WireModel):
    role: Literal["assistant"] | None = None
    content: str | None = None


class ChatChunkChoice(WireModel):
    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: FinishWord | None
    stop_reason: str | int | None = None


class ChatCompletionChunk(WireModel):
    """One `data:` event of a streamed chat. `usage` is there when `include_usage` asked for it."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None
