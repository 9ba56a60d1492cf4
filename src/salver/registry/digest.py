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
            fix = (
                "write `sha256:` and 64 lower-case hexadecimal digits, as `salver pull` prints them"
            )
            fault = Fault("release.digest", ascii(text[:80])[1:-1], "digest.form", fix)
            raise ContractError(f"`{fault.value}` is not a digest", [fault])
        return cls(match[1])

    def __str__(self) -> str:
        return f"sha256:{self.hex}"
