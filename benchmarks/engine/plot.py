"""The report's one plot, as SVG: a panel per point, a bar per contender, longer is better."""

from html import escape

from summary import Table
from workload import Point

COLUMNS, PANEL_WIDTH, BAR_HEIGHT, LABEL_WIDTH, VALUE_WIDTH = 2, 440, 16, 150, 60
OURS, THEIRS = "#b5541c", "#7d8a96"


def svg(table: Table, points: list[Point], ours: set[str], title: str) -> str:
    """Bars are medians in tokens/s on a scale of their panel; contenders keep their order."""
    panel_height = 40 + BAR_HEIGHT * len(table)
    rows = -(-len(points) // COLUMNS)
    width, height = COLUMNS * PANEL_WIDTH, 34 + rows * panel_height
    panels = [
        f'<g transform="translate({i % COLUMNS * PANEL_WIDTH},{34 + i // COLUMNS * panel_height})">'
        f"{_panel(table, point, ours)}</g>"
        for i, point in enumerate(points)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="white"/>'
        f"{_text(12, 20, title, size=14)}{''.join(panels)}</svg>\n"
    )


def _panel(table: Table, point: Point, ours: set[str]) -> str:
    medians = {name: cells[point.name].median for name, cells in table.items()}
    longest = max((rate for rate in medians.values() if rate), default=1.0)
    parts = [_text(12, 16, f"{point.title}, tokens/s", size=12)]
    for row, (name, rate) in enumerate(medians.items()):
        top = 24 + row * BAR_HEIGHT
        room = PANEL_WIDTH - LABEL_WIDTH - VALUE_WIDTH
        length = room * rate / longest if rate else 0.0
        colour = OURS if name in ours else THEIRS
        parts.append(_text(LABEL_WIDTH - 6, top + 11, name, anchor="end"))
        parts.append(
            f'<rect x="{LABEL_WIDTH}" y="{top + 2}" width="{length:.1f}" '
            f'height="{BAR_HEIGHT - 4}" fill="{colour}"/>'
        )
        value = f"{rate:,.0f}" if rate else "none"
        parts.append(_text(LABEL_WIDTH + length + 4, top + 11, value))
    return "".join(parts)


def _text(x: float, y: float, text: str, *, size: int = 11, anchor: str = "start") -> str:
    style = f'font-size="{size}" text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'
