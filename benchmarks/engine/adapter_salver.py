"""Salver: the Python engine with its scheduler, sampler and detokenizer, over the runner asked for.

The model is a `STORE#DIGEST`: opening it verifies its bytes, as a worker does.
"""

from itertools import count
from pathlib import Path

from protocol import Engine, OnToken, Settings, serve

from salver import __version__
from salver.clock import MonotonicClock
from salver.contract import GenerateRequest, SamplingParams
from salver.engine import EngineCore, Limits
from salver.engine.plan import ModelRunner
from salver.flow import QueueBound
from salver.models import Model, open_model
from salver.registry import ArtifactStore, Digest
from salver.worker.confinement import limit_threads

NUMPY_BLOCK_TOKENS, NATIVE_BLOCK_TOKENS = 16, 32
BYTES_PER_WEIGHT = {"f32": 4.0, "bf16": 2.0, "w8a16": 1.0, "w8a8": 1.0}


class Salver:
    """Settings: those of a contract's envelope, with a KV pool that holds every stream whole. The
    prefix cache is on, as always, and never hits: no two prompts share a block."""

    def __init__(self, settings: Settings) -> None:
        batch_tokens = int(settings.options["max_batch_tokens"])
        quantization = settings.options["quantization"]
        store, _, digest = settings.model.partition("#")
        limit_threads(settings.threads)
        model = open_model(ArtifactStore(Path(store)).open_verified(Digest.parse(digest)))
        eos, tokenizer = model.tokenizer.eos_token_ids, model.tokenizer
        self._engine = EngineCore.build(
            open_runner(model, settings, batch_tokens),
            MonotonicClock(),
            Limits(settings.max_running, batch_tokens, settings.max_context_tokens),
            QueueBound(settings.max_running, settings.max_running * settings.max_context_tokens),
            eos,
            lambda skip: tokenizer.decoder(skip_special_tokens=skip),
        )
        self._names = map(str, count())
        config = model.config
        self.facts: dict[str, str | int] = {
            "version": __version__,
            "settings": f"{settings.options['engine']}, {batch_tokens} tokens a step",
            "bytes_per_token": round(config.num_parameters * BYTES_PER_WEIGHT[quantization]),
            "operations_per_token": 2
            * (config.num_parameters - config.vocab_size * config.hidden_size),
        }

    def generate(self, prompts: list[list[int]], max_tokens: int, on_token: OnToken) -> None:
        sampling = SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)
        indices = {next(self._names): index for index in range(len(prompts))}
        for name, index in indices.items():
            self._engine.add(GenerateRequest(name, tuple(prompts[index]), sampling))
        while self._engine.has_work:
            for chunk in self._engine.step():
                for token in chunk.token_ids:
                    on_token(indices[chunk.request_id], token)


def open_runner(model: Model, settings: Settings, batch_tokens: int) -> ModelRunner:
    """The runner that `engine` and `quantization` name. Imported here: one build may lack the other."""

    def blocks(block_tokens: int) -> int:
        return settings.max_running * -(-settings.max_context_tokens // block_tokens)

    if settings.options["engine"] == "numpy":
        from salver.engine.runners.numpy_runner import NumpyRunner

        return NumpyRunner(
            model.checkpoint,
            num_blocks=blocks(NUMPY_BLOCK_TOKENS),
            block_size=NUMPY_BLOCK_TOKENS,
            threads=settings.threads,
        )
    from salver.engine.runners.native_runner import NativeRunner

    return NativeRunner(
        model.checkpoint,
        num_blocks=blocks(NATIVE_BLOCK_TOKENS),
        max_batch_tokens=batch_tokens,
        precision=settings.options["quantization"],
        threads=settings.threads,
    )


def open_engine(settings: Settings) -> Engine:
    return Salver(settings)


if __name__ == "__main__":
    serve(open_engine)
