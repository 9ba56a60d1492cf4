"""Files that a mix names: where they are, and their lines, every faulty one told."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from salver.contract import Fault
from salver.contract.document import shown
from salver.errors import MixError

MAX_FAULTS = 20
MAX_FILE_BYTES = 2**30

T = TypeVar("T")


def find_file(name: str, roots: Sequence[Path]) -> Path:
    """The file in the first of these directories that has it.

    Raises:
        MixError: none has it.
    """
    for root in roots:
        if (path := root / name).is_file():
            return path
    places = " or ".join(map(str, roots))
    fix = f"put it into {places}, or name its directory with --data"
    raise faulty(name, Fault("", name, "mix.file", fix))


def digest_of(path: Path) -> str:
    """The SHA-256 of a file's bytes. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parse_lines(
    path: Path, parse: Callable[[bytes], T], *, rule: str, heading: bytes = b""
) -> list[T]:
    """What `parse` makes of every line; a ValueError or msgspec error from it is that line's fault.

    Raises:
        MixError: with the first faults; also for a file that cannot be read, has another heading,
            or has no lines.
    """
    lines = _read(path).splitlines()
    if heading and (not lines or lines.pop(0).strip().removeprefix(b"\xef\xbb\xbf") != heading):
        fix = f"begin with the line {heading.decode()}"
        raise faulty(path, Fault("", "another heading", rule, fix, 1))
    parsed: list[T] = []
    faults: list[Fault] = []
    for number, line in enumerate(lines, start=2 if heading else 1):
        try:
            parsed.append(parse(line))
        except (ValueError, msgspec.MsgspecError) as error:
            value = shown(line.decode(errors="replace"))
            faults.append(Fault("", value, rule, f"mend the line: {error}", number))
            if len(faults) == MAX_FAULTS:
                break
    if not lines:
        faults.append(Fault("", "(no lines)", rule, "name a file with at least one line"))
    if faults:
        raise faulty(path, *faults)
    return parsed


def faulty(path: Path | str, *faults: Fault) -> MixError:
    """The error that tells faults of a file."""
    return MixError(f"{path} has faults", faults)


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            fix = f"keep it under {MAX_FILE_BYTES} bytes"
            raise faulty(path, Fault("", str(path), "mix.file", fix))
        return path.read_bytes()
    except OSError as error:
        fix = f"name a file that can be read ({error.strerror})"
        raise faulty(path, Fault("", str(path), "mix.file", fix)) from None
