"""Rules that hold one part of a mix against another.

As in `salver.contract.soundness`, a mix may be partial here: reading a field with a fault of its own
raises AttributeError, upon which that check has nothing more to say.
"""

from collections.abc import Callable, Iterator
from typing import Any

from salver.contract.document import Location
from salver.contract.section import Section
from salver.contract.soundness import Finding
from salver.workload.mix import Flow, Lengths, Mix

_BOUNDS = ("min", "max")


def findings(mix: Mix) -> Iterator[Finding]:
    """What every check finds in a mix that may be partial."""
    for check in _CHECKS:
        yield from _unless_faulty(check, mix)
    for index, flow in enumerate(_flows(mix)):
        for check_flow in _FLOW_CHECKS:
            yield from _unless_faulty(check_flow, flow, ("flows", index))


def _unless_faulty(check: Callable[..., Iterator[Finding]], *on: Any) -> Iterator[Finding]:
    try:
        yield from check(*on)
    except AttributeError:  # it needs a value that has a fault of its own
        return


def _flows(mix: Mix) -> tuple[Flow, ...]:
    return getattr(mix, "flows", ())


def _objective(mix: Mix) -> Iterator[Finding]:
    if mix.slo.ttft is None and mix.slo.tpot is None and mix.slo.e2e is None:
        yield Finding(("slo",), "mix.objective", "add `ttft: 1s`, `tpot: 100ms` or `e2e: 20s`")


def _window(mix: Mix) -> Iterator[Finding]:
    if (mix.warmup or 0.0) + (mix.cooldown or 0.0) >= mix.duration:
        fix = "make it longer than warmup and cooldown together"
        yield Finding(("duration",), "mix.window", fix)


def _some_flow(mix: Mix) -> Iterator[Finding]:
    if not mix.flows:
        yield Finding(("flows",), "mix.not_empty", "write at least one flow")


def _flow_names(mix: Mix) -> Iterator[Finding]:
    names = [getattr(flow, "name", None) for flow in mix.flows]
    for index, name in enumerate(names):
        if name is not None and name in names[:index]:
            fix = "give each flow its own name"
            yield Finding(("flows", index, "name"), "mix.flow_names", fix)


def _closed_loop_alone(mix: Mix) -> Iterator[Finding]:
    for index, flow in enumerate(mix.flows):
        if flow.arrivals.closed_loop and len(mix.flows) > 1:
            fix = "give it a mix of its own"
            yield Finding(("flows", index, "arrivals"), "mix.closed_loop_alone", fix)


def _one_kind_each(flow: Flow, at: Location) -> Iterator[Finding]:
    for name in ("arrivals", "prompts", "input", "output"):
        choice = getattr(flow, name, None)
        if isinstance(choice, Section):
            yield from _one_of(choice, (*at, name))
    turns = flow.sessions and flow.sessions.turns
    if turns:
        yield from _one_of(turns, (*at, "sessions", "turns"))


def _one_of(choice: Section, at: Location) -> Iterator[Finding]:
    kinds = [name for name in type(choice).model_fields if name not in _BOUNDS]
    given = [name for name in kinds if getattr(choice, name) is not None]
    if len(given) != 1:
        yield Finding(at, "mix.one_of", f"write one of {', '.join(kinds)}")
    if isinstance(choice, Lengths):
        yield from _ordered(choice, at)


def _ordered(lengths: Lengths, at: Location) -> Iterator[Finding]:
    fix = "write the smaller number first"
    if lengths.uniform and lengths.uniform[0] > lengths.uniform[1]:
        yield Finding((*at, "uniform"), "mix.range", fix)
    if lengths.max is not None and lengths.min > lengths.max:
        yield Finding((*at, "max"), "mix.range", f"write at least min ({lengths.min})")


def _token_range(flow: Flow, at: Location) -> Iterator[Finding]:
    ids = flow.prompts.tokens
    if ids and ids[0] >= ids[1]:
        fix = "write [first, last), the first id below the last"
        yield Finding((*at, "prompts", "tokens"), "mix.range", fix)


def _input_fits_prompts(flow: Flow, at: Location) -> Iterator[Finding]:
    if flow.prompts.tokens and not flow.input:
        yield Finding((*at, "input"), "mix.input", "add `input: {fixed: 128}`")
    if flow.prompts.jsonl and flow.input:
        yield Finding((*at, "input"), "mix.input", "remove it")
    if flow.prompts.jsonl and flow.prefixes:
        fix = "remove it, or write `system` beside the file"
        yield Finding((*at, "prefixes"), "mix.token_prompts", fix)


def _trace_named(flow: Flow, at: Location) -> Iterator[Finding]:
    if flow.trace:
        return
    users = [("arrivals", flow.arrivals), ("input", flow.input), ("output", flow.output)]
    for name, choice in users:
        if choice is not None and choice.trace is not None:
            fix = "add `trace: {file: …, format: …}` to the flow"
            yield Finding((*at, name, "trace"), "mix.trace_named", fix)


def _turns_not_traced(flow: Flow, at: Location) -> Iterator[Finding]:
    if flow.sessions and flow.sessions.turns.trace is not None:
        fix = "write fixed, uniform, lognormal or empirical"
        yield Finding((*at, "sessions", "turns"), "mix.one_of", fix)
    if flow.sessions and flow.arrivals.closed_loop:
        fix = "remove the sessions, or give the flow an open arrival process"
        yield Finding((*at, "sessions"), "mix.closed_loop_alone", fix)


def _some_tenant(flow: Flow, at: Location) -> Iterator[Finding]:
    if not flow.tenants:
        fix = "name at least one, or remove the key: one tenant named default sends all"
        yield Finding((*at, "tenants"), "mix.not_empty", fix)


def _tenant_names(flow: Flow, at: Location) -> Iterator[Finding]:
    names = [getattr(tenant, "name", None) for tenant in flow.tenants]
    for index, name in enumerate(names):
        if name is not None and name in names[:index]:
            fix = "give each tenant its own name, with one share"
            yield Finding((*at, "tenants", index, "name"), "mix.tenant_names", fix)


_CHECKS = (_objective, _window, _some_flow, _flow_names, _closed_loop_alone)
_FLOW_CHECKS = (
    _one_kind_each,
    _token_range,
    _input_fits_prompts,
    _trace_named,
    _turns_not_traced,
    _some_tenant,
    _tenant_names,
)
