"""The server under load: where it is, whom we are to it, and a request as the bytes it gets."""

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import msgspec

from salver.bench.connection import Address
from salver.errors import BackendUnavailable, InvalidValue
from salver.workload import Arrival


@dataclass(frozen=True, slots=True)
class Target:
    """An OpenAI-compatible server. `url` may end in `/v1`; `keys` are by tenant."""

    url: str
    model: str
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    key: str = field(default="", repr=False)  # of tenants without one of their own
    class_header: bool = False  # send each request's class as x-salver-class
    extra: Mapping[str, object] = field(default_factory=dict)  # fields added to every body

    @property
    def base_url(self) -> str:
        """The API's root, which ends in `/v1` unless the URL names another path."""
        return (
            self.url.rstrip("/")
            if urlsplit(self.url).path.strip("/")
            else f"{self.url.rstrip('/')}/v1"
        )

    def address(self) -> Address:
        """The server's addresses, resolved once.

        Raises:
            InvalidValue: not an http(s) URL.
            BackendUnavailable: the name is unknown.
        """
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            fix = "write it as http://HOST:PORT"
            raise InvalidValue(f"{self.url!r} is no address", rule="bench.url", fix=fix)
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        port = parts.port or (443 if tls else 80)
        if tls:
            return Address((parts.hostname,), port, tls)
        try:
            found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise BackendUnavailable(
                f"{parts.hostname} is not known: {error.strerror}", rule="bench.url"
            ) from None
        return Address(tuple(dict.fromkeys(str(one[4][0]) for one in found)), port)

    def request(self, arrival: Arrival, *, ignore_eos: bool) -> bytes:
        """The request, head and body."""
        chat = isinstance(arrival.prompt, tuple) and not isinstance(arrival.prompt[0], int)
        body = msgspec.json.encode(
            {
                "model": self.model,
                "messages" if chat else "prompt": arrival.prompt,
                "max_tokens": arrival.max_tokens,
                "temperature": 0.0,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            | ({"ignore_eos": True} if ignore_eos else {})
            | dict(self.extra)
        )
        path = "/chat/completions" if chat else "/completions"
        return self._head(path, arrival, len(body)) + body

    def _head(self, path: str, arrival: Arrival, length: int) -> bytes:
        parts = urlsplit(self.base_url)
        lines = [
            f"POST {parts.path}{path} HTTP/1.1",
            f"host: {parts.netloc}",
            "content-type: application/json",
            "accept: text/event-stream",
            f"content-length: {length}",
            f"request-timeout-ms: {max(1, round(arrival.timeout * 1000))}",
            f"x-session-id: {arrival.session}",
        ]
        if key := self.keys.get(arrival.tenant, self.key):
            lines.append(f"authorization: Bearer {key}")
        if self.class_header:
            lines.append(f"x-salver-class: {arrival.traffic_class}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
