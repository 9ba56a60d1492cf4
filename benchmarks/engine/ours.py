"""Salver as a contender: one for each runtime that this build has."""

import importlib.util
import sys
from pathlib import Path

from contender import Contender

from salver.cli.home import store_root
from salver.registry import Digest

BATCH_TOKENS = 512  # a step, as in the example contract
RUNTIMES = {
    # name: engine, quantization, KV cache, and how the report calls such weights
    "salver-numpy-f32": ("numpy", "f32", "f32", "f32"),
    "salver-native-w8a16": ("native", "w8a16", "bf16", "8-bit"),
    "salver-native-w8a8": ("native", "w8a8", "bf16", "8-bit"),
    "salver-native-q4": ("native", "q4", "bf16", "4-bit"),
    "salver-native-bf16": ("native", "bf16", "bf16", "bf16"),
}


def salver_contenders(digest: Digest) -> tuple[list[Contender], list[str]]:
    """Those that can run, and a line for those that this build leaves out."""
    native = importlib.util.find_spec("salver._native") is not None
    found = [
        Contender(
            name,
            weights,
            Path(sys.executable),
            "adapter_salver.py",
            f"{store_root()}#{digest}",
            ours=True,
            options={
                "engine": engine,
                "quantization": quantization,
                "kv_cache": kv_cache,
                "max_batch_tokens": str(BATCH_TOKENS),
            },
        )
        for name, (engine, quantization, kv_cache, weights) in RUNTIMES.items()
        if native or engine != "native"
    ]
    missing = [] if native else ["salver-native was skipped: this build has no native core"]
    return found, missing
