"""One random stream per part, so that changing one part of a mix leaves the others as they were.

A stream's key is a path of names (`chat`, `arrivals`), not the order in which streams were made:
adding a flow, or a draw in one part, moves no other part. (NumPy, `SeedSequence`, after M. O'Neill,
"Developing a seed_seq Alternative".) Streams are stable for one version of NumPy (NEP 19).
"""

from hashlib import sha256

import numpy as np


def stream(seed: int, *path: str | int) -> np.random.Generator:
    """The generator that belongs to this path of names and numbers under this seed."""
    key = tuple(word for name in path for word in _words(name))
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=key))


def _words(name: str | int) -> tuple[int, ...]:
    """64 bits of a name's hash as two words; numbers and texts never share one."""
    digest = sha256(f"{type(name).__name__}:{name}".encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")
