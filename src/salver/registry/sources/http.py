"""One file over HTTP, resumed wherever an earlier attempt or an earlier process stopped.

Each attempt asks for what is missing, with `If-Range` naming the strong ETag that the first answer
carried (RFC 9110, sections 13.1.5 and 14.2). The server either continues that very representation
(206) or sends the whole of the present one (200), which starts the landing over. Where the server
gives no strong ETag, a file is continued only if its digest is known beforehand and so will judge
the sum of the parts. A server that lies about any of this is caught by the digest as well.

Every wait has a bound: connecting, each read, a transfer that only trickles, and the number of
attempts that bring nothing new.
"""

import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

import httpx
import msgspec

from salver.errors import FetchError
from salver.registry.landing import Landing
from salver.registry.progress import Progress

_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_FORGIVING_BYTES = 1 << 20  # an attempt that brought this much is not a failed one


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How patiently, and through what, files are downloaded. Times in seconds."""

    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    attempts: int = 6  # in a row without progress
    first_backoff: float = 0.5  # doubles with each failed attempt
    longest_backoff: float = 20.0
    trickle_window: float = 60.0  # each window must bring at least trickle_bytes
    trickle_bytes: int = 64 << 10
    proxy: str | None = None  # None: as the usual environment variables say
    ca_file: Path | None = None  # None: httpx's own
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file on a server.

    `size` is in bytes, where another source has declared it; `pinned` says that a digest known
    beforehand will judge the bytes.
    """

    name: str
    url: str
    size: int | None = None
    pinned: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


class _Origin(msgspec.Struct, frozen=True):
    """The representation that a landing holds a prefix of, and its whole size if known."""

    url: str
    etag: str | None  # a strong one
    total: int | None


class _Transient(Exception):
    """This attempt failed in a way that the next may not."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def download(
    remote: RemoteFile, landing: Landing, options: HttpOptions, progress: Progress
) -> None:
    """Bring the whole file into the landing.

    Raises:
        FetchError: the server refuses, or too many attempts in a row brought nothing new. What has
            arrived stays in the landing for a later call.
        IntegrityError: the server sends more than was declared.
    """
    if remote.size is not None:
        landing.limit = min(landing.limit, remote.size)
    transfer = _Transfer(remote, landing, options, progress)
    failures, furthest = 0, landing.size
    with _client(options, remote.headers) as client:
        while not transfer.complete:
            try:
                transfer.attempt(client)
            except _Transient as fault:
                failures = 1 if landing.size >= furthest + _FORGIVING_BYTES else failures + 1
                furthest = max(furthest, landing.size)
                if failures >= options.attempts:
                    raise _gave_up(remote, failures, fault) from fault
                wait = max(fault.wait, options.first_backoff * 2 ** (failures - 1))
                progress.note(f"{remote.name}: {fault}; trying again")
                options.sleep(min(wait, options.longest_backoff))
    landing.checkpoint()


class _Transfer:
    """The attempts at one file. `_origin` is None until a server has begun to send it."""

    def __init__(
        self, remote: RemoteFile, landing: Landing, options: HttpOptions, progress: Progress
    ) -> None:
        self._remote = remote
        self._landing = landing
        self._options = options
        self._progress = progress
        self._origin = _read_origin(landing.origin)
        if self._origin is None or self._origin.url != remote.url:
            self._start_over(None)

    @property
    def complete(self) -> bool:
        """Whether every byte is here; never true while the size is unknown."""
        return self._origin is not None and self._landing.size == self._origin.total

    def attempt(self, client: httpx.Client) -> None:
        """Ask for what is missing and write what comes.

        Raises:
            _Transient: the transfer broke off, or the server asks to come later.
            FetchError: asking again would not help.
        """
        try:
            with client.stream("GET", self._remote.url, headers=self._conditions()) as response:
                refuse_detour(self._remote, response)
                self._place(response)
                self._receive(response)
        except httpx.TransportError as error:
            raise _transport_fault(self._remote, error) from error
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise refused(self._remote, str(error)) from error

    def _conditions(self) -> dict[str, str]:
        if not self._landing.size or not self._continuable(self._origin):
            return {}
        asked = {"Range": f"bytes={self._landing.size}-"}
        return asked | ({"If-Range": self._origin.etag} if self._origin.etag else {})

    def _continuable(self, origin: _Origin | None) -> TypeGuard[_Origin]:
        return origin is not None and (origin.etag is not None or self._remote.pinned)

    def _place(self, response: httpx.Response) -> None:
        """Bring the landing to where the response's body starts."""
        match response.status_code:
            case httpx.codes.OK:
                self._start_over(self._announced(response))
            case httpx.codes.PARTIAL_CONTENT if self._continues(response):
                pass
            case httpx.codes.PARTIAL_CONTENT | httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                self._start_over(None)
                raise _Transient("the server no longer sends the file that was begun")
            case status:
                raise _status_fault(self._remote, status, response.headers)

    def _announced(self, response: httpx.Response) -> _Origin:
        etag = response.headers.get("etag", "")
        length = response.headers.get("content-length", "")
        total = int(length) if length.isdecimal() else self._remote.size
        if self._remote.size not in (None, total):
            raise refused(self._remote, f"it has {total:,} bytes, not {self._remote.size:,}")
        self._landing.require_space(total or 0)
        return _Origin(self._remote.url, etag if etag.startswith('"') else None, total)

    def _start_over(self, origin: _Origin | None) -> None:
        note = msgspec.json.encode(origin).decode() if self._continuable(origin) else ""
        self._landing.restart(note)
        self._origin = origin

    def _continues(self, response: httpx.Response) -> bool:
        """Whether a 206 answer is the rest of the very file that was begun."""
        if self._origin is None:
            return False
        total = "*" if self._origin.total is None else self._origin.total
        span = str(response.headers.get("content-range", ""))
        same = bool(response.headers.get("etag", self._origin.etag) == self._origin.etag)
        return (
            same and span.startswith(f"bytes {self._landing.size}-") and span.endswith(f"/{total}")
        )

    def _receive(self, response: httpx.Response) -> None:
        total = self._origin.total if self._origin else None
        pace = _Pace(self._options, self._landing.size)
        for chunk in response.iter_raw():
            self._landing.write(chunk)
            self._progress.report(self._remote.name, self._landing.size, total)
            pace.require(self._landing.size)
        if total is not None and self._landing.size < total:
            raise _Transient(f"the body ended after {self._landing.size:,} of {total:,} bytes")
        self._origin = _Origin(self._remote.url, None, self._landing.size)


class _Pace:
    """Tells a slow transfer from one that is kept open without getting anywhere."""

    def __init__(self, options: HttpOptions, size: int) -> None:
        self._options = options
        self._begin(size)

    def require(self, size: int) -> None:
        """Raise _Transient if the window that ends now brought too little."""
        if self._options.now() >= self._window_end:
            if size - self._window_size < self._options.trickle_bytes:
                raise _Transient("the transfer only trickles")
            self._begin(size)

    def _begin(self, size: int) -> None:
        self._window_end = self._options.now() + self._options.trickle_window
        self._window_size = size


def _read_origin(text: str) -> _Origin | None:
    try:
        return msgspec.json.decode(text, type=_Origin) if text else None
    except msgspec.DecodeError:
        return None


def _client(options: HttpOptions, headers: Mapping[str, str]) -> httpx.Client:
    return httpx.Client(
        headers={"User-Agent": "salver", **headers, "Accept-Encoding": "identity"},
        timeout=httpx.Timeout(options.read_timeout, connect=options.connect_timeout),
        proxy=options.proxy,
        verify=_trusting(options.ca_file) if options.ca_file else True,
        follow_redirects=True,
        max_redirects=10,
    )


def _trusting(ca_file: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise FetchError(
            f"the certificates in {ca_file} cannot be used: {error.strerror or error}",
            rule="registry.certificates",
            value=str(ca_file),
            fix="name a PEM file of certificate authorities, as in pip's setting `cert`",
        ) from error


def refuse_detour(remote: RemoteFile, response: httpx.Response) -> None:
    """Refuse an answer that left https on the way, or that is not the file's own bytes."""
    secure = any(hop.url.scheme == "https" for hop in response.history)
    if secure and response.url.scheme != "https":
        raise refused(remote, f"it redirects from https to {response.url.scheme}")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise refused(remote, "the server encodes the file although it was asked not to")


def _transport_fault(remote: RemoteFile, error: httpx.TransportError) -> Exception:
    reason = str(error) or type(error).__name__
    permanent = isinstance(error, httpx.UnsupportedProtocol) or "CERTIFICATE" in reason
    return refused(remote, reason) if permanent else _Transient(reason)


def _status_fault(remote: RemoteFile, status: int, headers: httpx.Headers) -> Exception:
    reason = f"the server answers {status} {httpx.codes.get_reason_phrase(status)}".rstrip()
    if status in _RETRIED:
        wait = headers.get("retry-after", "")
        return _Transient(reason, float(wait) if wait.isdecimal() else 0.0)
    return refused(remote, reason)


def refused(remote: RemoteFile, reason: str) -> FetchError:
    """The error for a file that asking again will not bring."""
    return FetchError(
        f"{remote.name} cannot be fetched from {httpx.URL(remote.url).host}: {reason}",
        rule="registry.http",
        value=reason,
        fix="check the reference, and that this machine may read it there",
    )


def _gave_up(remote: RemoteFile, attempts: int, fault: _Transient) -> FetchError:
    return FetchError(
        f"{remote.name} could not be fetched: {attempts} attempts in a row failed, the last because {fault}",
        rule="registry.http_attempts",
        value=attempts,
        limit=attempts,
        fix="check the network and run the same command again; what has arrived is kept",
    )
