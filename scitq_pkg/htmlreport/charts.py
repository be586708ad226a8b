"""Charts as SVG: their colours are those of the page's style, their labels text, their exact values in titles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .markup import amount, text

WIDTH = 960
_LEFT, _RIGHT, _BOTTOM = 64, 12, 22  # for labels
_TIME_STEPS = (
    0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800,
)  # fmt: skip
_ROUND = [float(f"{digit}e{power}") for power in range(-6, 18) for digit in (1, 2, 5)]
_TICKS = 8
_DIGITS = 3


@dataclass(slots=True)
class Series:
    """Numbers over time, one of several that are stacked."""

    name: str
    kind: str  # a class of the style
    values: Sequence[float]


@dataclass(slots=True)
class Range:
    """A row of a chart of ranges: from the least to the most, the middle marked; `limits`: what was given."""

    label: str
    least: float
    middle: float
    most: float
    limits: Sequence[float] = ()


def _svg(height: float, label: str, body: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{text(label)}">{body}</svg>'


def _n(value: float) -> str:
    return f"{value:.{_DIGITS}f}".rstrip("0").rstrip(".")


def _rect(x: float, y: float, width: float, height: float, kind: str, title: str = "", more: str = "") -> str:
    inside = f"<title>{text(title)}</title>" if title else ""
    return f'<rect class="{kind}" x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"{more}>{inside}</rect>'


def _path(kind: str, way: str, title: str) -> str:
    return f'<path class="{kind}" d="{way}"><title>{text(title)}</title></path>'


def _label(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    return f'<text x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}"{f" class={kind}" if kind else ""}>{text(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str = "grid") -> str:
    return f'<line class="{kind}" x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"/>'


# --- scales ---------------------------------------------------------------------------------------------------------------


def round_steps(most: float, count: int) -> list[float]:
    """0 and round numbers up to the first that is not below `most`, some `count` of them."""
    step = next((step for step in _ROUND if most / step <= count), _ROUND[-1])
    return [number * step for number in range(int(most / step - 1e-9) + 2)] if most > 0 else [0.0, 1.0]


def time_steps(seconds: float, count: int = _TICKS) -> list[float]:
    """Times from 0 on that people count in."""
    step = next((step for step in _TIME_STEPS if seconds / step <= count), None)
    step = step or _TIME_STEPS[-1] * (int(seconds / _TIME_STEPS[-1] / count) + 1)
    return [number * step for number in range(int(seconds / step) + 1)]


def _time_axis(seconds: float, y: float, top: float, shown: Callable[[float], str]) -> Iterator[str]:
    wide = WIDTH - _LEFT - _RIGHT
    for at in time_steps(seconds):
        x = _LEFT + wide * at / seconds
        yield _line(x, top, x, y)
        yield _label(x, y + 15, shown(at), "middle" if at else "start")


# --- charts ---------------------------------------------------------------------------------------------------------------


def stacked_bar(parts: Sequence[tuple[str, int]], height: float = 14) -> str:
    """The shares of states in a whole."""
    whole, x, drawn = sum(count for _, count in parts), 0.0, []
    for state, count in parts:
        width = WIDTH * count / whole
        drawn.append(_rect(x, 0, max(width, 1.5), height, f"s-{state}", f"{amount(count)} {state}"))
        x += width
    label = ", ".join(f"{count} {state}" for state, count in parts)
    about = f'class="bar" preserveAspectRatio="none" role="img" aria-label="{text(label)}"'
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" {about}>{"".join(drawn)}</svg>'


def areas(series: Sequence[Series], seconds: float, shown: Callable[[float], str], label: str, height: float = 190) -> str:
    """Series over time, each on the ones before."""
    bins = len(series[0].values)
    top, bottom, wide = 8.0, height - _BOTTOM, WIDTH - _LEFT - _RIGHT
    steps = round_steps(max(sum(values) for values in zip(*(one.values for one in series))), 5)
    scale = (bottom - top) / steps[-1]
    drawn = [*_time_axis(seconds, bottom, top, shown)]
    for value in steps:
        drawn += [_line(_LEFT, bottom - value * scale, WIDTH - _RIGHT, bottom - value * scale),
                  _label(_LEFT - 8, bottom - value * scale + 4, f"{value:g}", "end")]  # fmt: skip
    floor = [0.0] * bins
    for one in series:
        roof = [low + value for low, value in zip(floor, one.values)]
        if any(one.values):
            drawn.append(_path(one.kind, _outline(floor, roof, bottom, scale, wide / bins), one.name))
        floor = roof
    return _svg(height, label, "".join(drawn))


def _outline(floor: list[float], roof: list[float], bottom: float, scale: float, step: float) -> str:
    """There by the roof and back by the floor, in stairs."""

    def point(place: int, value: float) -> str:
        return f"{_n(_LEFT + place * step)} {_n(bottom - value * scale)}"

    there = [point(place + end, value) for place, value in enumerate(roof) for end in (0, 1)]
    back = [point(place + end, value) for place, value in enumerate(floor) for end in (0, 1)]
    return "M" + "L".join(there + back[::-1]) + "Z"


def lanes(rows: Sequence[tuple[str, Sequence[float], float]], seconds: float, shown: Callable[[float], str], label: str) -> str:
    """A strip for each row (name, how much at each time, what would be full): the darker the fuller."""
    left, tall, gap = 150.0, 14.0, 4.0
    wide, height = WIDTH - left - _RIGHT, len(rows) * (tall + gap) + _BOTTOM
    bottom = height - _BOTTOM
    drawn = []
    for at in time_steps(seconds):
        x = left + wide * at / seconds
        drawn += [_line(x, 0, x, bottom), _label(x, bottom + 15, shown(at), "middle" if at else "start")]
    for number, (name, values, full) in enumerate(rows):
        y = number * (tall + gap)
        drawn += [_label(left - 8, y + tall - 3, _short(name, 20), "end"), _rect(left, y, wide, tall, "empty")]
        for begin, end, value in _runs(values):
            x, width = left + wide * begin / len(values), wide * (end - begin) / len(values)
            strength = f' fill-opacity="{0.2 + 0.8 * min(1.0, value / (full or 1.0)):.2f}"'
            drawn.append(_rect(x, y, width + 0.2, tall, "busy", f"{name}: {value:.1f} at once", strength))
    return _svg(height, label, "".join(drawn))


def _runs(values: Sequence[float]) -> Iterator[tuple[int, int, float]]:
    """Neighbours that are nearly the same as one piece: first, end, value. What is 0 is left out."""
    begin = 0
    rounded = [round(value, 1) if value >= 0.05 else 0.0 if value < 0.005 else 0.05 for value in values]
    for place in range(1, len(rounded) + 1):
        if place == len(rounded) or rounded[place] != rounded[begin]:
            if rounded[begin]:
                yield begin, place, rounded[begin]
            begin = place


def columns(bins: Sequence[tuple[str, str, int]], label: str, height: float = 170) -> str:
    """A histogram: each bin's lower edge, both edges in words, and its count."""
    top, bottom, wide = 16.0, height - _BOTTOM, WIDTH - _LEFT - _RIGHT
    steps = round_steps(max((count for *_, count in bins), default=1), 4)
    scale, step = (bottom - top) / steps[-1], wide / len(bins)
    drawn = []
    for value in steps:
        if value == int(value):
            drawn += [_line(_LEFT, bottom - value * scale, WIDTH - _RIGHT, bottom - value * scale),
                      _label(_LEFT - 8, bottom - value * scale + 4, amount(int(value)), "end")]  # fmt: skip
    every = max(1, -(-len(bins) // 16))
    for place, (edge, words, count) in enumerate(bins):
        x = _LEFT + place * step
        drawn.append(_rect(x + 1, bottom - count * scale, max(1.0, step - 2), count * scale, "fill", f"{words}: {amount(count)}"))
        if place % every == 0:
            drawn.append(_label(x + 1, bottom + 15, edge))
    return _svg(height, label, "".join(drawn))


def ranges(rows: Sequence[Range], shown: Callable[[float], str], label: str, are_times: bool = False) -> str:
    """From the least to the most of each row, with what was given as marks."""
    left, tall = 150.0, 24.0
    wide, bottom = WIDTH - left - 80, len(rows) * tall
    most = max(max([row.most, *row.limits]) for row in rows)
    steps = time_steps(most or 1.0, 6) if are_times else round_steps(most, 6)
    scale = wide / max(most, steps[-1])
    drawn = []
    for value in steps:
        x = left + value * scale
        drawn += [_line(x, 0, x, bottom), _label(x, bottom + 15, shown(value), "middle" if value else "start")]
    for number, row in enumerate(rows):
        y = number * tall + tall / 2
        words = f"{row.label}: {shown(row.least)} to {shown(row.most)}, half of them up to {shown(row.middle)}"
        drawn.append(_label(left - 8, y + 4, _short(row.label, 20), "end"))
        long = max(2.0, (row.most - row.least) * scale)
        drawn.append(_rect(left + row.least * scale, y - 4, long, 8, "range", words, ' rx="4"'))
        drawn.append(_rect(left + row.middle * scale - 5, y - 5, 10, 10, "middle", words, ' rx="5"'))
        for limit in row.limits:
            way = f"M{_n(left + limit * scale)} {_n(y - 9)}V{_n(y + 9)}"
            drawn.append(_path("limit", way, f"given: {shown(limit)}"))
    return _svg(bottom + _BOTTOM, label, "".join(drawn))


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
