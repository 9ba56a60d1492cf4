"""Weights that are packed once and kept: a runner's second start reads what its first one made.

The runner knows what its sections mean, and whoever keeps them knows where; neither knows the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Section:
    """A named run of a runner's own memory. `data` is writable bytes, `type` that of its elements."""

    name: str
    type: str
    data: memoryview


class KeptWeights(Protocol):
    """Where the packed weights of one artifact, in one precision and layout, are kept."""

    def fill(self, sections: Sequence[Section]) -> bool:
        """Put the kept bytes into all sections, verified; False where there are none to be trusted.

        After False the sections hold anything.
        """
        ...

    def keep(self, sections: Sequence[Section]) -> None:
        """Keep what the sections hold, which nobody changes any more. Never fails the caller."""
        ...
