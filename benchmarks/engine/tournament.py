"""Everyone in turn: starting the contenders, and measuring them at a point, round by round."""

import json
import sys
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from contender import Contender, ContenderFailed, Run, Running
from machine import Gauge
from quiet import Quiet
from report import Entrant
from summary import DISTURBED, Cell, Round, Table
from workload import MAX_CONTEXT, MAX_STREAMS, Point, prompts, rate

WARM_UP_TOKENS = 4
WARM_UP_PROMPT = 128
PATIENCE = 900.0  # seconds for one start, or for one answer
BATCH_TOKENS = 2048  # a step's at most; long batches amortize what each operation costs


@dataclass(frozen=True)
class Options:
    """Times are in seconds. What takes longer than `slow` is done once, not every round; what can be
    foreseen to take longer than `patience` is left out. `retries` is how often a disturbed run is
    repeated."""

    rounds: int
    starts: int
    slow: float
    patience: float
    threads: int
    retries: int
    output: Path


class Tournament:
    """The contenders' processes and what was measured of them; none outlives the `with` block."""

    def __init__(
        self, contenders: list[Contender], options: Options, quiet: Quiet, gauge: Gauge
    ) -> None:
        self._contenders = contenders
        self._gauge = gauge
        self._options = options
        self._stack = ExitStack()
        self._quiet = quiet
        self._running: dict[str, Running] = {}
        self._rounds: dict[tuple[str, str], list[Round | None]] = defaultdict(list)
        self._slow: set[tuple[str, str]] = set()
        self.entrants: dict[str, Entrant] = {}
        self.notes: list[str] = []

    def __enter__(self) -> "Tournament":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def table(self, points: list[Point]) -> Table:
        return {
            name: {point.name: self._cell(name, point.name) for point in points}
            for name in self.entrants
        }

    def _cell(self, name: str, point: str) -> Cell:
        return Cell(tuple(self._rounds[name, point]))

    # -- starting --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everyone in turn, several times; the last time they stay, stopped."""
        failed: set[str] = set()
        for turn in range(self._options.starts):
            for contender in self._contenders:
                if contender.name in self._running or contender.name in failed:
                    continue
                try:
                    self._start(contender, last=turn == self._options.starts - 1)
                except ContenderFailed as failure:
                    failed.add(contender.name)
                    self.notes.append(f"{contender.name} did not start: {failure}")

    def _start(self, contender: Contender, *, last: bool) -> None:
        self._quiet.wait()
        running = Running(contender, self._limits, self._options.output, PATIENCE)
        entrant = self.entrants.setdefault(
            contender.name,
            Entrant(
                contender.name, contender.weights, contender.ours, running.facts, running.probe, []
            ),
        )
        entrant.starts.append(running.start_seconds)
        _say(f"{contender.name}: ready in {running.start_seconds:.1f} s")
        if last or running.start_seconds > self._options.slow:
            running.sleep()
            self._running[contender.name] = self._stack.enter_context(running)
        else:
            running.close()

    @property
    def _limits(self) -> dict[str, int]:
        """What every adapter is told alike."""
        return {
            "threads": self._options.threads,
            "max_running": MAX_STREAMS,
            "max_context_tokens": MAX_CONTEXT,
            "max_batch_tokens": BATCH_TOKENS,
        }

    # -- measuring -------------------------------------------------------------------------------

    def measure(self, point: Point) -> None:
        """All rounds of one point, the contenders in turn."""
        for name in list(self._running):
            if (seconds := self._foreseen(name, point)) > self._options.patience:
                self._slow.add((name, point.name))
                self.notes.append(
                    f"{point.title}: {name} was left out, it would take {seconds:.0f} s"
                )
        for number in range(self._options.rounds):
            for name in self.entrants:
                skipped = name not in self._running or (name, point.name) in self._slow
                measured = None if skipped else self._round(name, point, number)
                self._rounds[name, point.name].append(measured)

    def _foreseen(self, name: str, point: Point) -> float:
        """Seconds that a run will take, from the points measured before; 0 where they do not say."""
        prefill = self._cell(name, "prefill_8x128").median
        decode = self._cell(name, f"decode_{point.streams}").median
        if prefill is None or decode is None:
            return 0.0
        return point.streams * (point.prompt_tokens / prefill + point.new_tokens / decode)

    def _round(self, name: str, point: Point, number: int) -> Round | None:
        """One contender in one round: the median over the point's repeats; None if it failed."""
        running = self._running[name]
        self._quiet.wait()
        most = self._gauge.most(point, running.contender.weights)
        try:
            with running.awake():
                if number == 0:
                    _warm_up(running, point)
                runs = [self._run(running, point, number, 0)]
                while len(runs) < point.repeats and (name, point.name) not in self._slow:
                    runs.append(self._run(running, point, number, len(runs)))
        except ContenderFailed as failure:
            self.notes.append(f"{point.title}: {failure}")
            self._running.pop(name).close()
            return None
        measured = replace(_summary(point, runs), most=most)
        _say(f"{point.title}, round {number + 1}: {name} {measured}")
        return measured

    def _run(self, running: Running, point: Point, number: int, repeat: int) -> Run:
        """One run; where others disturbed it, the least disturbed of a few."""
        key = running.contender.name, point.name
        runs: list[Run] = []
        while len(runs) <= self._options.retries and not (
            runs and _settles(runs[-1], self._options)
        ):
            seed = f"{number} {repeat} {len(runs)}"
            runs.append(running.generate(prompts(point, seed), point.new_tokens))
            self._keep(key, seed, runs[-1])
        run = min(runs, key=lambda each: each.foreign)
        if run.seconds > self._options.slow and run.foreign <= DISTURBED:
            self._slow.add(key)
        return run

    def _keep(self, key: tuple[str, str], seed: str, run: Run) -> None:
        """Write a run down, whether or not it is used; `seconds` count from sending."""
        record = {
            "contender": key[0],
            "point": key[1],
            "round repeat try": seed,
            "foreign": round(run.foreign, 4),
            "seconds": [[round(at - run.sent, 6) for at in stream] for stream in run.times],
            "tokens": run.tokens,
        }
        with (self._options.output / "runs.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")


def _summary(point: Point, runs: list[Run]) -> Round:
    """Medians over the runs that nobody disturbed, or over all if there are none."""
    counting = [run for run in runs if run.foreign <= DISTURBED] or runs
    rates = [rate(point, run.sent, run.times) for run in counting]
    rated = [each for each in rates if each is not None]
    return Round(median(rated) if rated else None, median(run.foreign for run in counting))


def _settles(run: Run, options: Options) -> bool:
    """Whether a run need not be repeated: nobody disturbed it, or it takes too long for that."""
    return run.foreign <= DISTURBED or run.seconds > options.slow


def _warm_up(running: Running, point: Point) -> None:
    """As many streams as at the point, with prompts of their own, shorter and for a few tokens."""
    shorter = replace(point, prompt_tokens=min(point.prompt_tokens, WARM_UP_PROMPT))
    running.generate(prompts(shorter, "warm-up"), WARM_UP_TOKENS)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
