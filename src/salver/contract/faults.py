"""One thing wrong with a contract, told so that it can be mended."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """`path` is dotted from the top of the file (`release.envelope.memory`); `value` as written."""

    path: str
    value: str
    rule: str
    fix: str
