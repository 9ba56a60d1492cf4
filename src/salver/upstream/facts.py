"""What an upstream tells of itself in its metrics."""

import re
from dataclasses import dataclass

_RUNNING = ("vllm:num_requests_running", "llamacpp:requests_processing")
_WAITING = ("vllm:num_requests_waiting", "llamacpp:requests_deferred")
_LINE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"\\]*)"')


@dataclass(frozen=True, slots=True)
class Facts:
    """`kv_tokens` is what its KV pool holds, None if it does not say."""

    running: int = 0
    waiting: int = 0
    kv_tokens: int | None = None
    salts_caches: bool = False  # it is a vLLM, which knows `cache_salt`


def facts_in(text: str) -> Facts:
    """The facts in a Prometheus text; those of vLLM, llama.cpp and Salver are known.

    A value that is no number, or not a finite one, counts as not said.
    """
    running = waiting = 0
    kv_tokens, salts = None, False
    for name, labels, value in _LINE.findall(text):
        if name in _RUNNING:
            running += _whole(value)
        elif name in _WAITING:
            waiting += _whole(value)
        elif name == "salver_kv_pool_tokens":
            kv_tokens = _whole(value) or None
        elif name == "vllm:cache_config_info":
            kv_tokens, salts = _pool_of(dict(_LABEL.findall(labels))), True
    return Facts(running, waiting, kv_tokens, salts)


def _pool_of(config: dict[str, str]) -> int | None:
    """vLLM's KV pool in tokens, from the labels of its cache configuration."""
    block, blocks = config.get("block_size", ""), config.get("num_gpu_blocks", "")
    return _whole(block) * _whole(blocks) or None


def _whole(value: str) -> int:
    """At least 0; 0 too for what cannot be counted."""
    try:
        return max(0, int(float(value)))
    except (ValueError, OverflowError):  # OverflowError: it is infinite
        return 0
