"""A reading position in a hostile file, which no length in that file can push out of bounds."""

import mmap
from typing import Final

from salver.errors import MalformedModel

MAX_HEADER_BYTES: Final = 64 << 20
MAX_ARRAY_ITEMS: Final = 1 << 22  # over all arrays together; the largest vocabularies need 1.5M


class Cursor:
    """A reading position in [0, end) that no length in the file can push past `end`."""

    def __init__(self, file: mmap.mmap, where: str) -> None:
        self.file = file
        self.where = where
        self.position = 0
        self.end = min(len(file), MAX_HEADER_BYTES)
        self.items_left = MAX_ARRAY_ITEMS

    def fail(
        self, problem: str, rule: str, value: object = None, limit: object = None
    ) -> MalformedModel:
        return MalformedModel(
            f"{self.where}: {problem} (at byte {self.position})",
            rule=f"gguf.{rule}",
            value=value,
            limit=limit,
            fix="the file is damaged or not a GGUF of version 2 or 3: fetch it again and check"
            " its digest",
        )

    def need(self, size: int, what: str) -> None:
        """Refuse unless `size` more bytes of header are there."""
        left = self.end - self.position
        if size > left:
            raise self.fail(f"{what} needs {size} bytes, {left} are left", "header", size, left)

    def take(self, size: int, what: str) -> bytes:
        self.need(size, what)
        start, self.position = self.position, self.position + size
        return self.file[start : self.position]

    def u32(self, what: str) -> int:
        return int.from_bytes(self.take(4, what), "little")

    def u64(self, what: str) -> int:
        return int.from_bytes(self.take(8, what), "little")

    def count(self, what: str, limit: int, smallest: int) -> int:
        """A number of things of at least `smallest` bytes each, held against both bounds."""
        count = self.u64(what)
        if count > limit:
            raise self.fail(f"{what} is {count}, over {limit}", "count", count, limit)
        self.need(count * smallest, what)
        return count

    def string(self, what: str, limit: int = MAX_HEADER_BYTES) -> str:
        raw = self.take(self.count(f"length of {what}", limit, 1), what)
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self.fail(f"{what} is not UTF-8: {error.reason}", "utf8") from None
