"""A web server that misbehaves on request, and small things the registry's tests share."""

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from salver.registry import ArtifactStore, Digest


@dataclass
class WebFile:
    """What the server sends, and how it misbehaves.

    `cuts` are consumed one per request: the connection is closed after that many body bytes.
    `statuses` are consumed one per request before anything is sent. `lie` replaces the answer to a
    ranged request. `gate`, when not None, holds every body back until it is set. `pace` is the
    seconds that pass before each 64 KiB.
    """

    body: bytes
    etag: str | None = '"v1"'
    ranges: bool = True
    declared: int | None = None  # Content-Length of a whole answer, where it is not the truth
    kind: str = "application/octet-stream"
    encoding: str | None = None
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    lie: bytes | None = None
    heeds_if_range: bool = True
    gate: threading.Event | None = None
    pace: float = 0.0
    requests: list[dict[str, str]] = field(default_factory=list)
    bodies_begun: int = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "WebServer"

    def do_GET(self) -> None:
        file = self.server.files.get(self.path.partition("?")[0])
        if file is None:
            return self._head(404, 0)
        file.requests.append(dict(self.headers))
        if file.statuses:
            return self._head(file.statuses.pop(0), 0)
        return self._send(file, self._start(file))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's name
        pass

    def _start(self, file: WebFile) -> int | None:
        """The first byte of a ranged answer; None for a whole one."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        wanted = self.headers.get("If-Range", file.etag) if file.heeds_if_range else file.etag
        current = wanted == file.etag
        return int(asked[1]) if asked and file.ranges and current else None

    def _send(self, file: WebFile, start: int | None) -> None:
        rest = file.body[start or 0 :] if start is None or file.lie is None else file.lie
        headers = {"ETag": file.etag, "Content-Type": file.kind, "Content-Encoding": file.encoding}
        if start is not None:
            headers["Content-Range"] = f"bytes {start}-{len(file.body) - 1}/{len(file.body)}"
        length = len(rest) if start is not None or file.declared is None else file.declared
        self._head(200 if start is None else 206, length, headers)
        file.bodies_begun += 1
        if file.gate is not None:
            file.gate.wait(10)
        cut = file.cuts.pop(0) if file.cuts else len(rest)
        self.close_connection = cut < length
        for begin in range(0, cut, 64 << 10):
            time.sleep(file.pace)
            self.wfile.write(rest[begin : min(cut, begin + (64 << 10))])

    def _head(self, status: int, length: int, headers: dict[str, str | None] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in (headers or {}).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()


class WebServer(ThreadingHTTPServer):
    """Serves `files` by path on a loopback port."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, WebFile] = {}

    def add(self, path: str, body: bytes) -> WebFile:
        self.files[path] = WebFile(body)
        return self.files[path]

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that went away


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is reached directly, whatever the machine's settings are."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


@pytest.fixture(scope="session")
def payload() -> bytes:
    """3 MiB that compress badly and begin as a GGUF."""
    blocks = (hashlib.sha256(n.to_bytes(4)).digest() for n in range(3 << 15))
    return b"GGUF" + b"".join(blocks)[4:]


@pytest.fixture(scope="session")
def digest(payload: bytes) -> Digest:
    return Digest(hashlib.sha256(payload).hexdigest())


@dataclass
class Notes:
    """A Progress that remembers."""

    notes: list[str] = field(default_factory=list)
    reports: list[tuple[str, int, int | None]] = field(default_factory=list)

    def report(self, what: str, done: int, total: int | None) -> None:
        self.reports.append((what, done, total))

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def progress() -> Notes:
    return Notes()
