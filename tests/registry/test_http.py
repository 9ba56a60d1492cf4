"""The resumable download against a real server on loopback that misbehaves in each known way."""

import socket
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from salver.errors import FetchError, IntegrityError
from salver.registry import ArtifactStore, Digest, HttpOptions, HttpsRef, PullOptions, pull
from salver.registry.sources.http import RemoteFile, refuse_detour

if TYPE_CHECKING:
    from tests.registry.conftest import Notes, WebFile, WebServer

QUICK = HttpOptions(
    connect_timeout=2.0, read_timeout=0.3, attempts=3, first_backoff=0.0, sleep=lambda seconds: None
)


@pytest.fixture
def file(web: "WebServer", payload: bytes) -> "WebFile":
    return web.add("/m.gguf", payload)


class Site:
    """One file on the server and one store to pull it into."""

    def __init__(self, web: "WebServer", store: ArtifactStore, progress: "Notes") -> None:
        self.ref = HttpsRef(web.url("/m.gguf"))
        self.store = store
        self.progress = progress

    def pull(self, digest: Digest | None = None, http: HttpOptions = QUICK) -> bytes:
        options = PullOptions(http=http)
        pulled = pull(
            self.ref, digest=digest, store=self.store, progress=self.progress, options=options
        )
        return pulled.path.read_bytes()

    def leftovers(self) -> list[str]:
        return sorted(path.name for path in (self.store.root / "partial").iterdir())


@pytest.fixture
def site(web: "WebServer", store: ArtifactStore, progress: "Notes") -> Site:
    return Site(web, store, progress)


def test_a_whole_file_comes_in_one_request(
    site: Site, file: "WebFile", payload: bytes, digest: Digest
) -> None:
    assert site.pull(digest) == payload
    assert len(file.requests) == 1
    assert file.requests[0]["Accept-Encoding"] == "identity"
    assert site.progress.reports[-1] == ("m.gguf", len(payload), len(payload))
    assert site.leftovers() == []


def test_a_cut_connection_is_continued_where_it_stopped(
    site: Site, file: "WebFile", payload: bytes, digest: Digest
) -> None:
    file.cuts = [1_000_000, 1_000_000]
    assert site.pull(digest) == payload
    assert [r.get("Range") for r in file.requests] == [None, "bytes=1000000-", "bytes=2000000-"]
    assert file.requests[1]["If-Range"] == '"v1"'


@pytest.mark.parametrize("pinned", [True, False])
def test_a_later_run_continues_an_interrupted_one(
    site: Site, file: "WebFile", payload: bytes, digest: Digest, pinned: bool
) -> None:
    file.cuts, file.statuses = [1_000_000], []
    with pytest.raises(FetchError, match="1 attempts in a row"):
        site.pull(digest if pinned else None, replace(QUICK, attempts=1))
    assert site.pull(digest if pinned else None) == payload
    assert file.requests[1]["Range"] == "bytes=1000000-"


def test_a_tampered_partial_is_not_continued(
    site: Site, file: "WebFile", payload: bytes, digest: Digest
) -> None:
    file.cuts = [1_000_000]
    with pytest.raises(FetchError):
        site.pull(digest, replace(QUICK, attempts=1))
    partial = site.store.root / "partial" / f"pull-{digest.hex}"
    with partial.open("r+b") as bytes_on_disk:
        bytes_on_disk.seek(500_000)
        bytes_on_disk.write(b"\0\0\0\0")
    assert site.pull(digest) == payload
    assert "Range" not in file.requests[1]


def test_bytes_after_the_last_checkpoint_are_dropped(
    site: Site, file: "WebFile", payload: bytes, digest: Digest
) -> None:
    file.cuts = [1_000_000]
    with pytest.raises(FetchError):
        site.pull(digest, replace(QUICK, attempts=1))
    with (site.store.root / "partial" / f"pull-{digest.hex}").open("ab") as partial:
        partial.write(b"written, but never vouched for")
    assert site.pull(digest) == payload
    assert file.requests[1]["Range"] == "bytes=1000000-"


def test_without_range_support_the_file_starts_over(
    site: Site, file: "WebFile", payload: bytes, digest: Digest
) -> None:
    file.cuts, file.ranges = [1_000_000], False
    assert site.pull(digest) == payload
    assert file.requests[1]["Range"] == "bytes=1000000-"


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
@pytest.mark.parametrize("pinned", [True, False])
def test_without_a_strong_etag_only_a_known_digest_lets_it_continue(
    site: Site, file: "WebFile", payload: bytes, digest: Digest, etag: str | None, pinned: bool
) -> None:
    file.cuts, file.etag = [1_000_000], etag
    assert site.pull(digest if pinned else None) == payload
    assert file.requests[1].get("Range") == ("bytes=1000000-" if pinned else None)
    assert "If-Range" not in file.requests[1]


def test_two_versions_spliced_for_want_of_an_etag_are_refused_and_then_mended(
    site: Site, web: "WebServer", file: "WebFile", payload: bytes, digest: Digest
) -> None:
    file.body, file.cuts, file.etag = bytes(len(payload)), [1_000_000], None
    with pytest.raises(FetchError):
        site.pull(digest, replace(QUICK, attempts=1))
    file.body = payload
    with pytest.raises(IntegrityError):
        site.pull(digest)
    assert site.pull(digest) == payload


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_a_file_that_changed_between_attempts_starts_over(
    site: Site, web: "WebServer", file: "WebFile", payload: bytes, heeds_if_range: bool
) -> None:
    file.cuts = [1_000_000]
    with pytest.raises(FetchError):
        site.pull(None, replace(QUICK, attempts=1))
    file.body, file.etag = b"GGUF?" + payload[5:], '"v2"'
    file.heeds_if_range = heeds_if_range
    assert site.pull() == file.body


def test_a_wrong_digest_leaves_nothing(site: Site, file: "WebFile") -> None:
    with pytest.raises(IntegrityError, match="not the declared") as caught:
        site.pull(Digest("0" * 64))
    assert caught.value.rule == "registry.digest"
    assert list((site.store.root / "objects").iterdir()) == []
    assert site.leftovers() == []


def test_a_lying_continuation_is_caught_by_the_digest(
    site: Site, file: "WebFile", payload: bytes, digest: Digest
) -> None:
    file.cuts, file.lie = [1_000_000], bytes(len(payload) - 1_000_000)
    with pytest.raises(IntegrityError):
        site.pull(digest)
    file.lie = None
    assert site.pull(digest) == payload


def test_a_body_that_stays_short_is_an_error(site: Site, file: "WebFile", payload: bytes) -> None:
    file.declared, file.ranges = len(payload) + 10, False
    with pytest.raises(FetchError, match="3 attempts in a row") as caught:
        site.pull()
    assert caught.value.rule == "registry.http_attempts"


def test_a_server_that_hangs_is_given_up(site: Site, file: "WebFile") -> None:
    file.gate = threading.Event()
    begun = time.monotonic()
    with pytest.raises(FetchError, match="timed out"):
        site.pull()
    file.gate.set()
    assert time.monotonic() - begun < 5
    assert len(file.requests) == QUICK.attempts


def test_a_transfer_that_trickles_is_given_up(site: Site, file: "WebFile") -> None:
    instants = iter(range(0, 10_000_000, 30))
    slow = replace(QUICK, trickle_bytes=1 << 30, now=lambda: float(next(instants)), attempts=1)
    with pytest.raises(FetchError, match="only trickles"):
        site.pull(http=slow)


def test_a_busy_server_is_asked_again_when_it_says(
    site: Site, file: "WebFile", payload: bytes
) -> None:
    waits: list[float] = []
    file.statuses = [503, 429]
    assert site.pull(http=replace(QUICK, first_backoff=0.5, sleep=waits.append)) == payload
    assert waits == [0.5, 1.0]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_final(site: Site, file: "WebFile", status: int) -> None:
    file.statuses = [status] * 5
    with pytest.raises(FetchError, match=str(status)) as caught:
        site.pull()
    assert caught.value.fix
    assert len(file.requests) == 1


def test_an_encoded_body_is_refused(site: Site, file: "WebFile") -> None:
    file.encoding = "gzip"
    with pytest.raises(FetchError, match="encodes"):
        site.pull()


def test_a_file_over_the_stores_bound_is_refused(
    web: "WebServer", file: "WebFile", store: ArtifactStore, progress: "Notes"
) -> None:
    small = ArtifactStore(store.root, max_bytes=1_000_000)
    with pytest.raises(IntegrityError, match="more than the 1,000,000 bytes"):
        Site(web, small, progress).pull()


def test_a_file_larger_than_the_disk_is_refused_before_it_comes(
    site: Site, file: "WebFile"
) -> None:
    file.declared = 1 << 60
    with pytest.raises(FetchError, match="do not fit on the disk"):
        site.pull()


def test_an_interrupt_keeps_what_has_arrived(
    site: Site, file: "WebFile", payload: bytes, digest: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(what: str, done: int, total: int | None) -> None:
        if done > 1_500_000:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(site.progress, "report", interrupt)
        with pytest.raises(KeyboardInterrupt):
            site.pull(digest)
    assert site.pull(digest) == payload
    first = int(file.requests[1]["Range"].removeprefix("bytes=").removesuffix("-"))
    assert first > 1_500_000


def test_certificates_that_cannot_be_read_are_not_blamed_on_the_store(site: Site) -> None:
    with pytest.raises(FetchError, match="No such file") as caught:
        site.pull(http=replace(QUICK, ca_file=Path("/no/such.pem")))
    assert caught.value.rule == "registry.certificates"


def test_nobody_listening_is_a_clear_error(store: ArtifactStore) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        ref = HttpsRef(f"http://127.0.0.1:{unused.getsockname()[1]}/m.gguf")
        with pytest.raises(FetchError, match="3 attempts in a row") as caught:
            pull(ref, store=store, options=PullOptions(http=QUICK))
    assert "what has arrived is kept" in caught.value.fix


def test_an_artifact_in_the_store_needs_no_source(
    site: Site, file: "WebFile", payload: bytes, digest: Digest
) -> None:
    site.pull(digest)
    assert site.pull(digest) == payload
    assert len(file.requests) == 1


def test_a_corrupt_copy_is_fetched_again(
    site: Site, file: "WebFile", payload: bytes, digest: Digest
) -> None:
    site.pull(digest)
    stored = site.store.root / "objects" / digest.hex
    stored.chmod(0o644)
    stored.write_bytes(payload[:-1] + b"?")
    assert site.pull(digest) == payload
    assert (site.store.root / "quarantine" / digest.hex).exists()
    assert any("fetching it again" in note for note in site.progress.notes)


@pytest.mark.parametrize("head", [b"\x80\x04\x95", b"PK\x03\x04"])
def test_a_format_that_runs_code_is_refused_by_its_first_bytes(
    site: Site, web: "WebServer", head: bytes
) -> None:
    web.add("/m.gguf", head + bytes(100))
    with pytest.raises(IntegrityError, match="run code"):
        site.pull()
    assert list((site.store.root / "objects").iterdir()) == []


@pytest.mark.parametrize(
    ("hops", "refused"), [(["https", "http"], True), (["http", "https"], False)]
)
def test_a_redirect_never_leaves_https(hops: list[str], refused: bool) -> None:
    first, last = (httpx.Request("GET", f"{scheme}://host/m.gguf") for scheme in hops)
    response = httpx.Response(200, request=last, history=[httpx.Response(302, request=first)])
    with pytest.raises(FetchError, match="from https to http") if refused else nullcontext():
        refuse_detour(RemoteFile("m.gguf", str(first.url)), response)
