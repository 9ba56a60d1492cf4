"""`salver check`: every fault of a contract, what of it is enforced, and whether it fits.

The findings are this command's result, so they go to stdout, faults included.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salver.cli import console
from salver.cli.exits import Exit
from salver.cli.home import forced_isa, store_root
from salver.errors import ContractError

if TYPE_CHECKING:
    from salver.cli.fit import Artifact, Fit
    from salver.cli.outlook import Outlook
    from salver.contract import DeclaredOnly, Deployment, Fault
    from salver.engine.forecast import Forecast
    from salver.engine.memory import MemoryPlan
    from salver.errors import DoesNotFit


@dataclass(frozen=True, slots=True)
class Report:
    """What `check` found. `deployment` is None if the file makes none; `fit` and `outlook` if it has
    faults; `artifact` also if it is not in the store."""

    file: Path
    deployment: "Deployment | None" = None
    faults: "tuple[Fault, ...]" = ()
    declared_only: "tuple[DeclaredOnly, ...]" = ()
    artifact: "Artifact | None" = None
    fit: "Fit | None" = None
    outlook: "Outlook | None" = None

    @property
    def problems(self) -> "tuple[DoesNotFit, ...]":
        """All that does not fit, memory and threads first."""
        return tuple(p for part in (self.fit, self.outlook) if part for p in part.problems)

    def exit(self, *, strict: bool) -> Exit:
        """The command's exit code; `strict` makes a fit that is not proven a failure."""
        if self.faults or self.fit is None:
            return Exit.USAGE
        if self.problems:
            return Exit.DOES_NOT_FIT
        return Exit.FAILED if strict and self.fit.unproven else Exit.DONE


def check(
    file: Annotated[Path, typer.Argument(help="The contract.")],
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail if the fit cannot be proven (artifact absent).")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a contract: every fault, what is enforced, and whether it fits this machine."""
    report = examine(file)
    code = report.exit(strict=strict)
    if as_json:
        console.say_json(_record(report, code))
    else:
        console.say("\n".join(report_lines(report)))
    if code:
        raise typer.Exit(code)


def examine(file: Path) -> Report:
    """Run every check on a contract. What is wrong with it is in the report, not raised.

    Raises:
        IntegrityError: the artifact in the store is damaged, or no model.
        UnsupportedModel: the model needs what this build does not compute.
        ContractError: the environment forces a path of the core that is not here.
    """
    from salver.contract import declared_only, load_deployment, unavailable
    from salver.engine.runners.choice import native_is_built

    try:
        deployment = load_deployment(file)
    except ContractError as error:
        return Report(file, faults=error.faults)
    isa = forced_isa()
    if faults := unavailable(deployment, native_core=native_is_built()):
        return Report(file, deployment, faults, declared_only(deployment))
    return Report(file, deployment, (), declared_only(deployment), *_held(deployment, isa))


def _held(
    deployment: "Deployment", isa: str | None
) -> "tuple[Artifact | None, Fit, Outlook | None]":
    """The release held against the machine, and the objectives against what it measured; nothing is
    measured here of a release that other servers compute."""
    from salver.cli.fit import artifact_in_store, prove_fit
    from salver.cli.last_start import LastStart
    from salver.cli.machine import this_machine
    from salver.cli.outlook import foretell
    from salver.contract import Engine

    release, machine = deployment.release, this_machine()
    artifact = artifact_in_store(release, store_root())
    fit = prove_fit(release, artifact.checkpoint if artifact else None, machine)
    if release.runtime.engine is Engine.UPSTREAM:
        return artifact, fit, None
    latency = LastStart(store_root(), release, machine, isa).latency()
    return artifact, fit, foretell(deployment.slo, release.envelope, fit.plan, latency)


def report_lines(report: Report) -> Iterator[str]:
    """The report for a person."""
    for fault in report.faults:
        yield console.fault_text(fault, file=str(report.file))
    if report.faults:
        count = len(report.faults)
        yield f"{count} fault{'s' * (count > 1)}; `salver explain RULE` tells why a rule exists"
    if report.deployment:
        yield f"{console.bold(report.deployment.name)}  release {report.deployment.release.id}"
    if report.declared_only:
        yield console.yellow("declared, but not yet enforced by this version")
        yield console.table([(part.path, part.sentence) for part in report.declared_only])
    for problem in report.problems:
        yield f"{console.red('does not fit')}: {problem.problem}"
        yield console.table([("rule", problem.rule), ("fix", problem.fix)])
    if report.fit:
        yield from _fit_lines(report.fit, report.file)
    if report.outlook:
        yield from _outlook_lines(report.outlook)


def _outlook_lines(outlook: "Outlook") -> Iterator[str]:
    if outlook.unknown:
        yield f"{console.yellow('latency not foretold')}: {outlook.unknown}"
        yield console.table(
            [("fix", "serve it once: each start measures, and keeps what it found")]
        )
    if outlook.forecasts:
        yield "latency with max_running at once, waiting in the queue not counted"
        yield console.table([_forecast_row(forecast) for forecast in outlook.forecasts])


def _forecast_row(forecast: "Forecast") -> tuple[str, ...]:
    low, high, limit = (1000 * s for s in (forecast.least, forecast.most, forecast.limit))
    between = f"{low:.1f} to {high:.1f} ms"
    return forecast.objective, f"{limit:g} ms", between, forecast.verdict.value


def _fit_lines(fit: "Fit", file: Path) -> Iterator[str]:
    if fit.unproven:
        yield f"{console.yellow('not proven to fit')}: {fit.unproven}"
        yield console.table([("fix", f"salver pull {file}, then check again")])
    if fit.plan:
        yield "fits" if not fit.problems else "would need"
        yield console.table(memory_rows(fit.plan))


def memory_rows(plan: "MemoryPlan") -> list[tuple[str, ...]]:
    """A memory plan for a person."""
    return [
        ("process", console.size(plan.base_bytes)),
        ("weights", console.size(plan.weights_bytes)),
        ("largest step", console.size(plan.activation_bytes)),
        ("KV pool", f"{console.size(plan.kv_pool_bytes)} for {plan.kv_tokens:,} tokens"),
        ("total", console.size(plan.total_bytes)),
    ]


def _record(report: Report, code: Exit) -> dict[str, Any]:
    fit, deployment = report.fit, report.deployment
    return {
        "file": str(report.file),
        "ok": code is Exit.DONE,
        "exit_code": int(code),
        "name": deployment.name if deployment else None,
        "release": deployment.release.id if deployment else None,
        "faults": [asdict(fault) for fault in report.faults],
        "declared_only": [asdict(part) for part in report.declared_only],
        "fit": fit
        and {
            "proven": not fit.unproven,
            "problems": [console.record(problem) for problem in report.problems],
            "memory": memory_record(fit.plan) if fit.plan else None,
        },
        "latency": report.outlook and _outlook_record(report.outlook),
    }


def _outlook_record(outlook: "Outlook") -> dict[str, Any]:
    """Forecasts for a program; times in seconds."""
    forecasts = [{**asdict(f), "verdict": f.verdict.name.lower()} for f in outlook.forecasts]
    return {"unknown": outlook.unknown, "forecasts": forecasts}


def memory_record(plan: "MemoryPlan") -> dict[str, int]:
    """A memory plan for a program; sizes in bytes."""
    sizes = asdict(plan)
    return {**sizes, "kv_pool_bytes": plan.kv_pool_bytes, "kv_tokens": plan.kv_tokens}
