"""Recorded traffic: three formats in, one list of rows out.

azure     CSV with TIMESTAMP, ContextTokens, GeneratedTokens (Azure/AzurePublicDataset)
mooncake  JSONL with timestamp (ms, on a grid of 3 s), input_length, output_length and hash_ids: one
          per 512 prompt tokens, equal where the content is equal (kvcache-ai/Mooncake)
salver    JSONL with at (s), input_tokens, output_tokens and perhaps blocks, as in mooncake; other
          keys are ignored, so that the records that `salver bench` writes are such a trace. Their
          max_tokens, what was asked for, counts before output_tokens, what came of it

A file is read whole and strictly: a line that is not of its format is a fault, never skipped.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct, json

from salver.contract import Fault
from salver.workload.files import faulty, parse_lines
from salver.workload.mix import TraceFormat

BLOCK_TOKENS = 512
MOONCAKE_GRID = 3.0
_AZURE_HEADING = b"TIMESTAMP,ContextTokens,GeneratedTokens"

_Count = Annotated[int, Meta(ge=0, le=100_000_000)]
_Instant = Annotated[float, Meta(ge=0, le=1e12)]


@dataclass(frozen=True, slots=True)
class Row:
    """One recorded request: seconds from the first one, and tokens.

    `blocks` name the content of every `BLOCK_TOKENS` tokens of the prompt, where it is known.
    """

    at: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """Rows in order of time, on a grid of `grid` seconds; 0 means that their times are exact."""

    rows: tuple[Row, ...]
    grid: float = 0.0

    @property
    def seconds(self) -> float:
        """From the first request to the last, its step of the grid included."""
        return self.rows[-1].at + self.grid


class _MooncakeLine(Struct, forbid_unknown_fields=True):
    timestamp: _Instant
    input_length: _Count
    output_length: _Count
    hash_ids: tuple[_Count, ...]


class _SalverLine(Struct):
    at: _Instant
    input_tokens: _Count
    output_tokens: _Count
    max_tokens: _Count | None = None
    blocks: tuple[_Count, ...] = ()


def read_trace(path: Path, form: TraceFormat) -> Trace:
    """Read a trace; its first request comes at 0.

    Raises:
        MixError: the file cannot be read, or lines of it are not of the format.
    """
    match form:
        case TraceFormat.AZURE:
            rows = parse_lines(path, _azure, rule="trace.form", heading=_AZURE_HEADING)
            return Trace(_in_order(path, rows, first_line=2))
        case TraceFormat.MOONCAKE:
            rows = parse_lines(path, _mooncake, rule="trace.form")
            return Trace(_in_order(path, rows), MOONCAKE_GRID)
        case TraceFormat.SALVER:
            return Trace(_in_order(path, parse_lines(path, _salver, rule="trace.form")))


def _in_order(path: Path, rows: list[Row], first_line: int = 1) -> tuple[Row, ...]:
    for line, (before, after) in enumerate(pairwise(rows), start=first_line + 1):
        if after.at < before.at:
            fix = "sort the lines by time"
            raise faulty(path, Fault("", f"{after.at} s", "trace.order", fix, line))
    return tuple(replace(row, at=row.at - rows[0].at) for row in rows)


def _azure(line: bytes) -> Row:
    cells = line.decode().split(",")
    if len(cells) != 3:
        raise ValueError(f"{len(cells)} cells instead of 3")
    stamp, fraction = cells[0].split(".")  # the fraction has seven digits, more than datetime reads
    whole = datetime.fromisoformat(f"{stamp}+00:00").timestamp()
    return Row(whole + float(f"0.{fraction}"), _count(cells[1]), _count(cells[2]))


def _count(cell: str) -> int:
    if not cell.isdecimal():
        raise ValueError(f"{cell!r} is not a number of tokens")
    return int(cell)


def _mooncake(line: bytes) -> Row:
    read = json.decode(line, type=_MooncakeLine)
    blocks = -(-read.input_length // BLOCK_TOKENS)
    if len(read.hash_ids) < blocks:
        raise ValueError(f"{len(read.hash_ids)} hash_ids for {blocks} blocks")
    return Row(read.timestamp / 1000, read.input_length, read.output_length, read.hash_ids[:blocks])


def _salver(line: bytes) -> Row:
    read = json.decode(line, type=_SalverLine)
    asked = read.output_tokens if read.max_tokens is None else read.max_tokens
    return Row(read.at, read.input_tokens, asked, read.blocks)
