"""What the end of a call says of the server that it was sent to.

A call ends with an answer or with a SalverError. Most errors say it by their kind; those that a
server's back-pressure and a passed deadline lead to are refusals like any other to the caller, and
have a kind of their own here.
"""

from enum import StrEnum

from salver.contract import Decision
from salver.errors import BackendError, BackendLost, Refused, SalverError, UnsupportedField


class Ending(StrEnum):
    """Of the server: it is there, it failed, it may have failed, or nothing."""

    ANSWERED = "answered"  # it is there: with an answer, or with a refusal of this request
    FAILED = "failed"  # it cannot be reached, broke, hangs, or cannot answer anybody
    SILENT = "silent"  # no byte came before the request's deadline
    UNKNOWN = "unknown"  # the request never went out, or its end was its caller's doing


class Busy(Refused):
    """The server is there and takes no more for now; another one may."""


class OutOfTime(Refused):
    """The request's deadline passed; `silent` where a server had it and sent no byte."""

    def __init__(self, decision: Decision, *, silent: bool = False) -> None:
        super().__init__(decision)
        self.silent = silent


class NotRead(BackendLost):
    """The caller did not read its answer on, and it was given up."""


def ending_of(error: SalverError) -> Ending:
    """What a call says of its server that ended with this error."""
    match error:
        case OutOfTime(silent=True):
            return Ending.SILENT
        case OutOfTime() | NotRead() | UnsupportedField():
            return Ending.UNKNOWN
        case BackendError():
            return Ending.FAILED
    return Ending.ANSWERED
