"""What a scrape shows, read back with the client library's own parser."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from salver.contract import FinishReason, LoadSnapshot, Outcome, Timings
from salver.telemetry import (
    BreakerChanged,
    FellBack,
    Latencies,
    RequestEnded,
    RequestRefused,
    ServiceLabels,
    UpstreamAsked,
)
from salver.telemetry.exporters.prometheus import MAX_RULES, PrometheusExporter

LABELS = ServiceLabels("assistant", "r1", "tiny", "development", "0.1.0")
VLLM = {"model_name": "tiny"}
OWN = {"deployment": "assistant", "release": "r1"}
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def exporter(load: LoadSnapshot | None = None, *, ready: bool = True) -> PrometheusExporter:
    return PrometheusExporter(
        LABELS, load=lambda: load or LoadSnapshot(), ready=lambda: ready, worker_restarts=lambda: 3
    )


def scrape(exporter: PrometheusExporter) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exporter.render().decode())
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def ended(outcome: Outcome = Outcome.FINISHED) -> RequestEnded:
    return RequestEnded(
        endpoint="chat",
        outcome=outcome,
        prompt_tokens=10,
        cached_tokens=4,
        output_tokens=3,
        latencies=Latencies(ttft=0.5, tpot=0.25, e2e=1.0, gaps=(0.2, 0.3)),
        timings=(Timings(arrived=1.0, scheduled=1.25, first_token=1.5, ended=2.0),),
        reasons=(FinishReason.STOP,),
    )


def test_the_levels_are_read_at_each_scrape() -> None:
    load = LoadSnapshot(
        requests_waiting=2,
        requests_running=3,
        kv_blocks_total=8,
        kv_blocks_owned=2,
        preemptions=5,
        prefix_cache_queries=100,
        prefix_cache_hits=40,
        step_seconds=2.0,
        predicted_step_seconds=1.5,
        step_error_seconds=0.75,
    )
    told = scrape(exporter(load, ready=False))
    assert told[key("vllm:num_requests_waiting", **VLLM)] == 2
    assert told[key("vllm:num_requests_running", **VLLM)] == 3
    assert told[key("vllm:kv_cache_usage_perc", **VLLM)] == 0.25
    assert told[key("vllm:num_preemptions_total", **VLLM)] == 5
    assert told[key("vllm:prefix_cache_queries_total", **VLLM)] == 100
    assert told[key("vllm:prefix_cache_hits_total", **VLLM)] == 40
    assert told[key("salver_engine_step_seconds_total", **OWN)] == 2.0
    assert told[key("salver_engine_predicted_step_seconds_total", **OWN)] == 1.5
    assert told[key("salver_engine_step_error_seconds_total", **OWN)] == 0.75
    assert told[key("salver_ready", **OWN)] == 0
    assert told[key("salver_worker_restarts_total", **OWN)] == 3
    assert told[key("salver_info", **OWN, mode="development", version="0.1.0")] == 1


@pytest.mark.parametrize(
    ("name", "total", "count"),
    [
        ("time_to_first_token_seconds", 0.5, 1),
        ("inter_token_latency_seconds", 0.5, 2),
        ("e2e_request_latency_seconds", 1.0, 1),
        ("request_time_per_output_token_seconds", 0.25, 1),
        ("request_queue_time_seconds", 0.25, 1),
        ("request_prefill_time_seconds", 0.25, 1),
        ("request_decode_time_seconds", 0.5, 1),
    ],
)
def test_durations(name: str, total: float, count: int) -> None:
    metrics = exporter()
    metrics.observe(ended())
    told = scrape(metrics)
    assert told[key(f"vllm:{name}_sum", **VLLM)] == pytest.approx(total)
    assert told[key(f"vllm:{name}_count", **VLLM)] == count


def test_counts() -> None:
    metrics = exporter()
    metrics.observe(ended())
    metrics.observe(ended(Outcome.EXPIRED))
    metrics.observe(RequestRefused("envelope.max_context_tokens", 413))
    told = scrape(metrics)
    requests = {outcome: key("salver_requests_total", **OWN, tenant="default", endpoint="chat", outcome=outcome)
                for outcome in ("finished", "expired")}  # fmt: skip
    assert [told[name] for name in requests.values()] == [1, 1]
    assert told[key("salver_tokens_total", **OWN, tenant="default", kind="cached")] == 8
    assert told[key("salver_tokens_total", **OWN, tenant="default", kind="output")] == 6
    assert told[key("vllm:request_success_total", **VLLM, finished_reason="stop")] == 1
    refused = key(
        "salver_refusals_total", **OWN, tenant="", rule="envelope.max_context_tokens", code="413"
    )
    assert told[refused] == 1


def test_the_rule_label_cannot_grow_without_bound() -> None:
    metrics = exporter()
    for number in range(MAX_RULES + 50):
        metrics.observe(RequestRefused(f"rule.{number}", 429))
    rules = [
        dict(labels)["rule"] for name, labels in scrape(metrics) if name == "salver_refusals_total"
    ]
    assert len(rules) == MAX_RULES + 1
    told = scrape(metrics)
    assert told[key("salver_refusals_total", **OWN, tenant="", rule="other", code="429")] == 50


def test_two_services_do_not_share_counts() -> None:
    first, second = exporter(), exporter()
    first.observe(ended())
    assert scrape(second)[key("vllm:time_to_first_token_seconds_count", **VLLM)] == 0


def test_calls_to_other_servers_are_counted() -> None:
    one = exporter()
    for event in (
        UpstreamAsked("a", again=False),
        UpstreamAsked("b", again=True),
        BreakerChanged("a", opened=True),
        BreakerChanged("a", opened=False),
        FellBack("blue", "small"),
    ):
        one.observe(event)
    told = scrape(one)
    for upstream, retries in (("a", 0), ("b", 1)):
        assert told[key("salver_upstream_calls_total", **OWN, upstream=upstream)] == 1
        assert told[key("salver_upstream_retries_total", **OWN, upstream=upstream)] == retries
    for to in ("open", "closed"):
        assert told[key("salver_breaker_changes_total", **OWN, upstream="a", to=to)] == 1
    assert told[key("salver_fallbacks_total", **OWN, tenant="blue", backend="small")] == 1
