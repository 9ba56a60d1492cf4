"""Charts as SVG text: lines, dots and bars over two axes, with a legend that can be clicked."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from salver.bench.axes import Axis, Quantity, linear, logarithmic

Point = tuple[float, float]
Colour = Literal["blue", "orange", "green", "purple", "red", "grey", "pink", "gold"]
COLOURS: tuple[Colour, ...] = (
    "blue", "orange", "green", "purple", "red", "pink", "gold", "grey",
)  # fmt: skip
MAX_POINTS = 4000
WIDTH, HEIGHT = 560, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 22, 18, 42
_LABEL_WIDTH, _LABEL_HEIGHT = 52.0, 32.0


@dataclass(frozen=True, slots=True)
class Series:
    """Points with a name; of more than 4,000 every so many are drawn.

    Bars stand on 0 and are `bar` wide; later series are drawn over earlier ones. Without a colour a
    series gets that of its place; one without a name is not in the legend.
    """

    name: str
    points: Sequence[Point]
    kind: Literal["line", "dots", "bars"] = "line"
    colour: Colour | None = None
    bar: float = 1.0


@dataclass(frozen=True, slots=True)
class Chart:
    """One plot. `marks` are vertical or horizontal lines worth comparing with, by name.

    Axes begin at 0 but for a logarithmic one; `y_max` fixes where the upright one ends.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    x: Quantity = "number"
    y: Quantity = "number"
    log_x: bool = False
    y_max: float | None = None
    x_marks: Sequence[tuple[str, float]] = ()
    y_marks: Sequence[tuple[str, float]] = ()


def svg(chart: Chart) -> str:
    """The chart as a figure with its title and legend."""
    caption = f"<figcaption>{escape(chart.title)}</figcaption>"
    points = [point for series in chart.series for point in series.points]
    if not points:
        return f"<figure>{caption}<p>no samples</p></figure>"
    x, y = _axes(chart, points)
    drawn = "".join(_drawn(series, index, x, y) for index, series in enumerate(chart.series))
    return (
        f"<figure>{caption}{_legend(chart)}"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(chart.title)}">'
        f"{_grid(chart, x, y)}{drawn}{_marks(chart, x, y)}</svg></figure>"
    )


def distribution(name: str, samples: Sequence[float], among: int) -> Series:
    """The share of so many that have a sample of at most x. Samples of 0 count and are not drawn,
    since the axis may be logarithmic."""
    ranked = enumerate(sorted(samples), start=1)
    return Series(name, [(value, rank / among) for rank, value in ranked if value > 0])


def _axes(chart: Chart, points: Sequence[Point]) -> tuple[Axis, Axis]:
    xs = [x for x, _ in points] + [value for _, value in chart.x_marks]
    xs += [x + one.bar for one in chart.series if one.kind == "bars" for x, _ in one.points[-1:]]
    ys = [y for _, y in points] + [value for _, value in chart.y_marks]
    ys = [chart.y_max] if chart.y_max is not None else ys
    across = logarithmic if chart.log_x else linear
    x = across(xs, _LEFT, WIDTH - _RIGHT, chart.x, apart=_LABEL_WIDTH)
    return x, linear(ys, HEIGHT - _BOTTOM, _TOP, chart.y, apart=_LABEL_HEIGHT)


def _legend(chart: Chart) -> str:
    """Names in their colours, where there are several; a click hides one."""
    names = [
        f'<button class="{_colour(series, index)}" data-series="{index}">{escape(series.name)}</button>'
        for index, series in enumerate(chart.series)
        if series.name
    ]
    return f"<nav>{''.join(names)}</nav>" if len(names) > 1 else ""


def _grid(chart: Chart, x: Axis, y: Axis) -> str:
    parts = [
        f'<path class="grid" d="M{x.at(tick):.1f} {y.begin}V{y.end}"/>'
        f'<text x="{x.at(tick):.1f}" y="{y.begin + 15}" class="mid">{x.text(tick)}</text>'
        for tick in x.ticks
    ]
    parts += [
        f'<path class="grid" d="M{x.begin} {y.at(tick):.1f}H{x.end}"/>'
        f'<text x="{x.begin - 6}" y="{y.at(tick) + 4:.1f}" class="end">{y.text(tick)}</text>'
        for tick in y.ticks
    ]
    middle = (x.begin + x.end) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" class="mid">{escape(chart.x_label)}</text>')
    parts.append(f'<text x="2" y="{_TOP - 7}">{escape(chart.y_label)}</text>')
    return "".join(parts)


def _marks(chart: Chart, x: Axis, y: Axis) -> str:
    """Each with its name on the side where there is room."""
    parts = []
    for name, value in chart.x_marks:
        at = x.at(value)
        right = at < (x.begin + x.end) / 2
        parts.append(
            f'<path class="mark" d="M{at:.1f} {y.begin}V{y.end}"/>'
            f'<text x="{at + (5 if right else -5):.1f}" y="{y.begin - 8}" '
            f'class="name{"" if right else " end"}">{escape(name)}</text>'
        )
    for name, value in chart.y_marks:
        at = y.at(value)
        parts.append(
            f'<path class="mark" d="M{x.begin} {at:.1f}H{x.end}"/>'
            f'<text x="{x.end - 4}" y="{at - 5:.1f}" class="name end">{escape(name)}</text>'
        )
    return "".join(parts)


def _drawn(series: Series, index: int, x: Axis, y: Axis) -> str:
    points = _thinned(series.points)
    style = f'class="{series.kind} {_colour(series, index)}" data-series="{index}"'
    shapes: Iterable[str]
    match series.kind:
        case "dots":
            shapes = (f'<circle cx="{x.at(a):.1f}" cy="{y.at(b):.1f}" r="2.2"/>' for a, b in points)
        case "bars":
            shapes = (_bar(x.at(a), x.at(a + series.bar), y.at(b), y.begin) for a, b in points)
        case "line":
            shapes = (
                f'<path d="M{"L".join(f"{x.at(a):.1f} {y.at(b):.1f}" for a, b in points)}"/>',
            )
    return f"<g {style}>{''.join(shapes)}</g>"


def _bar(left: float, right: float, top: float, bottom: float) -> str:
    width = max(right - left - 1, 0.5)
    return f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{bottom - top:.1f}"/>'


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    """At most MAX_POINTS of them and the last."""
    step = math.ceil(len(points) / MAX_POINTS)
    return [*points[::step], points[-1]] if step > 1 else points


def _colour(series: Series, index: int) -> Colour:
    return series.colour or COLOURS[index % len(COLOURS)]
