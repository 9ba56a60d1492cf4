"""From a mix file to a `Workload`, or to every fault that stands in the way."""

from collections.abc import Sequence
from pathlib import Path

from salver.contract.loading import Form, load
from salver.errors import MixError
from salver.workload.mix import Mix
from salver.workload.schedule import Workload
from salver.workload.soundness import findings

MIX = Form("traffic mix", Mix, findings, MixError)


def load_mix(source: str | Path) -> Mix:
    """Read a mix from its text (str) or from a file (Path), without the files it names.

    Raises:
        MixError: with all faults at once, in file order.
    """
    return load(MIX, source)


def open_workload(path: Path, data: Sequence[Path] = ()) -> Workload:
    """Read a mix and the files it names, which are beside it or in one of `data`.

    Raises:
        MixError: the mix, or a file it names, has faults.
    """
    return Workload(load_mix(path), [path.parent, *data])
