"""Pieces of HTML. Whatever came from people or commands passes `text`, and can be nothing but text."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from ..durations import short_duration
from ..escapes import safe

_MOST_CHARACTERS = 400


def text(value: object) -> str:
    """A value as text of a page or of an attribute, what cannot be seen written out."""
    plain = str(value)
    if len(plain) > _MOST_CHARACTERS:
        plain = plain[: _MOST_CHARACTERS - 1] + "…"
    return html.escape(safe(plain), quote=True)


def section(anchor: str, title: str, *parts: str) -> str:
    """A part of the page; none if there is nothing in it."""
    body = "".join(parts)
    return f'<section id="{anchor}"><h2>{text(title)}</h2>{body}</section>\n' if body else ""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = (), wide: int | None = None) -> str:
    """A table of cells that are markup already; `numbers`: columns of figures, `wide`: the one that takes what room is left."""
    right = set(numbers)

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = [" class=num" if place in right else " class=wide" if place == wide else "" for place in range(len(cells))]
        scope = " scope=col" if tag == "th" else ""
        return "<tr>" + "".join(f"<{tag}{kind}{scope}>{cell}</{tag}>" for kind, cell in zip(kinds, cells)) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    if not body:
        return ""
    head = line([text(one) for one in heads], "th")
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def note(sentence: str) -> str:
    """A line of explanation, markup already."""
    return f'<p class="note">{sentence}</p>'


def code(value: object) -> str:
    """Something of a command line."""
    return f"<code>{text(value)}</code>"


def amount(count: int) -> str:
    """`12,345`."""
    return f"{count:,}"


def span(seconds: float | None) -> str:
    """A length of time; a dash if there is none."""
    if seconds is not None and 0 < seconds < 0.95:
        return f"{max(1, round(1000 * seconds))}ms"
    return "–" if seconds is None else short_duration(seconds)


def size(count: float | None) -> str:
    """Bytes as people read them."""
    if not count:
        return "–" if count is None else "0 B"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def share(part: float, whole: float) -> str:
    """`12 %`; what is little and not nothing is `<1 %`."""
    if not whole or not part:
        return "0 %"
    found = 100 * part / whole
    return "<1 %" if found < 1 else f"{min(99.0, found):.0f} %" if found < 100 else f"{found:.0f} %"
