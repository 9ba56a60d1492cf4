"""llama.cpp, through the server inside xllamacpp, over its native /completion on localhost.

The server is what batches in llama.cpp. One thread per stream only waits for lines of text, so the
client takes nothing that the engine would miss.
"""

import json
import threading
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import xllamacpp
from protocol import Engine, OnToken, Settings, serve

UNNAMED = -1
"""A token that ends inside a character: the server counts it, and tells it with the next text."""


class LlamaCpp:
    """Settings: a slot per stream with continuous batching, its default batch sizes (2048 and 512),
    flash attention and weight repacking as it chooses, prompt cache off."""

    def __init__(self, settings: Settings) -> None:
        slots = int(settings.options.get("slots", settings.max_running))
        parameters = xllamacpp.CommonParams()
        parameters.model.path = settings.model
        parameters.n_parallel = slots
        parameters.n_ctx = slots * settings.max_context_tokens
        parameters.cpuparams.n_threads = settings.threads
        parameters.cpuparams_batch.n_threads = settings.threads
        parameters.cont_batching = True
        parameters.cache_prompt = False
        parameters.cache_ram_mib = 0
        parameters.n_gpu_layers = 0
        parameters.port = 0
        self._server = xllamacpp.Server(parameters)
        address = urlsplit(self._server.listening_address)
        self._host, self._port = address.hostname or "127.0.0.1", address.port
        self.facts: dict[str, str | int] = {
            "version": f"xllamacpp {xllamacpp.__version__}",
            "settings": f"{slots} slots, {parameters.n_batch} and {parameters.n_ubatch} batched "
            f"tokens, prompt cache off; {xllamacpp.get_system_info().strip()}",
        }

    def generate(self, prompts: list[list[int]], max_tokens: int, on_token: OnToken) -> None:
        threads = [
            threading.Thread(target=self._stream, args=(index, prompt, max_tokens, on_token))
            for index, prompt in enumerate(prompts)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _stream(self, index: int, prompt: list[int], max_tokens: int, on_token: OnToken) -> None:
        body = {
            "prompt": prompt,
            "n_predict": max_tokens,
            "temperature": 0.0,
            "ignore_eos": True,
            "cache_prompt": False,
            "return_tokens": True,
            "stream": True,
        }
        connection = HTTPConnection(self._host, self._port, timeout=600)
        connection.request("POST", "/completion", json.dumps(body))
        told = 0
        for line in connection.getresponse():
            if line.startswith(b"data: {"):
                answer: dict[str, Any] = json.loads(line[len(b"data: ") :])
                named = answer.get("tokens", [])
                unnamed = max(answer.get("tokens_predicted", 0) - told - len(named), 0)
                for token in [UNNAMED] * unnamed + named:
                    on_token(index, token)
                told += unnamed + len(named)
        connection.close()


def open_engine(settings: Settings) -> Engine:
    return LlamaCpp(settings)


if __name__ == "__main__":
    serve(open_engine)
