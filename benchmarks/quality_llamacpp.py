"""llama.cpp's logits for `quality.py`, from its own quantiser and its own kernels.

    PYTHON quality_llamacpp.py MODEL.gguf {f32,q8_0,q4_0,as-is} TOKENS

PYTHON is that of an environment with `cyllama` (llama.cpp's C interface) and numpy; nothing of Salver
is imported. MODEL.gguf is rewritten by `llama_model_quantize`, with the head and the embedding as its
recipe has them, or read as it is. Each line of standard input is a window of at most TOKENS token
ids, as JSON; the answer is its logits, float32 [tokens, vocab_size]. The KV cache is f16, which is
llama.cpp's default.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from cyllama.llama import llama_cpp

AS_IS = "as-is"
FILE_TYPES = {"f32": 0, "q8_0": 7, "q4_0": 2}  # enum llama_ftype
THREADS = len(os.sched_getaffinity(0))


def quantized(source: Path, file_type: str, target: Path) -> Path:
    parameters = llama_cpp.LlamaModelQuantizeParams()
    parameters.nthread = THREADS
    parameters.ftype = FILE_TYPES[file_type]
    parameters.allow_requantize = True
    llama_cpp.model_quantize(str(source), str(target), parameters)
    return target


class Model(llama_cpp.LlamaModel):  # type: ignore[misc] # of a package without types
    """With what `get_logits_ith` of cyllama 0.2.18 looks for, and does not find."""

    @property
    def n_vocab(self) -> int:
        return int(self.get_vocab().n_vocab)


class LlamaCpp:
    """A model whose every window is one batch of one sequence."""

    def __init__(self, path: Path, tokens: int) -> None:
        self._model = Model(str(path), llama_cpp.LlamaModelParams())
        parameters = llama_cpp.LlamaContextParams()
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = tokens
        parameters.n_threads = parameters.n_threads_batch = THREADS
        self._context = llama_cpp.LlamaContext(self._model, parameters)

    def logits(self, window: list[int]) -> bytes:
        """Float32 [tokens, vocab_size] in row order."""
        self._context.kv_cache_clear()
        batch = llama_cpp.LlamaBatch(n_tokens=len(window), embd=0, n_seq_max=1)
        for position, token in enumerate(window):
            batch.add(token, position, [0], True)
        self._context.decode(batch)
        rows = (self._context.get_logits_ith(position) for position in range(len(window)))
        return b"".join(np.asarray(row, np.float32).tobytes() for row in rows)


def main() -> None:
    source, file_type, tokens = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    llama_cpp.disable_logging()
    llama_cpp.llama_backend_init()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "quantized.gguf"
        path = source if file_type == AS_IS else quantized(source, file_type, path)
        model = LlamaCpp(path, tokens)
        for line in sys.stdin:
            sys.stdout.buffer.write(model.logits(json.loads(line)))
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
