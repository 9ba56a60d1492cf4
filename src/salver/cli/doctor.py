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
    from salver.cli.roofline import Comparison, Rates
    from salver.contract import Envelope
    from salver.engine.memory import MemoryPlan
    from salver.engine.runners.choice import RunnerKind
    from salver.models import Checkpoint

_CONTRACT_SUFFIXES = (".yaml", ".yml")
NO_CORE = "not in this installation, and without it nothing is measured"
NO_ROOFLINE = (
    "a roofline is measured by the native core: only a contract with `engine: native` has one"
)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`rates` is None without the native core, `plan` without a model, or if it does not fit.

    `comparison` needs both, and a model that runs on the core.
    """

    machine: "Machine"
    rates: "Rates | None"
    plan: "MemoryPlan | None" = None
    problem: DoesNotFit | None = None
    comparison: "Comparison | None" = None


def doctor(
    target: Annotated[
        Path | None, typer.Argument(help="A model file or directory, or a contract.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure this machine; show what would fit on it, and how fast it is and could be."""
    diagnosis = _diagnose(target)
    if as_json:
        console.say_json(_record(diagnosis))
        return
    console.say("machine\n" + console.table(_machine_rows(diagnosis)))
    if diagnosis.plan:
        console.say(f"{target} fits\n{console.table(memory_rows(diagnosis.plan))}")
        console.say(_roofline(diagnosis))
    if problem := diagnosis.problem:
        console.say(f"{target} does not fit: {problem.problem}")
        console.say(console.table([("rule", problem.rule), ("fix", problem.fix)]))


def _diagnose(target: Path | None) -> Diagnosis:
    from salver.cli.fit import plan_envelope
    from salver.cli.machine import this_machine

    machine = this_machine()
    model = _model(target, machine) if target else None
    rates = _rates(machine)
    if model is None:
        return Diagnosis(machine, rates)
    kind, envelope, checkpoint = model
    try:
        plan = plan_envelope(kind, envelope, checkpoint)
    except DoesNotFit as problem:
        return Diagnosis(machine, rates, problem=problem)
    if not (rates and kind.is_native):
        return Diagnosis(machine, rates, plan)
    from salver.cli.roofline import Subject, compare

    comparison = compare(Subject(checkpoint, kind, envelope, plan))
    return Diagnosis(machine, rates, plan, comparison=comparison)


def _rates(machine: "Machine") -> "Rates | None":
    from salver.engine.runners.choice import native_is_built

    if not native_is_built():
        return None
    from salver.cli.roofline import Rates

    return Rates.measure(machine.cores)


def _model(target: Path, machine: "Machine") -> "tuple[RunnerKind, Envelope, Checkpoint]":
    """The model's file, opened, with the runner and the envelope of a contract; or those that give
    a bare model all the machine has."""
    from salver.cli.fit import default_kind, runner_kind
    from salver.contract import Envelope, load_deployment
    from salver.models import open_checkpoint

    if target.suffix in _CONTRACT_SUFFIXES:
        release = load_deployment(target).release
        return (
            runner_kind(release.runtime),
            release.envelope,
            open_checkpoint(_in_store(release.digest, target)),
        )
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


def _in_store(digest: str, contract: Path) -> Path:
    """The artifact's path, its bytes hashed.

    Raises:
        FetchError: it was not pulled yet.
        IntegrityError: the bytes are not those of the digest.
    """
    from salver.registry import ArtifactStore, Digest

    root, parsed = store_root(), Digest.parse(digest)
    if root.is_dir() and parsed in (store := ArtifactStore(root)):
        return store.open_verified(parsed)
    fix = f"salver pull {contract}"
    raise FetchError(f"{digest} is not in the store", rule="registry.present", fix=fix)


def _machine_rows(diagnosis: Diagnosis) -> list[tuple[str, ...]]:
    machine = diagnosis.machine
    rows = [
        ("cpu", machine.cpu),
        ("isa", " ".join(machine.isa) or "none that matters"),
        ("cores", str(machine.cores)),
        ("memory", console.size(machine.memory_total)),
        ("available", console.size(machine.memory_available)),
    ]
    if diagnosis.rates is None:
        from salver.cli.fit import TO_GET_THE_CORE

        return [*rows, ("native core", f"{NO_CORE}: {TO_GET_THE_CORE}")]
    from salver.cli.roofline import rates_rows

    return rows + rates_rows(diagnosis.rates)


def _roofline(diagnosis: Diagnosis) -> str:
    if diagnosis.comparison is None:
        return NO_ROOFLINE
    from salver.cli.roofline import comparison_text

    return comparison_text(diagnosis.comparison)


def _record(diagnosis: Diagnosis) -> dict[str, Any]:
    problem, plan, comparison = diagnosis.problem, diagnosis.plan, diagnosis.comparison
    return {
        "machine": asdict(diagnosis.machine),
        "rates": asdict(diagnosis.rates) if diagnosis.rates else None,
        "fits": None if not (plan or problem) else problem is None,
        "memory": memory_record(plan) if plan else None,
        "problem": console.record(problem) if problem else None,
        "roofline": comparison and comparison.record(),
    }
