"""One thing wrong with a contract, told so that it can be mended."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """`path` is dotted from the top of the file (`release.envelope.memory`); `value` as written.

    `line` counts from 1; None where the fault has no place in a file.
    """

    path: str
    value: str
    rule: str
    fix: str
    line: int | None = None
