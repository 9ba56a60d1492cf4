"""Events and load as Prometheus metrics.

Two vocabularies side by side. The `vllm:*` names are the model-server protocol that llm-d, KServe
and the Gateway API inference extension read to route traffic; they carry vLLM's `model_name` label.
The `salver_*` names are our own and carry `deployment` and `release`, and, where they count requests,
`tenant`: only names that a contract declares, so there are as many as it has. Levels are read from the
backend at scrape time, so that a scrape never shows a stale gauge; durations are observed as
requests end. Each exporter owns its registry: two services in one process do not meet.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from salver.contract import LoadSnapshot, Outcome, Timings
from salver.telemetry.events import (
    BreakerChanged,
    Event,
    FellBack,
    QuotaUnchecked,
    RequestEnded,
    RequestRefused,
    ServiceLabels,
    UpstreamAsked,
)

MAX_RULES = 64  # distinct values of the `rule` label; further ones are counted as `other`

_TTFT = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 20, 40, 80)
_PER_TOKEN = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2.5)
_WHOLE = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 3.5, 5, 7.5, 10, 15, 20, 30, 60, 120, 300)

_HISTOGRAMS = {
    "time_to_first_token_seconds": ("From the request's arrival to its first token.", _TTFT),
    "inter_token_latency_seconds": ("Gap between consecutive tokens, pooled.", _PER_TOKEN),
    "request_time_per_output_token_seconds": ("(E2E - TTFT) / (tokens - 1).", _PER_TOKEN),
    "e2e_request_latency_seconds": ("From the request's arrival to its end.", _WHOLE),
    "request_queue_time_seconds": ("From the engine's queue to the first step.", _WHOLE),
    "request_prefill_time_seconds": ("From the first step to the first token.", _WHOLE),
    "request_decode_time_seconds": ("From the first token to the end.", _WHOLE),
}


class PrometheusExporter:
    """Counts events and renders them in the Prometheus text format 0.0.4.

    `load`, `ready`, `worker_restarts` and `decisions_lost` are called at every scrape and must not block.
    """

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(
        self,
        labels: ServiceLabels,
        *,
        load: Callable[[], LoadSnapshot],
        ready: Callable[[], bool],
        worker_restarts: Callable[[], int],
        decisions_lost: Callable[[], int] = lambda: 0,
    ) -> None:
        self._registry = CollectorRegistry(auto_describe=True)
        self._registry.register(_Levels(labels, load, ready, worker_restarts))
        self._registry.register(_DecisionsLost(labels, decisions_lost))
        self._vllm = _VllmMetrics(self._registry, labels.model)
        self._salver = _SalverMetrics(self._registry, labels)
        self._upstreams = _UpstreamMetrics(self._registry, labels)

    def observe(self, event: Event) -> None:
        """Count one event. An `Observer`."""
        match event:
            case RequestEnded():
                self._vllm.ended(event)
                self._salver.ended(event)
            case RequestRefused():
                self._salver.refused(event)
            case QuotaUnchecked():
                self._salver.unchecked(event)
            case UpstreamAsked() | BreakerChanged() | FellBack():
                self._upstreams.observe(event)

    def render(self) -> bytes:
        """Every metric as it stands now."""
        return generate_latest(self._registry)


class _VllmMetrics:
    def __init__(self, registry: CollectorRegistry, model: str) -> None:
        self._histograms = {
            name: Histogram(
                f"vllm:{name}", text, ("model_name",), buckets=buckets, registry=registry
            ).labels(model)
            for name, (text, buckets) in _HISTOGRAMS.items()
        }
        self._prompt = Counter(
            "vllm:prompt_tokens", "Prompt tokens taken.", ("model_name",), registry=registry
        ).labels(model)
        self._generated = Counter(
            "vllm:generation_tokens", "Tokens generated.", ("model_name",), registry=registry
        ).labels(model)
        self._success = Counter(
            "vllm:request_success",
            "Choices that ended as they should.",
            ("model_name", "finished_reason"),
            registry=registry,
        )
        self._model = model

    def ended(self, event: RequestEnded) -> None:
        self._prompt.inc(event.prompt_tokens)
        self._generated.inc(event.output_tokens)
        times = event.latencies
        self._observe("time_to_first_token_seconds", times.ttft)
        self._observe("request_time_per_output_token_seconds", times.tpot)
        observe_gap = self._histograms["inter_token_latency_seconds"].observe
        for gap in times.gaps:
            observe_gap(gap)
        for timings in event.timings:
            self._phases(timings)
        if event.outcome is Outcome.FINISHED:
            self._observe("e2e_request_latency_seconds", times.e2e)
            for reason in event.reasons:
                self._success.labels(self._model, reason.value).inc()

    def _phases(self, timings: Timings) -> None:
        instants = (timings.arrived, timings.scheduled, timings.first_token, timings.ended)
        names = ("request_queue", "request_prefill", "request_decode")
        for name, start, end in zip(names, instants[:-1], instants[1:], strict=True):
            if start is not None and end is not None:
                self._observe(f"{name}_time_seconds", end - start)

    def _observe(self, name: str, seconds: float | None) -> None:
        if seconds is not None:
            self._histograms[name].observe(seconds)


class _SalverMetrics:
    def __init__(self, registry: CollectorRegistry, labels: ServiceLabels) -> None:
        count = partial(_own_counter, registry)
        self._own = (labels.deployment, labels.release)
        self._rules: set[str] = set()
        self._requests = count(
            "salver_requests", "Accepted requests by outcome.", "tenant", "endpoint", "outcome"
        )
        self._refusals = count(
            "salver_refusals",
            "Requests turned away, by rule and status code.",
            "tenant",
            "rule",
            "code",
        )
        self._tokens = count(
            "salver_tokens",
            "Tokens by kind: prompt (cached ones included), cached, output.",
            "tenant",
            "kind",
        )
        self._unchecked = count(
            "salver_quota_unchecked",
            "Requests admitted while the state store was away and their quotas failed open.",
            "tenant",
        )

    def ended(self, event: RequestEnded) -> None:
        own = (*self._own, event.tenant)
        self._requests.labels(*own, event.endpoint, event.outcome.value).inc()
        self._tokens.labels(*own, "prompt").inc(event.prompt_tokens)
        self._tokens.labels(*own, "cached").inc(event.cached_tokens)
        self._tokens.labels(*own, "output").inc(event.output_tokens)

    def refused(self, event: RequestRefused) -> None:
        rule = self._capped(event.rule)
        self._refusals.labels(*self._own, event.tenant, rule, str(event.status)).inc()

    def unchecked(self, event: QuotaUnchecked) -> None:
        self._unchecked.labels(*self._own, event.tenant).inc()

    def _capped(self, rule: str) -> str:
        if rule not in self._rules and len(self._rules) >= MAX_RULES:
            return "other"
        self._rules.add(rule)
        return rule


class _UpstreamMetrics:
    """Other servers and what stands in for them; their names are those that a contract declares."""

    def __init__(self, registry: CollectorRegistry, labels: ServiceLabels) -> None:
        count = partial(_own_counter, registry)
        self._own = (labels.deployment, labels.release)
        self._calls = count("salver_upstream_calls", "Requests sent to other servers.", "upstream")
        self._retries = count(
            "salver_upstream_retries",
            "Of these, requests that a server had failed before.",
            "upstream",
        )
        self._breakers = count(
            "salver_breaker_changes",
            "Times a server was left alone (open) or used again (closed).",
            "upstream",
            "to",
        )
        self._fallbacks = count(
            "salver_fallbacks", "Requests handed to a fallback, by its name.", "tenant", "backend"
        )

    def observe(self, event: UpstreamAsked | BreakerChanged | FellBack) -> None:
        match event:
            case UpstreamAsked(upstream, again):
                self._calls.labels(*self._own, upstream).inc()
                self._retries.labels(*self._own, upstream).inc(again)
            case BreakerChanged(upstream, opened):
                self._breakers.labels(*self._own, upstream, "open" if opened else "closed").inc()
            case FellBack(tenant, backend):
                self._fallbacks.labels(*self._own, tenant, backend).inc()


class _Levels(Collector):
    """Reads the backend when a scrape asks."""

    def __init__(
        self,
        labels: ServiceLabels,
        load: Callable[[], LoadSnapshot],
        ready: Callable[[], bool],
        worker_restarts: Callable[[], int],
    ) -> None:
        self._labels = labels
        self._load = load
        self._ready = ready
        self._worker_restarts = worker_restarts

    def describe(self) -> Iterator[Metric]:
        """Name the families without touching the backend."""
        yield from self._families(LoadSnapshot(), ready=False, restarts=0)

    def collect(self) -> Iterator[Metric]:
        yield from self._families(
            self._load(), ready=self._ready(), restarts=self._worker_restarts()
        )

    def _families(self, load: LoadSnapshot, *, ready: bool, restarts: int) -> Iterator[Metric]:
        model = (("model_name", self._labels.model),)
        own = (("deployment", self._labels.deployment), ("release", self._labels.release))
        about = (*own, ("mode", self._labels.mode), ("version", self._labels.version))
        yield _gauge("vllm:num_requests_waiting", "Requests waiting.", model, load.requests_waiting)
        yield _gauge("vllm:num_requests_running", "Requests running.", model, load.requests_running)
        yield _gauge("vllm:kv_cache_usage_perc", "KV blocks in use, 0 to 1.", model, load.kv_usage)
        yield _counter("vllm:num_preemptions", "Preemptions.", model, load.preemptions)
        yield _counter(
            "vllm:prefix_cache_queries", "Tokens looked up.", model, load.prefix_cache_queries
        )
        yield _counter("vllm:prefix_cache_hits", "Tokens found.", model, load.prefix_cache_hits)
        yield _gauge("salver_ready", "1 while new requests are taken.", own, ready)
        yield _gauge("salver_tokens_waiting", "Prompt tokens waiting.", own, load.tokens_waiting)
        pool = load.kv_blocks_total * load.kv_block_tokens
        yield _gauge("salver_kv_pool_tokens", "Tokens that the KV pool holds.", own, pool)
        yield _gauge("salver_kv_blocks_cached", "Blocks kept for hits.", own, load.kv_blocks_cached)
        yield _counter("salver_engine_steps", "Engine steps.", own, load.steps)
        yield _counter(
            "salver_late_tokens",
            "Tokens of steps in which a deadline passed.",
            own,
            load.late_tokens,
        )
        yield _counter(
            "salver_overdue_tokens",
            "Tokens of steps that began after their request's deadline: none.",
            own,
            load.overdue_tokens,
        )
        for name, text, seconds in _step_seconds(load):
            yield _counter(name, text, own, seconds)
        yield _counter("salver_worker_restarts", "Times a worker was restarted.", own, restarts)
        yield _gauge("salver_info", "What is being served.", about, 1)


def _step_seconds(load: LoadSnapshot) -> Iterator[tuple[str, str, float]]:
    """The rate of the error over the rate of the steps is how wrong the latency model is."""
    yield "salver_engine_step_seconds", "What the steps took.", load.step_seconds
    yield (
        "salver_engine_predicted_step_seconds",
        "What the latency model predicted for the steps.",
        load.predicted_step_seconds,
    )
    yield (
        "salver_engine_step_error_seconds",
        "How far prediction and step were apart, each step by itself.",
        load.step_error_seconds,
    )


class _DecisionsLost(Collector):
    """Reads the log of decisions when a scrape asks."""

    def __init__(self, labels: ServiceLabels, lost: Callable[[], int]) -> None:
        self._own = (("deployment", labels.deployment), ("release", labels.release))
        self._lost = lost

    def collect(self) -> Iterator[Metric]:
        text = "Decisions that could not be recorded."
        yield _counter("salver_decisions_lost", text, self._own, self._lost())


def _own_counter(registry: CollectorRegistry, name: str, text: str, *labels: str) -> Counter:
    """Counts by deployment, release and these labels."""
    return Counter(name, text, ("deployment", "release", *labels), registry=registry)


_Labels = Sequence[tuple[str, str]]


def _gauge(name: str, text: str, labels: _Labels, value: float) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[key for key, _ in labels])
    family.add_metric([label for _, label in labels], value)
    return family


def _counter(name: str, text: str, labels: _Labels, value: float) -> Metric:
    family = CounterMetricFamily(name, text, labels=[key for key, _ in labels])
    family.add_metric([label for _, label in labels], value)
    return family
