"""Exceptions that cross the process boundary keep their class, so that they keep their exit code."""

from salver.errors import (
    BackendUnavailable,
    DoesNotFit,
    FetchError,
    IntegrityError,
    InvalidValue,
    MalformedModel,
    SalverError,
    TooLarge,
    UnsupportedField,
)
from salver.worker.frames import ErrorReport

KINDS: dict[str, type[SalverError]] = {
    kind.__name__: kind
    for kind in (
        DoesNotFit,
        FetchError,
        IntegrityError,
        InvalidValue,
        MalformedModel,
        TooLarge,
        UnsupportedField,
    )
}


def describe(error: Exception) -> ErrorReport:
    """The exception as plain data."""
    kind = type(error).__name__
    if not isinstance(error, SalverError):
        return ErrorReport(kind, f"{kind}: {error}")
    value, limit = _scalar(error.value), _scalar(error.limit)
    return ErrorReport(kind, error.problem, error.rule, value, limit, error.fix)


def revive(report: ErrorReport) -> SalverError:
    """The exception again; one of a class that has no business here becomes BackendUnavailable."""
    kind = KINDS.get(report.kind, BackendUnavailable)
    return kind(
        report.problem,
        rule=report.rule,
        value=report.value,
        limit=report.limit,
        fix=report.fix,
    )


def _scalar(value: object) -> int | float | str | None:
    return value if value is None or isinstance(value, int | float | str) else str(value)
