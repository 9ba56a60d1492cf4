"""Charts as SVG text: lines, points and steps over two axes, with a legend that can be clicked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

Point = tuple[float, float]
COLOURS = 6
MAX_POINTS = 4000
WIDTH, HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 14, 44


@dataclass(frozen=True, slots=True)
class Series:
    """Points with a name; more than 4,000 are thinned evenly."""

    name: str
    points: Sequence[Point]
    kind: Literal["line", "dots"] = "line"


@dataclass(frozen=True, slots=True)
class Chart:
    """One plot. `marks` are horizontal or vertical lines worth comparing with, by name."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log_x: bool = False
    y_max: float | None = None
    x_marks: Sequence[tuple[str, float]] = ()
    y_marks: Sequence[tuple[str, float]] = ()


@dataclass(frozen=True, slots=True)
class _Scale:
    """A value's place in pixels, linearly or by its logarithm."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        low, high, here = self.low, self.high, value
        if self.log:
            low, high, here = math.log(low), math.log(high), math.log(max(value, self.low))
        share = (here - low) / (high - low) if high > low else 0.5
        return self.begin + min(max(share, 0.0), 1.0) * (self.end - self.begin)

    def ticks(self) -> list[float]:
        return _decades(self.low, self.high) if self.log else _even(self.low, self.high)


def svg(chart: Chart) -> str:
    """The chart as a figure with its title and legend."""
    points = [point for series in chart.series for point in series.points]
    if not points:
        return f"<figure><figcaption>{escape(chart.title)}</figcaption><p>no samples</p></figure>"
    x, y = _scales(chart, points)
    parts = [_axes(chart, x, y)]
    parts += [_marks(chart, x, y)]
    parts += [_drawn(series, index, x, y) for index, series in enumerate(chart.series)]
    legend = "".join(
        f'<button class="c{index % COLOURS}" data-series="{index}">{escape(series.name)}</button>'
        for index, series in enumerate(chart.series)
        if len(chart.series) > 1
    )
    return (
        f"<figure><figcaption>{escape(chart.title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(chart.title)}">'
        f"{''.join(parts)}</svg><div>{legend}</div></figure>"
    )


def distribution(name: str, samples: Sequence[float]) -> Series:
    """The share of samples that are at most x."""
    ordered = sorted(sample for sample in samples if sample > 0)
    count = len(ordered)
    return Series(name, [(value, (rank + 1) / count) for rank, value in enumerate(ordered)])


def _scales(chart: Chart, points: Sequence[Point]) -> tuple[_Scale, _Scale]:
    xs = [x for x, _ in points] + [value for _, value in chart.x_marks]
    ys = [y for _, y in points] + [value for _, value in chart.y_marks]
    low = min(xs) if chart.log_x else min(0.0, *xs)
    top = chart.y_max if chart.y_max is not None else max(ys) * 1.05 or 1.0
    across = _Scale(low, max(*xs, low * 1.01, 1e-9), _LEFT, WIDTH - _RIGHT, chart.log_x)
    return across, _Scale(0.0, top, HEIGHT - _BOTTOM, _TOP)


def _axes(chart: Chart, x: _Scale, y: _Scale) -> str:
    parts = []
    for value in x.ticks():
        at = x.at(value)
        parts.append(f'<path class="grid" d="M{at:.1f} {y.begin}V{y.end}"/>')
        parts.append(f'<text x="{at:.1f}" y="{y.begin + 16}" class="mid">{value:g}</text>')
    for value in y.ticks():
        at = y.at(value)
        parts.append(f'<path class="grid" d="M{x.begin} {at:.1f}H{x.end}"/>')
        parts.append(f'<text x="{x.begin - 6}" y="{at + 4:.1f}" class="end">{value:g}</text>')
    middle = (x.begin + x.end) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" class="mid">{escape(chart.x_label)}</text>')
    parts.append(f'<text x="4" y="{_TOP - 2}">{escape(chart.y_label)}</text>')
    return "".join(parts)


def _marks(chart: Chart, x: _Scale, y: _Scale) -> str:
    parts = [
        f'<path class="mark" d="M{x.at(value):.1f} {y.begin}V{y.end}"/>'
        f'<text x="{x.at(value) + 3:.1f}" y="{y.end + 10}">{escape(name)}</text>'
        for name, value in chart.x_marks
    ]
    parts += [
        f'<path class="mark" d="M{x.begin} {y.at(value):.1f}H{x.end}"/>'
        f'<text x="{x.end}" y="{y.at(value) - 4:.1f}" class="end">{escape(name)}</text>'
        for name, value in chart.y_marks
    ]
    return "".join(parts)


def _drawn(series: Series, index: int, x: _Scale, y: _Scale) -> str:
    step = max(1, math.ceil(len(series.points) / MAX_POINTS))
    points = [*series.points[::step], *series.points[-1:]]
    style = f'class="c{index % COLOURS}" data-series="{index}"'
    if series.kind == "dots":
        dots = "".join(f'<circle cx="{x.at(a):.1f}" cy="{y.at(b):.1f}" r="2"/>' for a, b in points)
        return f"<g {style}>{dots}</g>"
    path = "L".join(f"{x.at(a):.1f} {y.at(b):.1f}" for a, b in points)
    return f'<path {style} d="M{path}"/>'


def _even(low: float, high: float) -> list[float]:
    """Four to nine round values."""
    raw = (high - low) / 5 or 1.0
    size = 10 ** math.floor(math.log10(raw))
    step = next(factor * size for factor in (1, 2, 5, 10) if factor * size >= raw)
    first = math.ceil(low / step)
    return [round(k * step, 12) for k in range(first, math.floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    return [value for value in values if low <= value <= high]
