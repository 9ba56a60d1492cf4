"""The name of some bytes: their SHA-256, written `sha256:<64 hexadecimal digits>`."""

import re
from dataclasses import dataclass

from salver.contract import Fault
from salver.errors import ContractError

_FORM = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """`hex` is 64 lower-case hexadecimal digits; `str()` adds the algorithm, as contracts do."""

    hex: str

    @classmethod
    def parse(cls, text: str) -> "Digest":
        """Read `sha256:<hex>`.

        Raises:
            ContractError: the text has another form.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            rule = "a digest is `sha256:` and 64 lower-case hexadecimal digits"
            fix = "copy the digest line that `salver pull` prints"
            fault = Fault("release.digest", text, rule, fix)
            raise ContractError(f"{text!r} is not a digest: {rule}", [fault])
        return cls(match[1])

    def __str__(self) -> str:
        return f"sha256:{self.hex}"
