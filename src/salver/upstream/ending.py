"""What the end of a call says of the server that it was sent to.

A call ends with an answer or with a SalverError. Most errors say it by their kind; those that a
server's back-pressure and a passed deadline lead to are refusals like any other to the caller, and
have a kind of their own here.
"""

from enum import StrEnum

from salver.errors import BackendError, Refused, SalverError, UnsupportedField


class Ending(StrEnum):
    """Of the server: it is there, it failed, or nothing."""

    ANSWERED = "answered"  # it is there: with an answer, or with a refusal of this request
    FAILED = "failed"  # it cannot be reached, broke, hangs, or cannot answer anybody
    UNKNOWN = "unknown"  # the request never went out, or its deadline passed


class Busy(Refused):
    """The server is there and takes no more for now; another one may."""


class OutOfTime(Refused):
    """The request's deadline passed."""


def ending_of(error: SalverError) -> Ending:
    """What a call says of its server that ended with this error."""
    match error:
        case BackendError():
            return Ending.FAILED
        case OutOfTime() | UnsupportedField():
            return Ending.UNKNOWN
    return Ending.ANSWERED
