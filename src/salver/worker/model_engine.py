"""From a spec to an engine over the real model: verify, open, plan, run."""

from pathlib import Path

from salver.clock import MonotonicClock
from salver.engine import EngineCore, MemoryPlan, plan_memory
from salver.engine.calibration import calibrate
from salver.engine.runners.choice import open_runner
from salver.models import Checkpoint, open_checkpoint, open_detokenizer
from salver.registry import ArtifactStore, Digest
from salver.worker.confinement import give_back_freed_memory
from salver.worker.frames import ModelFacts
from salver.worker.packed_weights import packed_weights
from salver.worker.spec import WorkerSpec

CALIBRATION_SECONDS = 0.2


def open_model_engine(spec: WorkerSpec) -> tuple[EngineCore, ModelFacts]:
    """Open the spec's artifact with the runner it names.

    The bytes are hashed in this process, since it is this process that serves them (law 8).

    Raises:
        IntegrityError: they are not what the digest says, or not a model that can be trusted.
        FetchError: the artifact is not in the store.
        DoesNotFit: the envelope is too small for it.
    """
    digest = Digest.parse(spec.digest)
    path = ArtifactStore(Path(spec.store)).open_verified(digest)
    checkpoint = open_checkpoint(path)
    plan = plan_of(spec, checkpoint)
    clock = MonotonicClock()
    detokenizer = open_detokenizer(checkpoint, path)  # text is the gateway's
    runner = open_runner(
        spec.runner,
        checkpoint,
        num_blocks=plan.num_blocks,
        threads=spec.threads,
        max_batch_tokens=spec.max_batch_tokens,
        isa=spec.isa,
        kept=packed_weights(spec, digest) if spec.runner.is_native else None,
    )
    give_back_freed_memory()
    latency = calibrate(
        runner,
        clock,
        max_batch_tokens=spec.max_batch_tokens,
        max_context_tokens=spec.max_context_tokens,
        budget_seconds=CALIBRATION_SECONDS,
    )
    core = EngineCore.build(
        runner,
        clock,
        spec.limits(),
        spec.admission(),
        detokenizer.eos_token_ids,
        lambda skip: detokenizer.decoder(skip_special_tokens=skip),
        latency,
        shares=spec.shares,
    )
    facts = ModelFacts(
        architecture=checkpoint.config.architecture,
        num_parameters=checkpoint.config.num_parameters,
        weights_bytes=plan.weights_bytes,
        planned_bytes=plan.total_bytes,
        latency=latency,
    )
    return core, facts


def plan_of(spec: WorkerSpec, checkpoint: Checkpoint) -> MemoryPlan:
    """What the spec's memory is for. Raises DoesNotFit."""
    return plan_memory(
        checkpoint.config,
        spec.runner,
        formats=checkpoint.formats,
        memory_bytes=spec.memory_bytes,
        threads=spec.threads,
        max_batch_tokens=spec.max_batch_tokens,
        max_running=spec.max_running,
        max_context_tokens=spec.max_context_tokens,
    )
