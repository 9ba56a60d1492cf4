"""Whether a release fits: its model against its envelope, its envelope against the machine.

`salver check` shows the proof, `salver serve` requires it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from salver.cli.console import size
from salver.cli.machine import Machine
from salver.contract import Engine, Envelope, Release, Runtime
from salver.engine.memory import MemoryPlan, plan_memory
from salver.engine.runners.choice import RunnerKind, native_is_built
from salver.errors import ContractError, DoesNotFit
from salver.models import Checkpoint, open_checkpoint
from salver.registry import ArtifactStore, Digest

if TYPE_CHECKING:
    from salver.models import Model

TO_GET_THE_CORE = (
    "install a C++20 compiler (such as g++), then run `make setup` again after `make clean`"
)


@dataclass(frozen=True, slots=True)
class Fit:
    """`plan` is None if the model does not fit its envelope, or if nothing is known of the model:
    `unproven` then says so. `problems` lists all that does not fit."""

    plan: MemoryPlan | None
    problems: tuple[DoesNotFit, ...] = ()
    unproven: str = ""

    def require(self) -> MemoryPlan:
        """The plan.

        Raises:
            DoesNotFit: the first problem, or that nothing was proven.
        """
        if self.problems:
            raise self.problems[0]
        if self.plan is None:
            raise DoesNotFit(self.unproven, rule="envelope.memory", fix="pull the artifact first")
        return self.plan


@dataclass(frozen=True, slots=True)
class Artifact:
    """A release's model as this process verified it: hashed once, then opened once.

    Whatever is made of it comes from this opening. A GGUF's metadata were read from the mapping right
    after its file was hashed and are plain values since; its weights stay on the mapped file, which a
    path that leads elsewhere meanwhile does not change. Of a directory, the tokenizer's small files
    are read from the path.
    """

    path: Path
    checkpoint: Checkpoint

    def model(self) -> "Model":
        """With tokenizer and chat template, which take a tenth of a second to build.

        Raises:
            MalformedModel: a part is damaged, hostile, or does not go with the others.
            UnsupportedModel: a part is not known here.
        """
        from salver.models import complete_model  # `salver check` needs neither

        return complete_model(self.checkpoint, self.path)


def artifact_in_store(release: Release, store_root: Path) -> Artifact | None:
    """The model's file, of bytes whose digest was just checked; None if it was not pulled yet.

    Raises:
        IntegrityError: the bytes are not those of the digest, or no model.
    """
    digest = Digest.parse(release.digest)
    if not store_root.is_dir() or digest not in (store := ArtifactStore(store_root)):
        return None
    path = store.open_verified(digest)
    return Artifact(path, open_checkpoint(path))


def prove_fit(release: Release, checkpoint: Checkpoint | None, machine: Machine) -> Fit:
    """Hold the model against the envelope and the envelope against the machine.

    Of a release that other servers compute, only its tokenizer has to be here.

    Raises:
        UnsupportedModel: the runtime computes with 4-bit groups, and the model has none.
    """
    if release.runtime.engine is Engine.UPSTREAM:
        return Fit(None, unproven="" if checkpoint else "its tokenizer is not in the store")
    problems = machine_problems(release.envelope, machine)
    if checkpoint is None:
        return Fit(None, problems, "the artifact is not in the store, so its size is not known")
    try:
        plan = plan_envelope(runner_kind(release.runtime), release.envelope, checkpoint)
        return Fit(plan, problems)
    except DoesNotFit as problem:
        return Fit(None, (problem, *problems))


def runner_kind(runtime: Runtime) -> RunnerKind:
    """The runner that a runtime, found available, asks for.

    Raises:
        ContractError: other servers compute the release.
    """
    if runtime.engine is Engine.UPSTREAM:
        raise ContractError(
            "other servers compute this release: nothing of it runs on this machine"
        )
    return RunnerKind(f"{runtime.engine}/{runtime.quantization}/{runtime.kv_cache}")


def default_kind() -> RunnerKind:
    """What computes where no contract says: the native core, where this installation has it."""
    return RunnerKind.NATIVE_W8A16 if native_is_built() else RunnerKind.NUMPY_F32


def plan_envelope(kind: RunnerKind, envelope: Envelope, checkpoint: Checkpoint) -> MemoryPlan:
    """Divide the envelope's memory for a kind of runner.

    Raises:
        DoesNotFit: the envelope is too small, or its context too long for the model.
        UnsupportedModel: the runner computes with 4-bit groups, and the model has none.
    """
    return plan_memory(
        checkpoint.config,
        kind,
        formats=checkpoint.formats,
        memory_bytes=envelope.memory,
        threads=envelope.threads,
        max_batch_tokens=envelope.max_batch_tokens,
        max_running=envelope.max_running,
        max_context_tokens=envelope.max_context_tokens,
    )


def machine_problems(envelope: Envelope, machine: Machine) -> tuple[DoesNotFit, ...]:
    """What the envelope asks for and the machine does not have."""
    problems = []
    if envelope.memory > machine.memory_available:
        available = size(machine.memory_available)
        problems.append(
            DoesNotFit(
                f"the envelope asks for {size(envelope.memory)} and {available} is available",
                rule="machine.memory",
                value=envelope.memory,
                limit=machine.memory_available,
                fix="lower release.envelope.memory, or free memory on this machine",
            )
        )
    if envelope.threads > machine.cores:
        problems.append(
            DoesNotFit(
                f"the envelope asks for {envelope.threads} threads on {machine.cores} cores",
                rule="machine.threads",
                value=envelope.threads,
                limit=machine.cores,
                fix=f"set release.envelope.threads to at most {machine.cores}",
            )
        )
    return tuple(problems)
