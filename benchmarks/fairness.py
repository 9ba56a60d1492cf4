"""What a quiet tenant notices of a loud one: on the native engine, fair turns beside first come, first
served.

    python benchmarks/fairness.py [--seconds 10] [--contract examples/smollm2.yaml]

The quiet tenant asks four times a second (128 tokens in, 8 out). Beside it, in turn: nobody; a flood
of a hundred times as many requests (128 in, 64 out); prompts of 8,000 tokens, more than can be computed.
In process, so that nothing but the engine is measured; arrivals are on the clock, whatever the engine
does, and TTFT counts from when a request was meant to come. What has to hold: the quiet tenant's p95
TTFT is at most 1.5 times that alone, plus one step: the longest there was, since it may have just
begun. The last scene has two tenants that both always wait, and tells the gap in weighted service as
a part of its bound (law 5).
"""

import argparse
import random
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import msgspec

from salver.cli.fit import runner_kind
from salver.cli.home import store_root
from salver.contract import GenerateRequest, SamplingParams, load_deployment
from salver.engine import EngineCore, ModelRunner, ModelRunnerOutput, SchedulerOutput
from salver.flow import Share, Tariff
from salver.testing.service_audit import ServiceAudit
from salver.worker.confinement import limit_threads
from salver.worker.model_engine import open_model_engine
from salver.worker.spec import WorkerSpec

CONTEXT = 8192
WARM_UP = 1.0  # seconds of the loud tenant alone
SHARES = {"quiet": Share(), "loud": Share()}


@dataclass(frozen=True)
class Load:
    """One tenant's requests: so many a second, of such lengths."""

    tenant: str
    rate: float
    prompt: int
    output: int


QUIET = Load("quiet", 4.0, 128, 8)
FLOOD = Load("loud", 400.0, 128, 64)
LONG = Load("loud", 2.0, 8000, 64)


@dataclass(frozen=True)
class Seen:
    """Of one scene: the quiet tenant's TTFTs and all steps, in seconds, sorted; the gap of law 5."""

    ttft: list[float]
    steps: list[float]
    gap: float
    preemptions: int


class WatchedRunner:
    """Times each step, and shows it to an audit."""

    def __init__(self, runner: ModelRunner, audit: ServiceAudit, core: EngineCore) -> None:
        self.num_blocks, self.block_size = runner.num_blocks, runner.block_size
        self.steps: list[float] = []
        self._runner, self._audit, self._core = runner, audit, core

    def execute(self, plan: SchedulerOutput) -> ModelRunnerOutput:
        began = time.perf_counter()
        output = self._runner.execute(plan)
        self.steps.append(time.perf_counter() - began)
        self._show(plan)
        return output

    def _show(self, plan: SchedulerOutput) -> None:
        scheduler = self._core.scheduler
        running = {each.key: _named(each.key, each.tenant) for each in scheduler._running}
        decoded = {s.key for s in plan.sequences if s.sample and s.sample.output}
        one_behind = {s.key for s in plan.sequences if s.end - s.start == 1 and s.key in decoded}
        waiting = {(each.traffic_class, each.tenant) for each in scheduler._order}
        self._audit.step(plan, running, one_behind, waiting)


def _named(key: str, tenant: str) -> GenerateRequest:
    return GenerateRequest(key, (), SamplingParams(max_tokens=1), tenant=tenant)


def arrivals(loads: Collection[Load], seconds: float) -> list[tuple[float, Load]]:
    """All tenants' arrivals, evenly spaced; the quiet tenant begins after the warm-up."""
    at = []
    for load in loads:
        start = WARM_UP if load.tenant == "quiet" else 0.0
        number = int((seconds - start) * load.rate)
        at += [(start + (index + 0.37) / load.rate, load) for index in range(number)]
    return sorted(at, key=lambda each: each[0])


def requests(seed: int) -> Iterator[int]:
    rng = random.Random(seed)
    while True:
        yield rng.randrange(1000, 40000)


def play(core: EngineCore, loads: Collection[Load], seconds: float, tariff: Tariff) -> Seen:
    """Play the loads' arrivals for so long, then let go of what is left."""
    scheduler = core.scheduler
    audit = ServiceAudit(scheduler.kv, SHARES, scheduler.limits, tariff)
    watched = WatchedRunner(core.runner, audit, core)
    core.runner, inner = watched, core.runner
    before, names, tokens = scheduler.num_preemptions, count(), requests(1)
    meant: dict[str, float] = {}
    ttft: dict[str, float] = {}
    coming = arrivals(loads, seconds)
    began = time.perf_counter()
    while (now := time.perf_counter() - began) < seconds:
        while coming and coming[0][0] <= now:
            at, load = coming.pop(0)
            name = f"{load.tenant}-{next(names)}"
            prompt = tuple(next(tokens) for _ in range(load.prompt))
            sampling = SamplingParams(load.output, temperature=0.0, ignore_eos=True)
            core.add(
                GenerateRequest(name, prompt, sampling, tenant=load.tenant, cache_salt=load.tenant)
            )
            meant[name] = at
        if not core.has_work:
            time.sleep(0.0002)
            continue
        for chunk in core.step():
            if chunk.token_ids and chunk.request_id not in ttft:
                ttft[chunk.request_id] = time.perf_counter() - began - meant[chunk.request_id]
    # A quiet request that has no token yet has waited until now.
    waited = {name: seconds - at for name, at in meant.items() if name.startswith("quiet")}
    quiet = sorted(ttft.get(name, wait) for name, wait in waited.items())
    for name in meant:
        core.cancel(name)
    while core.has_work:
        core.step()
    core.runner = inner
    preemptions = scheduler.num_preemptions - before
    return Seen(quiet, sorted(watched.steps), audit.worst, preemptions)


def p95(values: list[float]) -> float:
    return values[min(len(values) - 1, int(0.95 * len(values)))] if values else float("nan")


def show(name: str, seen: Seen, alone: Seen | None) -> None:
    line = (
        f"{name:<24} TTFT p50 {1e3 * seen.ttft[len(seen.ttft) // 2]:7.1f}  p95 "
        f"{1e3 * p95(seen.ttft):8.1f} ms of {len(seen.ttft):3}   longest step "
        f"{1e3 * seen.steps[-1]:6.1f} ms   preempted {seen.preemptions:3}"
    )
    if alone:
        allowed = 1.5 * p95(alone.ttft) + seen.steps[-1]
        holds = "holds" if p95(seen.ttft) <= allowed else "FAILS"
        line += f"   allowed {1e3 * allowed:6.1f} ms: {holds}"
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--contract", type=Path, default=Path("examples/smollm2.yaml"))
    parser.add_argument("--max-running", type=int, default=16)
    options = parser.parse_args()
    release = load_deployment(options.contract).release
    spec = WorkerSpec(
        name="fairness",
        store=str(store_root()),
        digest=release.digest,
        memory_bytes=4 * 2**30,
        threads=release.envelope.threads,
        max_context_tokens=CONTEXT,
        max_running=options.max_running,
        max_batch_tokens=release.envelope.max_batch_tokens,
        max_queued_requests=100_000,
        max_queued_tokens=100_000_000,
        runner=runner_kind(release.runtime),
        shares=SHARES,
    )
    limit_threads(spec.threads)
    fair, facts = open_model_engine(spec)
    fcfs, _ = open_model_engine(msgspec.structs.replace(spec, shares=None))
    tariff = Tariff.of_machine(facts.latency) if facts.latency else Tariff()
    print(f"{facts.latency}, {tariff}", flush=True)

    def scene(core: EngineCore, *loads: Load) -> Seen:
        return play(core, loads, options.seconds, tariff)

    alone = scene(fair, QUIET)
    show("alone", alone, None)
    for name, loud in (("flood", FLOOD), ("long prompts", LONG)):
        show(f"{name}, fair", scene(fair, QUIET, loud), alone)
        show(f"{name}, fcfs", scene(fcfs, QUIET, loud), alone)
    for name, core in (("fair", fair), ("fcfs", fcfs)):
        seen = scene(core, replace(FLOOD, tenant="quiet"), LONG)
        print(f"both always wait, {name}: the gap came to {seen.gap:.0%} of its bound", flush=True)


if __name__ == "__main__":
    main()
