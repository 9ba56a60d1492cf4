"""`salver bench`: put a server under the load of a traffic mix."""

import json
import math
import sys
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from salver.cli import console
from salver.cli.exits import Exit
from salver.errors import BackendUnavailable, InvalidValue

if TYPE_CHECKING:
    from salver.bench.measure import Measurement
    from salver.bench.results import Results
    from salver.bench.search import Measure
    from salver.bench.target import Target
    from salver.workload import Workload

T = TypeVar("T")
_APART = (
    ("--compare", "--find"),
    ("--compare", "--rates"),
    ("--find", "--rates"),
    ("--rates", "--rate"),
)
"""Options that ask for different things."""


@dataclass(frozen=True, slots=True)
class _Load:
    """What is sent, and at which rates and seeds."""

    workload: "Workload"
    asked: float | None  # None is the mix as it is written
    seeds: tuple[int, ...]
    kept_in: Path | None  # where runs that were made before are

    @property
    def rate(self) -> float:
        """Requests per second, asked for or the mix's own; 0 for a closed loop."""
        return self.workload.rate if self.asked is None else self.asked

    def factor(self, rate: float) -> float:
        """How much faster than written the mix is played at this rate.

        1 at its own: the least factor with as many requests would stretch away the silence that
        ends a trace.
        """
        own = self.asked is None and rate == self.workload.rate
        return 1.0 if own else self.workload.factor_for(rate)

    def on(self, target: "Target", name: str = "runs") -> "Measure":
        """Measures one server; `name` tells its runs from another's."""
        from salver.bench.kept import kept

        async def run(rate: float, seed: int) -> "Measurement":
            from salver.bench.measure import measure
            from salver.bench.progress import Line
            from salver.bench.report import objectives_of

            factor = self.factor(rate)
            label = f"{target.url} {rate:.2f}/s seed {seed}"
            line = Line(sys.stderr, label, objectives_of(self.workload.mix))
            watch = {"watch": line} if sys.stderr.isatty() else {}
            measured = await measure(self.workload, target, seed=seed, rate_factor=factor, **watch)
            if watch:
                line.clear()
            return measured

        if self.kept_in is None:
            return run
        claims = self.workload.digests() | {
            "url": target.base_url,
            "model": target.model,
            "class_header": str(target.class_header),
        }
        return kept(run, self.kept_in / name, self.workload.mix, claims)


def bench(
    mix: Annotated[Path, typer.Argument(metavar="MIX.yaml", help="The traffic mix.")],
    url: Annotated[
        str, typer.Option(help="The server, any that speaks OpenAI's API.")
    ] = "http://127.0.0.1:8000",
    model: Annotated[
        str, typer.Option(help="The model to ask for; the first the server lists if left out.")
    ] = "",
    keys: Annotated[
        Path | None, typer.Option(help="JSON file of API keys by tenant; `*` is for all others.")
    ] = None,
    data: Annotated[
        list[Path] | None, typer.Option(help="Where else to look for files that the mix names.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Requests per second, instead of the mix's own rate.")
    ] = None,
    rates: Annotated[str, typer.Option(metavar="R,R,...", help="Sweep over these rates.")] = "",
    find: Annotated[
        str, typer.Option(metavar="SHARE", help="Search the highest rate with this goodput: 95%.")
    ] = "",
    compare: Annotated[
        str, typer.Option(metavar="URL_B", help="Alternate with this server, and give ratios.")
    ] = "",
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**62, help="The first seed, instead of the mix's.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Runs at each rate.")] = 1,
    class_header: Annotated[
        bool, typer.Option("--class-header", help="Send each request's class as x-salver-class.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(help="Directory for the reports; one of today's date if not given."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Keep every run in --output, and go on from those there."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Put a server under the load of a traffic mix, and report what came of it."""
    from salver.bench.target import Target
    from salver.workload import open_workload

    workload = open_workload(mix, data or [])
    given = {"--rate": rate is not None, "--rates": rates, "--find": find, "--compare": compare}
    _check_together([name for name, value in given.items() if value], workload)
    _check_values(rate, resumed_nowhere=resume and output is None)
    directory = output or _today(workload)
    first = workload.mix.seed if seed is None else seed
    asked = tuple(range(first, first + seeds))
    load = _Load(workload, rate, asked, directory if resume else None)
    held = _keys(keys)
    target = _asking(Target(url, model, held, held.get("*", ""), class_header), model)
    other = _asking(replace(target, url=compare), model) if compare else None
    _deliver(_run(_work(load, target, other, rates, find)), directory, as_json=as_json)


def _work(
    load: _Load, target: "Target", other: "Target | None", rates: str, find: str
) -> Coroutine[Any, Any, "Results"]:
    """What was asked for: one run, or several of one kind."""
    if other:
        return _compared(load, target, other)
    if find:
        return _found(load, target, _share(find))
    if rates or len(load.seeds) > 1:
        return _swept(load, target, _numbers(rates) if rates else [load.rate])
    return _once(load, target)


def _check_together(given: list[str], workload: "Workload") -> None:
    """Refuse options of which one would be ignored beside the others, or by this mix."""
    if workload.closed_loop:
        for name in given:
            if name != "--compare":
                fix = "leave it out, or give the mix an open arrival process"
                said = f"{name} of a closed loop, whose users set the pace themselves"
                raise InvalidValue(said, rule="bench.options", value=name, fix=fix)
    for one, other in _APART:
        if one in given and other in given:
            said, fix = f"{one} and {other} together", "give one of them"
            raise InvalidValue(said, rule="bench.options", value=f"{one} {other}", fix=fix)


def _check_values(rate: float | None, *, resumed_nowhere: bool) -> None:
    if rate is not None and not 0 < rate < math.inf:
        fix = "write requests per second, as --rate 4"
        raise InvalidValue("the rate is above zero", rule="bench.rate", value=rate, fix=fix)
    if resumed_nowhere:
        fix = "name the directory with --output"
        raise InvalidValue("--resume of no directory", rule="bench.resume", fix=fix)


def _asking(target: "Target", model: str) -> "Target":
    """The same, for the model asked for, or for the first that the server lists."""
    return replace(target, model=model or _first_model(target))


async def _once(load: _Load, target: "Target") -> "Results":
    from salver.bench.results import of_run

    return of_run(await load.on(target)(load.rate, load.seeds[0]))


async def _swept(load: _Load, target: "Target", rates: list[float]) -> "Results":
    from salver.bench.results import of_points
    from salver.bench.search import sweep

    points = await sweep(load.on(target), rates, load.seeds)
    return of_points(f"{load.workload.mix.name} against {target.url}", points)


async def _found(load: _Load, target: "Target", share: float) -> "Results":
    from salver.bench.results import of_points
    from salver.bench.search import highest_rate

    found = await highest_rate(load.on(target), start=load.rate, share=share, seeds=load.seeds)
    return of_points(f"{load.workload.mix.name} against {target.url}", found.points, found)


async def _compared(load: _Load, a: "Target", b: "Target") -> "Results":
    from salver.bench.results import of_comparison
    from salver.bench.search import compare

    comparison = await compare(load.on(a, "A"), load.on(b, "B"), rate=load.rate, seeds=load.seeds)
    return of_comparison(load.workload.mix.name, comparison)


def _run(work: Coroutine[Any, Any, T]) -> T:
    import uvloop

    return uvloop.run(work)


def _deliver(results: "Results", directory: Path, *, as_json: bool) -> None:
    results.write(directory)
    if as_json:
        console.say_json(results.record)
    else:
        console.say(results.text)
    console.note(f"{directory}/report.html, report.json and the raw records are written")
    if not results.valid:
        console.note(console.red("this is no measurement of the server", sys.stderr))
        raise typer.Exit(Exit.FAILED)


def _keys(path: Path | None) -> dict[str, str]:
    """API keys by tenant, from a file that only their owner need read."""
    if path is None:
        return {}
    try:
        read = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise _faulty_keys(path, str(error)) from None
    if not isinstance(read, dict) or not all(isinstance(key, str) for key in read.values()):
        raise _faulty_keys(path, "no object of texts")
    return read


def _faulty_keys(path: Path, reason: str) -> InvalidValue:
    fix = 'write {"TENANT": "KEY", "*": "KEY OF ALL OTHERS"}'
    return InvalidValue(f"{path} holds no keys: {reason}", rule="bench.keys", fix=fix)


def _share(text: str) -> float:
    from pydantic_core import PydanticCustomError

    from salver.contract.quantities import parse_fraction

    try:
        return parse_fraction(text)
    except PydanticCustomError as error:
        fix = error.message()
        raise InvalidValue("no share", rule="bench.find", value=text, fix=fix) from None


def _numbers(text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",") if part]
    except ValueError:
        numbers = [0.0]
    if not numbers or not all(0 < number < math.inf for number in numbers):
        fix = "write them as 1,2,4"
        raise InvalidValue("rates are numbers above zero", rule="bench.rates", value=text, fix=fix)
    return numbers


def _first_model(target: "Target") -> str:
    """The first model that the server lists."""
    import httpx

    target.address()  # refuses what is no address
    headers = {"authorization": f"Bearer {target.key}"} if target.key else {}
    try:
        answer = httpx.get(f"{target.base_url}/models", headers=headers, timeout=10)
        listed = answer.raise_for_status().json()["data"]
        return str(listed[0]["id"])
    except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
        raise BackendUnavailable(
            f"{target.url} does not say which models it has: {error}",
            rule="bench.model",
            fix="start the server, or name the model with --model",
        ) from None


def _today(workload: "Workload") -> Path:
    return Path(f"bench-{workload.mix.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}")
