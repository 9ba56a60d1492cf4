"""The fakes that tests, docs and users need: small, public and exact."""

from salver.testing.fake_backend import FakeBackend
from salver.testing.fake_runner import FakeRunner
from salver.testing.fault_proxy import Fault, FaultKind, FaultProxy
from salver.testing.letter_decoder import LetterDecoder
from salver.testing.manual_clock import ManualClock
from salver.testing.timed_runner import TimedRunner

__all__ = [
    "FakeBackend",
    "FakeRunner",
    "Fault",
    "FaultKind",
    "FaultProxy",
    "LetterDecoder",
    "ManualClock",
    "TimedRunner",
]
