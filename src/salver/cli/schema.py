"""`salver schema`: the JSON Schema of a contract."""

from typing import Annotated

import typer

from salver.cli import console


def schema(
    as_json: Annotated[bool, typer.Option("--json", help="It is JSON either way.")] = False,
) -> None:
    """Print the JSON Schema of a contract, for editors."""
    from salver.contract.schema import json_schema

    console.say_json(json_schema())
