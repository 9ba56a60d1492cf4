"""The report: markdown for people, JSON for programs, one plot, and every run as a line of JSON."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import plot
from machine import Measured
from summary import DISTURBED, Cell, Table, agreement, best, paired_ratio
from workload import Point

from salver.models import ModelConfig

BYTES_PER_WEIGHT = {"f32": 4.0, "bf16": 2.0, "8-bit": 1.0, "4-bit": 5 / 8}  # 4-bit: as Q4_1
TITLE = "Salver's engine beside its peers"


@dataclass(frozen=True)
class Entrant:
    """What is known of one contender besides its rates. `starts` are seconds to the first answer."""

    name: str
    weights: str
    ours: bool
    facts: dict[str, str | int]
    probe: list[int]
    starts: list[float]


@dataclass(frozen=True)
class Weights:
    """How many weights a token meets: in the layers, and with the head that gives its logits."""

    layers: int
    head_and_layers: int

    @classmethod
    def of(cls, config: ModelConfig) -> Self:
        table = config.vocab_size * config.hidden_size
        layers = config.num_parameters - (1 if config.tie_embeddings else 2) * table
        return cls(layers, layers + table)

    @property
    def operations(self) -> int:
        """Of a prompt's token: it meets no head."""
        return 2 * self.layers

    def sizes(self) -> dict[str, float]:
        """Bytes that a token streams, by format."""
        return {each: self.head_and_layers * size for each, size in BYTES_PER_WEIGHT.items()}


@dataclass(frozen=True)
class Report:
    """`notes` are the things that a reader must know: who is missing, what failed."""

    command: str
    machine: Measured
    model: Weights
    load_average: float
    rounds: int
    points: list[Point]
    entrants: dict[str, Entrant]
    table: Table
    notes: list[str]

    def write(self, directory: Path) -> None:
        (directory / "report.md").write_text(self.markdown())
        (directory / "report.json").write_text(json.dumps(self.record(), indent=1) + "\n")
        ours = {entrant.name for entrant in self.entrants.values() if entrant.ours}
        (directory / "report.svg").write_text(plot.svg(self.table, self.points, ours, TITLE))

    # -- markdown --------------------------------------------------------------------------------

    def markdown(self) -> str:
        machine = "\n".join(f"- {line}" for line in self.machine.lines())
        parts = [
            f"# {TITLE}",
            f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, `{self.command}`\n\n{machine}\n"
            f"- load average when it began: {self.load_average:.1f}",
            "Contenders alternate: in every round each is measured at a point in turn, with the same "
            "random token ids, the same number of greedy tokens out and end of sequence ignored; "
            f"all others are stopped meanwhile. Medians over {self.rounds} rounds.",
            "## Tokens per second\n\n" + self._rates(),
            f"Rounds in which others took over {DISTURBED:.0%} of the machine count only where there is "
            "no other; `*` marks those. `(n)`: n rounds count, because the others were disturbed, or "
            "because it is slow there. "
            "`none`: it failed or was left out (see the notes), or no instant had every stream decoding.",
            "![medians](report.svg)",
        ]
        if any(entrant.ours for entrant in self.entrants.values()):
            parts.append("## Ratios\n\n" + self._ratios())
        parts.append("## Against the machine\n\n" + self._floor())
        parts.append("## Contenders\n\n" + self._contenders())
        parts += ["## Notes\n\n" + "\n".join(f"- {note}" for note in self.notes)] * bool(self.notes)
        return "\n\n".join(parts) + "\n"

    def _rates(self) -> str:
        rows = [
            ["contender", "weights", *(point.title for point in self.points), "start to ready, s"]
        ]
        for name, entrant in self.entrants.items():
            cells = [self._rate(self.table[name][point.name]) for point in self.points]
            rows.append([name, entrant.weights, *cells, f"{min(entrant.starts):.1f}"])
        return _table(rows)

    def _rate(self, cell: Cell) -> str:
        if cell.median is None:
            return "none"
        fewer = f" ({len(cell.counting)})" if len(cell.counting) < self.rounds else ""
        return f"{cell.median:,.0f}{'*' if cell.disturbed else ''}{fewer}"

    def _ratios(self) -> str:
        """Ours over the best peer at each point: all peers first, then those of equal weights."""
        rows = [["ours", "against", *(point.title for point in self.points)]]
        for name, entrant in self.entrants.items():
            if entrant.ours:
                everyone = [other.name for other in self.entrants.values() if not other.ours]
                alike = [n for n in everyone if self.entrants[n].weights == entrant.weights]
                rows.append([name, "the best peer", *self._ratio_row(name, everyone)])
                if alike:
                    label = f"the best {entrant.weights} peer"
                    rows.append([name, label, *self._ratio_row(name, alike)])
        return _table(rows) + "\n\nMedians of ratios paired by round."

    def _ratio_row(self, name: str, peers: list[str]) -> list[str]:
        row = []
        for point in self.points:
            rival = best(self.table, point.name, peers)
            ratio = rival and paired_ratio(
                self.table[name][point.name], self.table[rival][point.name]
            )
            row.append(f"{ratio:.2f}x {rival}" if ratio else "none")
        return row

    def _floor(self) -> str:
        """Decoding one stream as bytes read, prefill as operations at two per weight and token."""
        rows = [["contender", "weights read at 1", "of the bandwidth over so many"]]
        rows[0] += ["prefill 8 x 128 computes", "of the matrix rate"]
        for name, entrant in self.entrants.items():
            decode, prefill = (
                self.table[name].get(point, Cell(())) for point in ("decode_1", "prefill_8x128")
            )
            if decode.median and prefill.median:
                read = decode.median * self.model.sizes()[entrant.weights]
                computed = prefill.median * self.model.operations
                row = [name, f"{read / 1e9:.1f} GB/s", _share(decode.share)]
                rows.append([*row, f"{computed / 1e9:,.0f} Gop/s", _share(prefill.share)])
        return (
            _table(rows)
            + "\n\nShares are of what the machine did right before the same round, and medians over rounds. "
            "Bandwidth is that over a buffer as large as the weights, which caches may hold in part. "
            "Operations are two per weight and token, against the rate of int8 "
            "(8-bit and 4-bit) or bf16; `w8a16` multiplies every weight twice, so that 50% is its most."
        )

    def _contenders(self) -> str:
        reference = next(iter(self.entrants.values())).probe
        rows = [["contender", "version", "settings", "first greedy tokens like the first row's"]]
        rows += [
            [
                name,
                str(entrant.facts["version"]),
                str(entrant.facts["settings"]).replace("|", ","),
                f"{agreement(entrant.probe, reference)} of {len(reference)}",
            ]
            for name, entrant in self.entrants.items()
        ]
        return _table(rows)

    # -- JSON ------------------------------------------------------------------------------------

    def record(self) -> dict[str, object]:
        """Rates in tokens/s per round (null: none), starts in seconds."""
        return {
            "command": self.command,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": asdict(self.machine),
            "model": asdict(self.model),
            "load_average": self.load_average,
            "entrants": {name: asdict(entrant) for name, entrant in self.entrants.items()},
            "rates": {
                name: {
                    point: {
                        "median": cell.median,
                        "rounds": [each and asdict(each) for each in cell.rounds],
                    }
                    for point, cell in cells.items()
                }
                for name, cells in self.table.items()
            },
            "notes": self.notes,
        }


def _share(share: float | None) -> str:
    return f"{share:.0%}" if share else "not measured"


def _table(rows: list[list[str]]) -> str:
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|---" * len(rows[0]) + "|", *body])
