"""What an upstream tells of itself in its metrics."""

import re
from dataclasses import dataclass

_RUNNING = ("vllm:num_requests_running", "llamacpp:requests_processing")
_WAITING = ("vllm:num_requests_waiting", "llamacpp:requests_deferred")
_LINE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ([0-9.eE+-]+)", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"\\]*)"')


@dataclass(frozen=True, slots=True)
class Facts:
    """`kv_tokens` is what its KV pool holds, None if it does not say."""

    running: int = 0
    waiting: int = 0
    kv_tokens: int | None = None
    salts_caches: bool = False  # it is a vLLM, which knows `cache_salt`


def facts_in(text: str) -> Facts:
    """The facts in a Prometheus text; those of vLLM, llama.cpp and Salver are known."""
    running = waiting = 0
    kv_tokens, salts = None, False
    for name, labels, value in _LINE.findall(text):
        if name in _RUNNING:
            running += int(float(value))
        elif name in _WAITING:
            waiting += int(float(value))
        elif name == "salver_kv_pool_tokens":
            kv_tokens = int(float(value)) or None
        elif name == "vllm:cache_config_info":
            kv_tokens, salts = _pool_of(dict(_LABEL.findall(labels))), True
    return Facts(running, waiting, kv_tokens, salts)


def _pool_of(config: dict[str, str]) -> int | None:
    """vLLM's KV pool in tokens, from the labels of its cache configuration."""
    block, blocks = config.get("block_size", ""), config.get("num_gpu_blocks", "")
    if not (block.isdigit() and blocks.isdigit()):
        return None
    return int(block) * int(blocks) or None
