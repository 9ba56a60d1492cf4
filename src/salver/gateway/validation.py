"""pydantic's findings as our errors: the first fault, by field, and how many more there are."""

from collections.abc import Mapping, Sequence

from salver.errors import InvalidValue, RequestError, UnsupportedField

_MALFORMED = (
    "_type",
    "_parsing",
    "missing",
    "invalid_key",
    "union_tag_invalid",
    "union_tag_not_found",
)
_UNKNOWN = "extra_forbidden"
_UNSUPPORTED = ("unsupported_option", "literal_error")


def from_findings(findings: Sequence[Mapping[str, object]], body: object) -> RequestError:
    """One RequestError for a body that its model did not accept.

    An unknown or unimplemented field is UnsupportedField, a wrong or missing type RequestError
    (both 400), a right type with a wrong value InvalidValue (422).
    """
    finding = findings[0]
    kind, problem = str(finding["type"]), str(finding["msg"])
    param = _param(finding["loc"], body, missing=kind == "missing")
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    text = f"{param or 'body'}: {_lower(problem)}{more}"
    if kind == _UNKNOWN:
        return UnsupportedField(
            f"{param}: no such field{more}",
            param=param,
            rule="request.unknown_field",
            fix="remove it, or check its spelling against /docs",
        )
    error = _class_of(kind)
    return error(
        text, param=param, rule=f"request.{kind}", value=finding.get("input"), limit=_limit(finding)
    )


def _class_of(kind: str) -> type[RequestError]:
    if kind in _UNSUPPORTED:
        return UnsupportedField
    return RequestError if kind.endswith(_MALFORMED) else InvalidValue


def _limit(finding: Mapping[str, object]) -> object:
    """The bound among the finding's context, if it has one."""
    context = finding.get("ctx")
    if not isinstance(context, Mapping):
        return None
    bounds = ("ge", "gt", "le", "lt", "max_length", "min_length", "pattern", "expected")
    return next((context[name] for name in bounds if name in context), None)


def _param(location: object, body: object, *, missing: bool) -> str | None:
    """`messages[0].content` from pydantic's location, whose union tags are no part of the body."""
    path = ""
    here = body
    parts = list(location)[1:] if isinstance(location, tuple) else []
    for position, part in enumerate(parts):
        if isinstance(part, int) and isinstance(here, list):
            path += f"[{part}]"
            here = here[part] if part < len(here) else None
        elif isinstance(here, dict) and (part in here or (missing and position == len(parts) - 1)):
            path += f".{part}" if path else str(part)
            here = here.get(part)
    return path[:128] or None


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
