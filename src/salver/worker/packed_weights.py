"""Packed weights in the artifact store: a worker's second start reads what its first one packed."""

import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

from salver.engine.runners.choice import packed_form
from salver.engine.runners.kept_weights import KeptWeights, Section
from salver.registry.derived import Derived
from salver.registry.digest import Digest
from salver.worker.spec import WorkerSpec


class PackedWeights:
    """`KeptWeights` over a store's derived entry, written beside the serving.

    The writer is a daemon: a worker that ends does not wait for the disk, and an entry that was not
    finished is as if it had not been begun.
    """

    def __init__(self, entry: Derived) -> None:
        self._entry = entry

    def fill(self, sections: Sequence[Section]) -> bool:
        return self._entry.fill(sections)

    def keep(self, sections: Sequence[Section]) -> None:
        Thread(target=self._entry.keep, args=(sections,), name="keep", daemon=True).start()


def packed_weights(spec: WorkerSpec, digest: Digest) -> KeptWeights:
    """Where the spec's native runner keeps its weights."""
    entry = Derived(
        Path(spec.store),
        digest,
        spec.runner.packing,
        packed_form(),
        threads=spec.threads,
        say=_say,
    )
    return PackedWeights(entry)


def _say(sentence: str) -> None:
    print(f"salver.worker: {sentence}", file=sys.stderr, flush=True)  # noqa: T201 - logged above us
