"""How a command ends, as a number that scripts can rely on."""

from enum import IntEnum

from salver.errors import (
    BackendError,
    ContractError,
    DoesNotFit,
    FetchError,
    IntegrityError,
    RequestError,
    SalverError,
    StateUnavailable,
    UnsupportedModel,
)


class Exit(IntEnum):
    """The exit codes."""

    DONE = 0
    FAILED = 1
    USAGE = 2  # contract or usage error
    DOES_NOT_FIT = 3  # this machine
    INTEGRITY = 4
    GATE_FAILED = 5
    UNREACHABLE = 6  # could not reach a server
    INTERRUPTED = 130


_BY_ERROR: tuple[tuple[type[SalverError], Exit], ...] = (
    (ContractError, Exit.USAGE),
    (RequestError, Exit.USAGE),
    (DoesNotFit, Exit.DOES_NOT_FIT),
    (UnsupportedModel, Exit.USAGE),
    (IntegrityError, Exit.INTEGRITY),
    (FetchError, Exit.UNREACHABLE),
    (BackendError, Exit.UNREACHABLE),
    (StateUnavailable, Exit.UNREACHABLE),
)


def exit_for(error: SalverError) -> Exit:
    """The code of the error's class, or of the nearest one above it in the tree of `errors`."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), Exit.FAILED)
