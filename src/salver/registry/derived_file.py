"""The file of a derived entry: named runs of bytes, with their digests in front.

    [0, 8)      the bytes `salverD1`
    [8, 16)     the header's length, little-endian
    [16, 48)    the header's SHA-256
    [48, ...)   the header: JSON, a `Header`
    offset      each run's bytes, at a multiple of 4096; zeros between

A long run is hashed in pieces of `PIECE_BYTES`, so that any number of threads share the work.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

import msgspec

PIECE_BYTES = 8 << 20
MAX_HEADER_BYTES = 16 << 20
_MAGIC = b"salverD1"
_PREFIX_BYTES = 48
_ALIGNMENT = 4096


class Damaged(Exception):
    """Some byte of the file is not what was written."""


class Outdated(Exception):
    """The file is sound, and of another form than the one that is asked for."""


class Run(Protocol):
    """A caller's own memory: to be filled, or to be written down."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def data(self) -> memoryview: ...


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A run in the file: bytes [offset, offset + size), and its pieces' digests. `type` is that of
    its elements, for whoever looks into the file."""

    name: str
    type: str
    offset: int
    size: int
    sha256: tuple[str, ...]


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: str
    form: str
    runs: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class DerivedFile:
    """Reads and writes entries computed from `source` in `form`."""

    source: str
    form: str

    def read(self, file: int, runs: Sequence[Run], workers: Executor) -> None:
        """Fill every run, and hash what it then holds.

        Raises:
            Damaged: a byte is wrong or missing. The runs hold anything.
            Outdated: the file's runs are not these runs.
            OSError: the file cannot be read.
        """
        header = _read_header(file)
        if header.source != self.source:
            raise Damaged(f"it was computed from {header.source}")
        if header.form != self.form:
            raise Outdated(f"it is {header.form}, not {self.form}")
        if [(p.name, p.type, p.size) for p in header.runs] != [
            (run.name, run.type, run.data.nbytes) for run in runs
        ]:
            raise Outdated("its runs have other names or sizes")
        pieces = list(_pieces(header.runs, runs))
        if not all(workers.map(lambda piece: piece.read(file), pieces)):
            raise Damaged("some of its bytes have another digest")

    def write(self, file: int, runs: Sequence[Run], workers: Executor) -> None:
        """Write all runs behind their header, into an empty file.

        Raises:
            OSError: there is no room, or the file cannot be written.
        """
        header = self._header(runs, workers)
        size = header.runs[-1].offset + header.runs[-1].size if runs else 0
        os.posix_fallocate(file, 0, max(size, 1))  # a full disk says so now
        encoded = msgspec.json.encode(header)
        prefix = _MAGIC + len(encoded).to_bytes(8, "little") + sha256(encoded).digest()
        _write_all(file, memoryview(prefix + encoded), 0)
        for place, run in zip(header.runs, runs, strict=True):
            _write_all(file, run.data, place.offset)

    def _header(self, runs: Sequence[Run], workers: Executor) -> Header:
        """Offsets follow from the header's length, so it is laid out twice."""
        digests = [tuple(workers.map(_digest, _cut(run.data))) for run in runs]
        draft = Header(self.source, self.form, _placed(runs, digests, 1 << 60))
        first = _PREFIX_BYTES + len(msgspec.json.encode(draft))
        return Header(self.source, self.form, _placed(runs, digests, _aligned(first)))


@dataclass(frozen=True, slots=True)
class _Piece:
    data: memoryview
    offset: int
    digest: str

    def read(self, file: int) -> bool:
        done = 0
        while done < self.data.nbytes:
            count = os.preadv(file, [self.data[done:]], self.offset + done)
            if count == 0:
                return False
            done += count
        return _digest(self.data) == self.digest


def _pieces(places: Sequence[Place], runs: Sequence[Run]) -> Iterator[_Piece]:
    for place, run in zip(places, runs, strict=True):
        cut = list(_cut(run.data))
        if len(cut) != len(place.sha256):
            raise Damaged(f"{place.name} has {len(place.sha256)} digests, not {len(cut)}")
        for index, (data, digest) in enumerate(zip(cut, place.sha256, strict=True)):
            yield _Piece(data, place.offset + index * PIECE_BYTES, digest)


def _read_header(file: int) -> Header:
    prefix = os.pread(file, _PREFIX_BYTES, 0)
    length = int.from_bytes(prefix[8:16], "little")
    if len(prefix) < _PREFIX_BYTES or prefix[:8] != _MAGIC or length > MAX_HEADER_BYTES:
        raise Damaged("it does not begin as such a file does")
    encoded = os.pread(file, length, _PREFIX_BYTES)
    if sha256(encoded).digest() != prefix[16:]:
        raise Damaged("its header has another digest")
    try:
        return msgspec.json.decode(encoded, type=Header)
    except msgspec.DecodeError as error:
        raise Outdated(f"its header is of another version: {error}") from None


def _placed(
    runs: Sequence[Run], digests: Sequence[tuple[str, ...]], offset: int
) -> tuple[Place, ...]:
    places = []
    for run, digest in zip(runs, digests, strict=True):
        places.append(Place(run.name, run.type, offset, run.data.nbytes, digest))
        offset = _aligned(offset + run.data.nbytes)
    return tuple(places)


def _cut(data: memoryview) -> Iterator[memoryview]:
    return (data[at : at + PIECE_BYTES] for at in range(0, data.nbytes, PIECE_BYTES))


def _digest(data: memoryview) -> str:
    return sha256(data).hexdigest()


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


def _write_all(file: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(file, data, offset)
        data, offset = data[count:], offset + count
