"""A request body, read within bounds and parsed without guessing.

JSON as Python reads it by default accepts more than JSON: NaN, repeated keys, half surrogates,
numbers beyond a float, nesting until the stack ends. Each is refused here by name, so that nothing
behind this module meets them.
"""

import asyncio
import contextlib
import json
import math
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from salver.errors import RequestError, TooLarge

MAX_DEPTH = 64
MAX_MEMBERS = 4096  # of one object
BODY_TIMEOUT_SECONDS = 30.0
DISCARD_BYTES = 64 * 2**20
DISCARD_SECONDS = 5.0


class ClientGone(Exception):
    """The client closed the connection; there is nobody to answer."""


async def read_body(headers: Headers, receive: Receive, limit: int) -> bytes:
    """The whole body, at most `limit` bytes.

    A declared length over the limit is refused unread, an undeclared one as soon as it passes.

    Raises:
        TooLarge: it is over the limit.
        RequestError: it did not arrive within BODY_TIMEOUT_SECONDS.
        ClientGone: the connection closed.
    """
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limit:
        raise _too_large(int(declared[:20]), limit)
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            return await _collect(receive, limit)
    except TimeoutError:
        raise RequestError(
            "the body did not arrive in time",
            rule="request.body_seconds",
            limit=BODY_TIMEOUT_SECONDS,
        ) from None


async def _collect(receive: Receive, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(size, limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


async def discard_body(headers: Headers, receive: Receive) -> None:
    """Read on and drop, up to DISCARD_BYTES, so that a client still sending can hear its refusal.

    A connection closed on unread bytes is reset, and the answer is lost with it.

    A client that asked first (`Expect: 100-continue`) has sent nothing and waits for the answer.
    """
    if "expect" in headers:
        return
    left = DISCARD_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return


def parse_json(body: bytes) -> object:
    """The value that the body states.

    Raises:
        RequestError: it is not strict JSON, or nested deeper than MAX_DEPTH.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _malformed("is not valid UTF-8", "json.utf8", f"byte {error.start}") from None
    try:
        value = json.loads(
            text, object_pairs_hook=_members, parse_constant=_constant, parse_float=_finite
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise _malformed(f"is not valid JSON: {error.msg}", "json.syntax", where) from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        raise _malformed("holds an integer with too many digits", "json.number") from None
    _check_depth(body, value)
    _check_surrogates(body, value)
    return value


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _malformed("gives a key twice", "json.unique_keys", twice)
    if len(members) > MAX_MEMBERS:
        raise TooLarge(
            "an object has too many members",
            rule="json.max_members",
            value=len(members),
            limit=MAX_MEMBERS,
        )
    return members


def _constant(name: str) -> float:
    raise _malformed("holds a number that JSON does not have", "json.number", name)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _malformed("holds a number too large for a float", "json.number", digits)
    return number


def _check_depth(body: bytes, value: object) -> None:
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    level: list[object] = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [child for parent in level for child in _containers(parent)]
        if not level:
            return
    raise _too_deep()


def _containers(parent: object) -> Iterable[object]:
    children: Iterable[object] = ()
    if isinstance(parent, dict):
        children = parent.values()
    elif isinstance(parent, list):
        children = parent
    return [child for child in children if isinstance(child, dict | list)]


def _check_surrogates(body: bytes, value: object) -> None:
    """Half a surrogate pair is JSON but no text: it cannot be encoded, so not tokenized."""
    if b"\\ud" not in body and b"\\uD" not in body:
        return
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _malformed("holds half a surrogate pair", "json.surrogates") from None


def _malformed(problem: str, rule: str, value: object = None) -> RequestError:
    return RequestError(f"the body {problem}", rule=rule, value=value)


def _too_deep() -> RequestError:
    return RequestError("the body is nested too deeply", rule="json.max_depth", limit=MAX_DEPTH)


def _too_large(size: int, limit: int) -> TooLarge:
    return TooLarge(
        "the body is too large",
        rule="gateway.max_body_bytes",
        value=size,
        limit=limit,
        fix="send a shorter prompt, or fewer prompts in one call",
    )
