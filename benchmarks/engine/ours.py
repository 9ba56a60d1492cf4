"""Salver as a contender: one for each runner that this build has."""

import sys
from pathlib import Path

from contender import Contender

from salver.cli.home import store_root
from salver.engine.runners.choice import RunnerKind, native_is_built
from salver.engine.runners.matrices import layer_kinds
from salver.errors import UnsupportedModel
from salver.models import Checkpoint, open_checkpoint
from salver.registry import ArtifactStore, Digest

BATCH_TOKENS = 512  # a step, as in the example contract
WEIGHTS = {"f32": "f32", "bf16": "bf16", "w8a16": "8-bit", "w8a8": "8-bit", "q4": "4-bit"}


def salver_contenders(digest: Digest) -> tuple[list[Contender], list[str]]:
    """Those that can run an artifact of the store, and a line for each that cannot."""
    checkpoint = open_checkpoint(ArtifactStore(store_root()).open_verified(digest))
    reasons = {kind: reason_against(kind, checkpoint) for kind in RunnerKind}
    found = [
        Contender(
            _name(kind),
            WEIGHTS[kind.precision],
            Path(sys.executable),
            "adapter_salver.py",
            f"{store_root()}#{digest}",
            ours=True,
            options={"runner": kind, "max_batch_tokens": str(BATCH_TOKENS)},
        )
        for kind, reason in reasons.items()
        if reason is None
    ]
    skipped = [f"{_name(kind)} was skipped: {reason}" for kind, reason in reasons.items() if reason]
    return found, skipped


def reason_against(kind: RunnerKind, checkpoint: Checkpoint) -> str | None:
    """Why this runner cannot compute this file; None if it can."""
    if kind.is_native and not native_is_built():
        return "this build has no native core"
    try:
        layer_kinds(checkpoint.config, checkpoint.formats, kind.precision)
    except UnsupportedModel as unsupported:
        return str(unsupported)
    return None


def _name(kind: RunnerKind) -> str:
    """The runner, and its KV cache where that is not what goes without saying."""
    engine, precision, kv_cache = kind.split("/")
    usual = "bf16" if kind.is_native else "f32"
    return f"salver-{engine}-{precision}" + ("" if kv_cache == usual else f"-{kv_cache}-kv")
