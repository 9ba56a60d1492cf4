"""The machine that the numbers belong to: what it is, how fast it reads and multiplies.

Both are measured through the native core, as `salver doctor` does, on all cores.
"""

from dataclasses import dataclass, field, replace

from quiet import Quiet

from salver.cli.machine import Machine, this_machine
from salver.engine.runners.choice import native_is_built

Rates = dict[str, float]


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
            f"read bandwidth {self.bandwidth / 1e9:.1f} GB/s from memory; over a buffer as large as "
            f"the weights that a token meets: {reading or 'not measured'}",
            f"products in Gop/s: {products or 'not measured: this build has no native core'}",
        ]

    def at_best(self, other: "Measured") -> "Measured":
        """The higher of two measurements of each rate: whatever disturbs one only lowers it."""
        return replace(
            self,
            bandwidth=max(self.bandwidth, other.bandwidth),
            reading=_higher(self.reading, other.reading),
            products=_higher(self.products, other.products),
        )


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


def _higher(one: Rates, other: Rates) -> Rates:
    return {each: max(rate, other.get(each, rate)) for each, rate in one.items()}
