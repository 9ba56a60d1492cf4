"""Names, seeds and chance, drawn from one random source that is handed in."""

import random


class Ids:
    """Draws ids that nobody guesses with the default source, and repeatable ones with a seeded one."""

    def __init__(self, source: random.Random | None = None) -> None:
        self._source = source or random.SystemRandom()

    def call(self, prefix: str) -> str:
        """An OpenAI-like id such as `chatcmpl-` and 32 hexadecimal digits."""
        return f"{prefix}-{self._source.getrandbits(128):032x}"

    def seed(self) -> int:
        """A sampling seed for a request that gave none; 64 bits."""
        return self._source.getrandbits(64)

    def chance(self) -> float:
        """Uniform in [0, 1): spreads those who come back."""
        return self._source.random()
