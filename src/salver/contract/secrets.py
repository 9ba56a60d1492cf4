"""A contract is read, reviewed and committed; a secret in it is a leak. This finds the common ones.

The search goes by the shapes that issuers gave their keys and by keys of the file that name a
secret. It cannot find every secret; what it finds is never repeated in a fault.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from salver.contract.document import Document, Location, dotted
from salver.contract.faults import Fault

_SECRET_KEY = re.compile(
    r"(?:.*[-_.])?(?:keys?|api[-_]?keys?|apikeys?|token|secrets?|passwords?|passwd|authorization"
    r"|bearer|credentials?)",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"sk-[A-Za-z0-9_-]{16,}"  # OpenAI and those who followed it, Salver's own included
    r"|hf_[A-Za-z0-9]{16,}"
    r"|gh[pousr]_[A-Za-z0-9]{20,}"
    r"|AKIA[0-9A-Z]{16}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|[Bb]earer\s+[A-Za-z0-9._~+/=-]{16,}"
    r"|://[^/\s@]+@"  # user or password in a URL
    r"|[?&](?:key|token|sig|signature|password|secret|api_key|access_token|X-Amz-Signature)=",
)


NOT_SHOWN = "(not shown)"


def find_secrets(document: Document) -> Iterator[tuple[Location, Fault]]:
    """Every place that holds a secret or asks for one, with a fault that does not repeat it."""
    for location, written in document.written.items():
        value = _value_at(document.data, location)
        if _names_secret(location, value) or looks_secret(value) or looks_secret(location[-1:]):
            fix = "take it out, and replace the secret if the file was shared; keys live elsewhere"
            path = dotted(location)
            yield location, redact(Fault(path, NOT_SHOWN, "secrets.in_file", fix, written.line))


def looks_secret(value: object) -> bool:
    """Whether a string (or one in a tuple) has the shape of a known kind of secret."""
    if isinstance(value, tuple):
        return any(map(looks_secret, value))
    return isinstance(value, str) and bool(_SECRET_VALUE.search(value))


def redact(fault: Fault) -> Fault:
    """The fault without any text in it that looks like a secret."""
    parts = [NOT_SHOWN if looks_secret(part) else part for part in fault.path.split(".")]
    value = NOT_SHOWN if looks_secret(fault.value) else fault.value
    return replace(fault, path=".".join(parts), value=value)


def _names_secret(location: Location, value: object) -> bool:
    key = location[-1] if location else None
    counted = isinstance(value, int | float)
    return isinstance(key, str) and bool(_SECRET_KEY.fullmatch(key)) and not counted


def _value_at(data: object, location: Location) -> object:
    for part in location:
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int):
            data = data[part]
    return data
