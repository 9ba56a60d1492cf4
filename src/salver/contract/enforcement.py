"""Which parts of a contract this version keeps, and which it can only read.

A contract may declare what a later version will enforce; it is then validated like the rest, and
`salver check` says plainly that nothing acts on it yet. Every field of the schema is in exactly one
of the two lists, by itself or through the section that holds it; a test walks the schema and fails
for a field that is in neither. A third list has what is kept by our own engine only.
"""

from dataclasses import dataclass
from typing import Any

from salver.contract.deployment import Deployment
from salver.contract.faults import Fault
from salver.contract.release import Engine
from salver.contract.section import Section

ENFORCED = {
    "apiVersion": "read by this version or refused",
    "kind": "read by this version or refused",
    "name": "the model name that callers must use",
    "owner": "required; shown where a person looks when it breaks",
    "release.artifact": "where `salver pull` fetches the bytes",
    "release.digest": "checked against the bytes before one of them is used",
    "release.runtime.engine": "an engine that this build lacks is refused",
    "release.runtime.quantization": "a kind that the engine lacks is refused",
    "release.runtime.kv_cache": "a kind that the engine lacks is refused",
    "release.envelope.memory": "sizes the KV pool; held against the machine before the start",
    "release.envelope.threads": "bounds the threads that compute; held against the machine's cores",
    "release.envelope.max_context_tokens": "a longer request is refused",
    "release.envelope.max_output_tokens": "a request that asks for more is refused",
    "release.envelope.max_running": "bounds the sequences in a batch",
    "release.envelope.max_batch_tokens": "bounds the tokens of a step",
    "slo.ttft_p95": "a request that waits too long for it is not begun; see too_late",
    "slo.tpot_p95": "bounds the prompt tokens of a step while others wait for their next token, and "
    "the requests at another server",
    "admission.max_queued_requests": "a request beyond it is refused",
    "admission.max_queued_tokens": "a request beyond it is refused",
    "admission.default_timeout": "the deadline of a request that brings none",
    "admission.too_late": "decides on requests that wait too long for slo.ttft_p95",
    "admission.overload": "decides who gives way when the queue is full",
    "admission.scheduling": "the order of turns in a step, or of what is sent to other servers",
    "admission.state_away.authentication": "decides on keys while the state store is away",
    "admission.state_away.requests_per_minute": "decides on it while the state store is away",
    "admission.state_away.tokens_per_minute": "decides on it while the state store is away",
    "admission.state_away.max_in_flight": "decides on it while the state store is away",
    "admission.state_away.max_tokens_in_flight": "decides on it while the state store is away",
    "tenants.name": "a request needs a key of a tenant that is declared",
    "tenants.weight": "divides the service among tenants of one class that wait",
    "tenants.class": "the class of its requests, which go before those of lower classes",
    "tenants.kv_share": "beyond it, its requests make room for other tenants' that wait",
    "tenants.requests_per_minute": "reserved before a request, over all gateways; beyond it 429",
    "tenants.tokens_per_minute": "reserved before a request and settled after it; beyond it 429",
    "tenants.max_in_flight": "reserved before a request; beyond it 429",
    "tenants.max_tokens_in_flight": "reserved before a request; beyond it 429",
    "probes.interval": "a probe inference runs that often; /ready rests on it",
    "probes.wedge_after": "a worker whose step takes longer is replaced",
    "fallback.backend": "asked when what stands before it cannot take a request",
    "fallback.static": "the answer when nothing before it can take a request",
    "backends.name": "names the server in served_by, fallback, logs and Decisions",
    "backends.openai": "where requests are sent",
    "backends.model": "the model that it is asked for",
    "backends.prompts": "what it is sent: token ids, or the conversation",
    "backends.max_tokens_in_flight": "a request beyond it goes elsewhere, or is refused with 429",
    "backends.bearer_variable": "read at the start; its value is sent as the bearer key",
    "served_by": "the servers that compute the answers; none is started here",
    "upstreams.retries": "a retry beyond it is not made",
    "upstreams.hedging": "no request is sent twice at once",
    "upstreams.breaker_failures": "opens the server's breaker",
    "upstreams.breaker_wait": "no request goes out meanwhile",
    "upstreams.connect_within": "a connection that takes longer has failed",
    "upstreams.silent_after": "ends what awaits a byte, as a failure, and what nobody reads on",
}
"""Field path -> how it is kept."""

NOT_YET = {
    "slo.e2e_p99": "No answer is held against it; deadlines are.",
    "slo.availability": "Nothing is measured against it yet.",
    "probes.golden": "Probes check that the worker answers, not what it answers.",
    "rollout": "A new release replaces the old one at once, by a restart.",
    "telemetry.prompt_logging": "Prompts are never logged.",
    "telemetry.trace_sample": "No request is traced.",
}
"""Path of a field or of a whole section -> what happens instead, as one sentence."""

NOT_YET_UPSTREAM = {
    "tenants.kv_share": "Other servers share out their KV pools themselves.",
}
"""The same where other servers compute (`engine: upstream`), besides NOT_YET."""

_KEPT_ANYWAY = {
    "telemetry.prompt_logging": "off",
    "telemetry.trace_sample": 0.0,
}
"""Values of not yet enforced fields that say what happens in any case."""


_NO_CORE = (
    "this installation has no native core: install a C++ compiler and reinstall, or use "
    "`engine: numpy` with `quantization: f32` and `kv_cache: f32`"
)


@dataclass(frozen=True, slots=True)
class DeclaredOnly:
    """A part that the deployment declares and this version does not enforce."""

    path: str
    sentence: str


def declared_only(deployment: Deployment) -> tuple[DeclaredOnly, ...]:
    """The parts that the deployment declares and this version does not enforce."""
    upstream = deployment.release.runtime.engine is Engine.UPSTREAM
    parts = {**NOT_YET, **(NOT_YET_UPSTREAM if upstream else {})}
    return tuple(
        DeclaredOnly(path, sentence)
        for path, sentence in parts.items()
        if (declared := _declared(deployment, path)) is not None
        if declared != _KEPT_ANYWAY.get(path)
    )


def enforcement_of(path: str) -> tuple[bool, str]:
    """Whether the field or section at a path is enforced, and how, or what happens instead.

    A section that is enforced in parts says nothing itself.
    """
    if path in ENFORCED:
        return True, ENFORCED[path]
    while path and path not in NOT_YET:
        path = path.rpartition(".")[0]
    return False, NOT_YET.get(path, "")


def unavailable(deployment: Deployment, *, native_core: bool) -> tuple[Fault, ...]:
    """What the contract asks for by right but this installation does not have.

    `native_core` says whether it has one, which a contract cannot know.
    """
    runtime = deployment.release.runtime
    if runtime.engine is not Engine.NATIVE:
        return ()
    if native_core:
        return ()
    return (
        Fault("release.runtime.engine", runtime.engine.value, "runtime.engine_available", _NO_CORE),
    )


def _declared(section: Section, path: str) -> Any:
    """The value that was first written at the path, or None if the file does not have it."""
    key, _, rest = path.partition(".")
    names = {info.alias or name: name for name, info in type(section).model_fields.items()}
    value = getattr(section, names[key]) if names[key] in section.model_fields_set else None
    if not rest or value is None:
        return value
    parts = value if isinstance(value, tuple) else (value,)
    return next((found for part in parts if (found := _declared(part, rest)) is not None), None)
