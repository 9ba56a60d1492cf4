"""What the last start measured of a model on this machine, so that `salver check` can foretell.

    STORE/measured/HEX/RUNTIME-THREADS-MACHINE.json

beside the artifact HEX. MACHINE is a digest of what makes a measurement another machine's: processor,
instruction sets, cores, a forced path, and Salver's version. Losing a record costs nothing but a
forecast, and one that cannot be read is as good as none.
"""

import math
from contextlib import suppress
from dataclasses import astuple
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile

import msgspec

from salver import __version__
from salver.cli.fit import runner_kind
from salver.cli.machine import Machine
from salver.contract import LatencyModel, Release
from salver.registry import Digest


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    machine: str
    latency: LatencyModel


class LastStart:
    """The record of one release's model, runtime and threads on one machine.

    Other parts of the envelope do not change what a step costs, so releases that differ in them share
    the record. `isa` is the path of the core that is forced, if one is.
    """

    def __init__(self, store: Path, release: Release, machine: Machine, isa: str | None) -> None:
        kind = runner_kind(release.runtime).replace("/", "-")
        self._machine = " ".join(
            (machine.cpu, *machine.isa, f"{machine.cores} cores", isa or "", __version__)
        )
        name = (
            f"{kind}-{release.envelope.threads}-{sha256(self._machine.encode()).hexdigest()[:16]}"
        )
        self.path = store / "measured" / Digest.parse(release.digest).hex / f"{name}.json"

    def latency(self) -> LatencyModel | None:
        """The model that was fitted then; None where there is none, or none to be read."""
        try:
            record = msgspec.json.decode(self.path.read_bytes(), type=_Record)
        except (OSError, msgspec.DecodeError):
            return None
        sound = all(math.isfinite(cost) and cost >= 0 for cost in astuple(record.latency))
        return record.latency if sound else None

    def keep(self, latency: LatencyModel) -> None:
        """Replace the record, whole or not at all; a disk that refuses leaves the old one."""
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=self.path.parent, delete=False) as file:
                file.write(msgspec.json.encode(_Record(self._machine, latency)))
            Path(file.name).replace(self.path)
