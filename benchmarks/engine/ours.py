"""Salver as a contender: one for each runner that this build has."""

import sys
from pathlib import Path

from contender import Contender

from salver.cli.home import store_root
from salver.engine.runners.choice import RunnerKind, native_is_built
from salver.registry import Digest

BATCH_TOKENS = 512  # a step, as in the example contract
WEIGHTS = {"f32": "f32", "bf16": "bf16", "w8a16": "8-bit", "w8a8": "8-bit", "q4": "4-bit"}


def salver_contenders(digest: Digest) -> tuple[list[Contender], list[str]]:
    """Those that can run, and a line for those that this build leaves out."""
    native = native_is_built()
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
        for kind in RunnerKind
        if native or not kind.is_native
    ]
    missing = [] if native else ["salver-native was skipped: this build has no native core"]
    return found, missing


def _name(kind: RunnerKind) -> str:
    """The runner, and its KV cache where that is not what goes without saying."""
    engine, precision, kv_cache = kind.split("/")
    usual = "bf16" if kind.is_native else "f32"
    return f"salver-{engine}-{precision}" + ("" if kv_cache == usual else f"-{kv_cache}-kv")
