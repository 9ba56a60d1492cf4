"""The building blocks of request and response models."""

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Tag,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

MAX_LOGPROBS = 20
MAX_STOPS = 16
MAX_STOP_CHARS = 512
MAX_LOGIT_BIASES = 1024
MAX_STOP_TOKENS = 1024


class WireModel(BaseModel):
    """A JSON object whose every field is known."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Only:
    """Annotates a known option that is not implemented: null or one of `defaults`, else refused."""

    def __init__(self, *defaults: object) -> None:
        self._defaults = defaults

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {
            "enum": [*self._defaults, None],
            "description": "Not implemented: only a value that asks for nothing is accepted.",
        }

    def _check(self, value: object) -> object:
        if value is None or any(_same(value, default) for default in self._defaults):
            return value
        raise PydanticCustomError("unsupported_option", "this option is not implemented")


def _same(value: object, default: object) -> bool:
    """Equal as JSON: 1 and 1.0 are, 1 and true are not."""
    return value == default and isinstance(value, bool) == isinstance(default, bool)


def _shape(value: object) -> str:
    """Which reading of a `prompt` or `stop` applies, so that an error speaks of that one alone."""
    if isinstance(value, str):
        return "text"
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, str):
        return "texts"
    return "batch" if isinstance(first, list) else "ids"


TokenId = Annotated[int, Field(ge=0)]
TokenIds = Annotated[list[TokenId], Field(fail_fast=True)]
Prompt = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[list[str], Tag("texts"), Field(fail_fast=True)]
    | Annotated[TokenIds, Tag("ids")]
    | Annotated[list[TokenIds], Tag("batch"), Field(fail_fast=True)],
    Discriminator(_shape),
]
StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
Stop = Annotated[
    Annotated[StopText, Tag("text")]
    | Annotated[list[StopText], Tag("texts"), Field(fail_fast=True, max_length=MAX_STOPS)],
    Discriminator(lambda value: "text" if isinstance(value, str) else "texts"),
]
LogitBias = Annotated[
    dict[
        Annotated[str, Field(pattern=r"^[0-9]{1,9}$")],
        Annotated[float, Field(ge=-100, le=100)],
    ],
    Field(max_length=MAX_LOGIT_BIASES),
]
Alternatives = Annotated[int, Field(ge=0, le=MAX_LOGPROBS)]
FinishWord = Literal["stop", "length"]
