"""The machine that the numbers belong to: what it is, how fast it reads and multiplies.

Both are measured through the native core, as `salver doctor` does, on all cores: once for the reader,
and right before a contender runs for what it is held against, since a machine changes its speed.
"""

from dataclasses import dataclass, field

from quiet import Quiet
from workload import Point

from salver.cli.machine import Machine, this_machine
from salver.engine.runners.choice import native_is_built

Rates = dict[str, float]

PRODUCTS = {"bf16": "bf16", "8-bit": "int8", "4-bit": "int8"}  # what is multiplied, by weights


@dataclass(frozen=True)
class Measured:
    """`bandwidth` in bytes/s from memory; `reading` the same over a buffer as large as a format's
    weights, by format; `products` in operations/s, by the type multiplied (`int8`, `bf16`).

    Without the native core nothing is measured: zero, and empty.
    """

    machine: Machine
    bandwidth: float = 0.0
    reading: Rates = field(default_factory=dict)
    products: Rates = field(default_factory=dict)

    def lines(self) -> list[str]:
        machine = self.machine
        reading = ", ".join(f"{rate / 1e9:.1f} over {each}" for each, rate in self.reading.items())
        products = ", ".join(f"{each} {rate / 1e9:,.0f}" for each, rate in self.products.items())
        return [
            f"{machine.cpu}, {machine.cores} cores, {' '.join(machine.isa)}",
            f"when it began: read bandwidth {self.bandwidth / 1e9:.1f} GB/s from memory; over a buffer as large as "
            f"the weights that a token meets: {reading or 'not measured'}",
            f"products in Gop/s: {products or 'not measured: this build has no native core'}",
        ]


@dataclass(frozen=True)
class Gauge:
    """What the machine allows right now. `sizes` are the bytes that each format's weights take, of those
    that one token meets; `operations` are those of a prompt's token."""

    sizes: Rates
    operations: float

    def most(self, point: Point, weights: str) -> float | None:
        """Tokens/s at most: what reading the weights allows one stream, what multiplying allows eight
        prompts. None at other points, or where that cannot be measured."""
        if not native_is_built():
            return None
        from salver.engine.runners.rates import matrix_rate, read_rate

        cores = this_machine().cores
        if point.name == "decode_1":
            return read_rate(cores, int(self.sizes[weights])) / self.sizes[weights]
        if point.name == "prefill_8x128" and weights in PRODUCTS:
            return matrix_rate(PRODUCTS[weights], cores) / self.operations
        return None


def measure(quiet: Quiet, weights: dict[str, float]) -> Measured:
    """Measure when nobody else computes, as far as `quiet` can wait for that.

    `weights` are the bytes that each format's weights take, of those that one token meets.
    """
    machine = this_machine()
    if not native_is_built():
        return Measured(machine)
    from salver.engine.runners.rates import matrix_rate, read_rate

    quiet.wait()
    return Measured(
        machine,
        read_rate(machine.cores),
        {each: read_rate(machine.cores, int(size)) for each, size in weights.items()},
        {each: matrix_rate(each, machine.cores) for each in ("int8", "bf16")},
    )
