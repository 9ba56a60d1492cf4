"""Rules that hold one part of a contract against another.

Each check reads a `Deployment` and yields what it finds. The deployment may be partial: a field
with a fault of its own is absent, and reading it raises AttributeError, upon which that check has
nothing more to say. (mypy proves that a name is a field at all, so nothing else can be meant.) A
contract therefore gets its faults of both kinds in one go.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from salver.contract.deployment import Deployment
from salver.contract.document import Location
from salver.contract.quantities import format_duration
from salver.contract.release import Engine, KvCache, Quantization

RUNTIMES = {
    Engine.NUMPY: ((Quantization.F32,), (KvCache.F32,)),
    Engine.NATIVE: (
        (Quantization.BF16, Quantization.W8A16, Quantization.W8A8, Quantization.Q4),
        (KvCache.BF16, KvCache.INT8, KvCache.F32),
    ),
    Engine.UPSTREAM: (tuple(Quantization), tuple(KvCache)),
}
"""For each engine, the quantizations and the KV cache types it knows; any pair of them goes, but for
the f32 cache of the native core, which is part of its exact mode."""

_EXACT = (Quantization.F32, Quantization.BF16)


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault before its value and line are looked up in the file."""

    at: Location
    rule: str
    fix: str


Check = Callable[[Deployment], Iterator[Finding]]


def findings(deployment: Deployment) -> Iterator[Finding]:
    """What every check finds in a deployment that may be partial."""
    for check in CHECKS:
        try:
            yield from check(deployment)
        except AttributeError:  # it needs a value that has a fault of its own
            continue


def _output_within_context(deployment: Deployment) -> Iterator[Finding]:
    envelope = deployment.release.envelope
    if envelope.max_output_tokens >= envelope.max_context_tokens:
        yield Finding(
            ("release", "envelope", "max_output_tokens"),
            "envelope.output_within_context",
            f"keep it under max_context_tokens ({envelope.max_context_tokens}), "
            "which the prompt shares",
        )


def _queue_holds_a_prompt(deployment: Deployment) -> Iterator[Finding]:
    longest = deployment.release.envelope.max_context_tokens
    if deployment.admission.max_queued_tokens < longest:
        yield Finding(
            ("admission", "max_queued_tokens"),
            "admission.queue_holds_a_prompt",
            f"raise it to at least max_context_tokens ({longest})",
        )


def _quantization_of_engine(deployment: Deployment) -> Iterator[Finding]:
    runtime = deployment.release.runtime
    known = RUNTIMES[runtime.engine][0]
    if runtime.quantization not in known:
        fix = f"with engine {runtime.engine} write {' or '.join(known)}"
        yield Finding(("release", "runtime", "quantization"), "runtime.combination", fix)


def _kv_cache_of_engine(deployment: Deployment) -> Iterator[Finding]:
    runtime = deployment.release.runtime
    known = RUNTIMES[runtime.engine][1]
    if runtime.kv_cache not in known:
        fix = f"with engine {runtime.engine} write {' or '.join(known)}"
        yield Finding(("release", "runtime", "kv_cache"), "runtime.combination", fix)
    elif runtime.engine is Engine.UPSTREAM:
        return
    elif runtime.kv_cache is KvCache.F32 and runtime.quantization not in _EXACT:
        fix = f"with quantization {runtime.quantization} write bf16 or int8"
        yield Finding(("release", "runtime", "kv_cache"), "runtime.combination", fix)


def _first_token_within_answer(deployment: Deployment) -> Iterator[Finding]:
    slo = deployment.slo
    if slo and slo.ttft_p95 and slo.e2e_p99 and slo.ttft_p95 > slo.e2e_p99:
        whole = format_duration(slo.e2e_p99)
        fix = f"the first token cannot be allowed longer than the answer (e2e_p99, {whole})"
        yield Finding(("slo", "ttft_p95"), "slo.consistent", fix)


def _tenants_differ(deployment: Deployment) -> Iterator[Finding]:
    names = (getattr(tenant, "name", None) for tenant in deployment.tenants)
    for index in _repeats(names):
        yield Finding(("tenants", index, "name"), "names.unique", "give each tenant its own name")


def _backends_differ(deployment: Deployment) -> Iterator[Finding]:
    names = (getattr(backend, "name", None) for backend in deployment.backends)
    for index in _repeats(names):
        yield Finding(("backends", index, "name"), "names.unique", "give each backend its own name")


def _replicas_exist(deployment: Deployment) -> Iterator[Finding]:
    known = [backend.name for backend in deployment.backends]
    for index, name in enumerate(deployment.served_by):
        if name not in known:
            choice = f"name one of {', '.join(known)}, or add it" if known else "add it"
            fix = f"{choice} under backends"
            yield Finding(("served_by", index), "served_by.backend_exists", fix)
    for index in _repeats(deployment.served_by):
        yield Finding(("served_by", index), "names.unique", "name each replica once")


def _replicas_are_of_an_upstream(deployment: Deployment) -> Iterator[Finding]:
    upstream = deployment.release.runtime.engine is Engine.UPSTREAM
    if upstream and not deployment.served_by:
        fix = "list the backends that serve the release under served_by"
        yield Finding(("release", "runtime", "engine"), "served_by.engine", fix)
    if deployment.served_by and not upstream:
        fix = "with served_by write `engine: upstream`, or leave served_by out"
        yield Finding(("served_by",), "served_by.engine", fix)


def _steps_rise(deployment: Deployment) -> Iterator[Finding]:
    steps = deployment.rollout.steps if deployment.rollout else (1.0,)
    for index, (step, following) in enumerate(pairwise((0.0, *steps))):
        if following <= step:
            fix = "write shares above 0%, each larger than the one before"
            yield Finding(("rollout", "steps", index), "rollout.steps_rise", fix)
    if steps[-1] != 1.0:
        at = ("rollout", "steps", len(steps) - 1)
        yield Finding(at, "rollout.ends_at_all", "end with 100%: a rollout ends with all traffic")


def _fallback_is_one_thing(deployment: Deployment) -> Iterator[Finding]:
    for index, step in enumerate(deployment.fallback):
        if (step.backend is None) == (step.static is None):
            fix = "write either `backend: NAME` or `static: TEXT`"
            yield Finding(("fallback", index), "fallback.one_thing", fix)


def _fallback_exists(deployment: Deployment) -> Iterator[Finding]:
    known = [backend.name for backend in deployment.backends]
    for index, step in enumerate(deployment.fallback):
        if step.backend is not None and step.backend not in known:
            choice = f"name one of {', '.join(known)}, or add it" if known else "add it"
            fix = f"{choice} under backends"
            yield Finding(("fallback", index, "backend"), "fallback.backend_exists", fix)


def _fallback_is_reached(deployment: Deployment) -> Iterator[Finding]:
    for index, (before, _) in enumerate(pairwise(deployment.fallback), start=1):
        if before.static is not None:
            fix = "move the static text to the end: it always answers, so nothing follows it"
            yield Finding(("fallback", index), "fallback.reached", fix)


def _repeats(names: Iterable[str | None]) -> Iterator[int]:
    """Indices of names that were seen before; None, a faulty name, repeats nothing."""
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield index
        if name is not None:
            seen.add(name)


CHECKS: tuple[Check, ...] = (
    _output_within_context,
    _queue_holds_a_prompt,
    _quantization_of_engine,
    _kv_cache_of_engine,
    _first_token_within_answer,
    _tenants_differ,
    _backends_differ,
    _replicas_exist,
    _replicas_are_of_an_upstream,
    _steps_rise,
    _fallback_is_one_thing,
    _fallback_exists,
    _fallback_is_reached,
)
