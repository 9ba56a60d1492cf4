"""What crosses the wire, as pydantic models: the one source of validation and of /openapi.json.

Requests are strict (a string is never read as a number) and closed (an unknown field is an error).
A known option that is not implemented is declared with `Only`, which accepts null and the values
that ask for nothing, and refuses the rest by name (law 9).
"""
