"""The latency objectives of a contract, held against what the last start measured here."""

from dataclasses import dataclass

from salver.contract import Envelope, LatencyModel, Slo
from salver.contract.quantities import format_duration
from salver.engine.forecast import Concurrency, Forecast, Verdict, forecast_tpot, forecast_ttft
from salver.engine.memory import MemoryPlan
from salver.errors import DoesNotFit


@dataclass(frozen=True, slots=True)
class Outlook:
    """`forecasts` of the objectives there are. Where none could be made, `unknown` says why."""

    forecasts: tuple[Forecast, ...] = ()
    unknown: str = ""

    @property
    def problems(self) -> tuple[DoesNotFit, ...]:
        """The objectives that this machine cannot keep."""
        return tuple(_problem(f) for f in self.forecasts if f.verdict is Verdict.BROKEN)


def foretell(
    slo: Slo | None, envelope: Envelope, plan: MemoryPlan | None, latency: LatencyModel | None
) -> Outlook:
    """Hold `ttft_p95` and `tpot_p95` against the machine; `plan` is None for what does not fit."""
    if slo is None or (slo.ttft_p95 is None and slo.tpot_p95 is None):
        return Outlook()
    if plan is None:
        return Outlook(unknown="the memory plan comes first")
    if latency is None:
        return Outlook(unknown="this model was not measured on this machine yet")
    at_once = Concurrency(
        running=envelope.max_running,
        batch_tokens=envelope.max_batch_tokens,
        context_tokens=envelope.max_context_tokens,
        kv_tokens=plan.kv_tokens,
        block_size=plan.block_size,
    )
    forecasts = []
    if slo.ttft_p95 is not None:
        forecasts.append(forecast_ttft(latency, at_once, slo.ttft_p95, slo.tpot_p95))
    if slo.tpot_p95 is not None:
        forecasts.append(forecast_tpot(latency, at_once, slo.tpot_p95))
    return Outlook(tuple(forecasts))


def _problem(forecast: Forecast) -> DoesNotFit:
    least = round(forecast.least, 4)
    return DoesNotFit(
        f"{forecast.objective} is {format_duration(forecast.limit)}, and with max_running at once "
        f"this machine takes at least {1000 * least:g} ms",
        rule=forecast.objective,
        value=least,
        limit=forecast.limit,
        fix=f"lower release.envelope.max_running, or allow {forecast.objective} more",
    )
