"""The JSON Schema of a contract, for editors and other tools.

It says what each field alone can say; rules between fields, and what each quantity means, are for
`salver check`. Empty values are refused by the reader, so the schema has no nulls either.
"""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from salver.contract.deployment import Deployment
from salver.contract.section import Section

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """A new JSON Schema document (draft 2020-12) that every valid contract satisfies."""
    schema = Deployment.model_json_schema(schema_generator=_ContractSchema)
    return {"$schema": DIALECT, **schema, "title": "Salver deployment contract"}


class _ContractSchema(GenerateJsonSchema):
    """Leaves out nulls, the defaults of whole sections, and the titles that only repeat a key."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        default = schema.get("default")
        if default is None or isinstance(default, Section):
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False
