"""OpenVINO GenAI, through its continuous batching pipeline."""

from pathlib import Path

import numpy as np
import openvino
import openvino_genai
from protocol import Engine, OnToken, Settings, serve

KV_CACHE_GB = 2


class OpenVino:
    """Settings: its own defaults for a CPU (bf16 where the machine has it, 8-bit KV), all threads
    asked for, one stream, compiled kernels cached on disk, no prefix cache."""

    def __init__(self, settings: Settings) -> None:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = KV_CACHE_GB
        scheduler.max_num_seqs = settings.max_running
        scheduler.max_num_batched_tokens = settings.max_batch_tokens
        scheduler.dynamic_split_fuse = True
        scheduler.enable_prefix_caching = False
        properties = {
            "INFERENCE_NUM_THREADS": settings.threads,
            "NUM_STREAMS": "1",
            "CACHE_DIR": str(Path(settings.model) / "cache"),
        }
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            settings.model, scheduler, "CPU", properties
        )
        self._requests = 0
        self.facts: dict[str, str | int] = {
            "version": openvino_genai.__version__,
            "settings": f"IR kept from the GGUF; {scheduler.max_num_batched_tokens} batched tokens, "
            f"dynamic split fuse, prefix cache off, {properties['NUM_STREAMS']} stream",
        }

    def generate(self, prompts: list[list[int]], max_tokens: int, on_token: OnToken) -> None:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = max_tokens
        config.ignore_eos = True
        config.do_sample = False
        handles = []
        for prompt in prompts:
            ids = openvino.Tensor(np.array([prompt], dtype=np.int64))
            handles.append(self._pipeline.add_request(self._requests, ids, config))
            self._requests += 1
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            for index, handle in enumerate(handles):
                while handle.can_read():
                    for output in handle.read().values():
                        for token in output.generated_ids:
                            on_token(index, token)


def open_engine(settings: Settings) -> Engine:
    return OpenVino(settings)


if __name__ == "__main__":
    serve(open_engine)
