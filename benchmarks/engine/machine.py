"""The machine that the numbers belong to: what it is, how fast it reads and multiplies."""

import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from quiet import Quiet

from salver.cli.machine import Machine, read_bandwidth, this_machine

_SIDE = 2048
_TRIES = 5


@dataclass(frozen=True)
class Measured:
    """`bandwidth` in bytes/s read on all cores; `matrix_rate` in float32 operations/s, NumPy's."""

    machine: Machine
    bandwidth: float
    matrix_rate: float

    def lines(self) -> list[str]:
        machine = self.machine
        return [
            f"{machine.cpu}, {machine.cores} cores, {' '.join(machine.isa)}",
            f"read bandwidth {self.bandwidth / 1e9:.1f} GB/s, "
            f"float32 matrix rate {self.matrix_rate / 1e9:.0f} GFLOP/s (NumPy), both on all cores",
        ]

    def at_best(self, other: "Measured") -> "Measured":
        """The higher of two measurements of each rate: whatever disturbs one only lowers it."""
        return replace(
            self,
            bandwidth=max(self.bandwidth, other.bandwidth),
            matrix_rate=max(self.matrix_rate, other.matrix_rate),
        )


def measure(quiet: Quiet) -> Measured:
    """Measure when nobody else computes, as far as `quiet` can wait for that."""
    quiet.wait()
    machine = this_machine()
    return Measured(machine, read_bandwidth(machine), _matrix_rate())


def _matrix_rate() -> float:
    """Best of a few products of two square matrices; a multiply and an add are two operations."""
    matrix = np.ones((_SIDE, _SIDE), np.float32)
    return max(2 * _SIDE**3 / _seconds(matrix) for _ in range(_TRIES))


def _seconds(matrix: NDArray[np.float32]) -> float:
    began = time.perf_counter()
    np.matmul(matrix, matrix)
    return time.perf_counter() - began
