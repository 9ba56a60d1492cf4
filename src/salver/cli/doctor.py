"""`salver doctor`: what this machine has for serving, and what would fit on it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salver.cli import console
from salver.cli.check import memory_record, memory_rows
from salver.cli.home import store_root
from salver.errors import DoesNotFit, FetchError

if TYPE_CHECKING:
    from salver.cli.machine import Machine
    from salver.contract import Envelope
    from salver.engine.memory import MemoryPlan
    from salver.engine.runners.choice import RunnerKind
    from salver.models import Checkpoint

_CONTRACT_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`bandwidth` is in bytes per second. `plan` is None without a model, or if it does not fit."""

    machine: "Machine"
    bandwidth: float
    plan: "MemoryPlan | None" = None
    problem: DoesNotFit | None = None

    @property
    def decode_bound(self) -> float | None:
        """Tokens per second of one sequence if every token reads every weight from memory.

        A model that fits the processor's caches can be faster.
        """
        return self.bandwidth / self.plan.weights_bytes if self.plan else None


def doctor(
    target: Annotated[
        Path | None, typer.Argument(help="A model file or directory, or a contract.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what this machine has for serving, and what would fit on it."""
    diagnosis = _diagnose(target)
    if as_json:
        console.say_json(_record(diagnosis))
        return
    console.say("machine\n" + console.table(_machine_rows(diagnosis)))
    if diagnosis.plan:
        rows = memory_rows(diagnosis.plan)
        rows.append(
            ("decode bound", f"{diagnosis.decode_bound:.0f} tokens/s for one sequence, from memory")
        )
        console.say(f"{target} fits\n{console.table(rows)}")
    if problem := diagnosis.problem:
        console.say(f"{target} does not fit: {problem.problem}")
        console.say(console.table([("rule", problem.rule), ("fix", problem.fix)]))


def _diagnose(target: Path | None) -> Diagnosis:
    from salver.cli.fit import plan_envelope
    from salver.cli.machine import read_bandwidth, this_machine

    machine = this_machine()
    model = _model(target, machine) if target else None
    bandwidth = read_bandwidth(machine)
    if model is None:
        return Diagnosis(machine, bandwidth)
    try:
        return Diagnosis(machine, bandwidth, plan_envelope(*model))
    except DoesNotFit as problem:
        return Diagnosis(machine, bandwidth, problem=problem)


def _model(target: Path, machine: "Machine") -> "tuple[RunnerKind, Envelope, Checkpoint]":
    """The runner, the envelope and the model's file: from a contract, or a model with all the machine has."""
    from salver.cli.fit import checkpoint_in_store, default_kind, runner_kind
    from salver.contract import Envelope, load_deployment
    from salver.models import open_checkpoint

    if target.suffix in _CONTRACT_SUFFIXES:
        release = load_deployment(target).release
        if checkpoint := checkpoint_in_store(release, store_root()):
            return runner_kind(release.runtime), release.envelope, checkpoint
        fix = f"salver pull {target}"
        raise FetchError(f"{release.digest} is not in the store", rule="registry.present", fix=fix)
    checkpoint = open_checkpoint(target)
    context = min(checkpoint.config.max_positions, 4096)
    envelope = Envelope.model_construct(
        memory=machine.memory_available,
        threads=machine.cores,
        max_context_tokens=context,
        max_output_tokens=context - 1,
        max_running=64,
        max_batch_tokens=512,
    )
    return default_kind(), envelope, checkpoint


def _machine_rows(diagnosis: Diagnosis) -> list[tuple[str, ...]]:
    machine = diagnosis.machine
    return [
        ("cpu", machine.cpu),
        ("isa", " ".join(machine.isa) or "none that matters"),
        ("cores", str(machine.cores)),
        ("read bandwidth", f"{diagnosis.bandwidth / 1e9:.1f} GB/s on all cores, measured"),
        ("memory", console.size(machine.memory_total)),
        ("available", console.size(machine.memory_available)),
    ]


def _record(diagnosis: Diagnosis) -> dict[str, Any]:
    problem = diagnosis.problem
    return {
        "machine": asdict(diagnosis.machine),
        "read_bandwidth_bytes_per_second": diagnosis.bandwidth,
        "fits": None if not (diagnosis.plan or problem) else problem is None,
        "memory": memory_record(diagnosis.plan) if diagnosis.plan else None,
        "decode_bound_tokens_per_second": diagnosis.decode_bound,
        "problem": console.record(problem) if problem else None,
    }
