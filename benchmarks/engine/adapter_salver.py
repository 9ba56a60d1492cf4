"""Salver as its worker runs it: the Python engine with scheduler, sampler and detokenizer.

The model is a `STORE#DIGEST`: opening it verifies its bytes, as a worker does.
"""

from itertools import count

from protocol import Engine, OnToken, Settings, serve

from salver import __version__
from salver.contract import GenerateRequest, SamplingParams
from salver.engine.runners.choice import RunnerKind
from salver.worker.confinement import limit_threads
from salver.worker.model_engine import open_model_engine
from salver.worker.spec import WorkerSpec

ENVELOPE_BYTES = 4 * 2**30


class Salver:
    """Settings: those of a contract's envelope. The prefix cache is on, as always, and never hits: no
    two prompts share a block."""

    def __init__(self, settings: Settings) -> None:
        store, _, digest = settings.model.partition("#")
        spec = WorkerSpec(
            name="benchmark",
            store=store,
            digest=digest,
            memory_bytes=ENVELOPE_BYTES,
            threads=settings.threads,
            max_context_tokens=settings.max_context_tokens,
            max_running=settings.max_running,
            max_batch_tokens=int(settings.options["max_batch_tokens"]),
            max_queued_requests=settings.max_running,
            max_queued_tokens=settings.max_running * settings.max_context_tokens,
            runner=RunnerKind(settings.options["runner"]),
        )
        limit_threads(spec.threads)
        self._engine, _ = open_model_engine(spec)
        self._names = map(str, count())
        self.facts: dict[str, str | int] = {
            "version": __version__,
            "settings": f"{spec.runner}, {spec.max_batch_tokens} tokens a step",
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


def open_engine(settings: Settings) -> Engine:
    return Salver(settings)


if __name__ == "__main__":
    serve(open_engine)
