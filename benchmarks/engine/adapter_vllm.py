"""vLLM on a CPU, through its offline engine and its own scheduler."""

import os
import sys
from pathlib import Path

from protocol import Engine, OnToken, Settings, serve

KV_CACHE_GB = 2


class Vllm:
    """Settings: bf16 weights and KV, compiled graphs (its default), no prefix cache, nothing
    detokenized. The engine core and its worker run in processes of their own, as they do by
    default."""

    def __init__(self, settings: Settings) -> None:
        from vllm import EngineArgs, LLMEngine, SamplingParams, __version__

        self._new_sampling = SamplingParams
        arguments = EngineArgs(
            model=settings.model,
            dtype="bfloat16",
            max_model_len=settings.max_context_tokens,
            max_num_seqs=settings.max_running,
            max_num_batched_tokens=settings.max_batch_tokens,
            enable_prefix_caching=False,
            disable_log_stats=True,
        )
        self._engine = LLMEngine.from_engine_args(arguments)
        self._requests = 0
        bound = os.environ["VLLM_CPU_OMP_THREADS_BIND"]
        openmp = Path(os.environ.get("LD_PRELOAD", "")).name or "its own OpenMP"
        self.facts: dict[str, str | int] = {
            "version": __version__,
            "settings": f"bf16 KV, {settings.max_batch_tokens} batched tokens, threads bound to "
            f"{bound} with {openmp}, prefix cache and detokenization off, compiled graphs cached",
        }

    def generate(self, prompts: list[list[int]], max_tokens: int, on_token: OnToken) -> None:
        sampling = self._new_sampling(
            temperature=0.0, max_tokens=max_tokens, ignore_eos=True, detokenize=False
        )
        indices = {}
        for index, prompt in enumerate(prompts):
            name = str(self._requests)
            self._requests += 1
            indices[name] = index
            self._engine.add_request(name, {"prompt_token_ids": prompt}, sampling)
        told = [0] * len(prompts)
        while self._engine.has_unfinished_requests():
            for output in self._engine.step():
                index = indices[output.request_id]
                tokens = output.outputs[0].token_ids
                for token in tokens[told[index] :]:
                    on_token(index, token)
                told[index] = len(tokens)


def open_engine(settings: Settings) -> Engine:
    """Set what vLLM and its worker process read from the environment, then open it.

    Left alone it keeps one core for its front end and computes on the others, one of two here; and
    its documentation recommends Intel's OpenMP, which its package brings along.
    """
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[: settings.threads]))
    os.environ.update(
        HF_HUB_OFFLINE="1",
        VLLM_CPU_KVCACHE_SPACE=str(KV_CACHE_GB),
        VLLM_CPU_OMP_THREADS_BIND=cores,
        VLLM_CACHE_ROOT=str(Path(settings.model).parent / "vllm-cache"),
        VLLM_NO_USAGE_STATS="1",
    )
    openmp = Path(sys.prefix) / "lib" / "libiomp5.so"
    if openmp.exists():
        os.environ["LD_PRELOAD"] = str(openmp)
    return Vllm(settings)


if __name__ == "__main__":
    serve(open_engine)
