"""Figures, the bars they must clear, the table that shows both, and the record of a run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from measure import median

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- recorded: begin -->", "<!-- recorded: end -->"
OURS = "scitq"


@dataclass
class Figure:
    """One thing measured of one system, once a round."""

    scenario: str
    what: str
    unit: str
    system: str
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return median(self.values)


@dataclass
class Bar:
    """A limit that a figure of scitq, or a ratio of two, must keep."""

    scenario: str
    what: str
    limit: float
    at_most: bool  # or at least
    unit: str
    measured: float

    @property
    def met(self) -> bool:
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit


@dataclass
class Results:
    """All of a run."""

    figures: list[Figure] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)  # a peer that could not be had -> why
    notes: list[str] = field(default_factory=list)

    def add(self, scenario: str, what: str, unit: str, system: str, value: float) -> None:
        """One more value of a figure."""
        for figure in self.figures:
            if (figure.scenario, figure.what, figure.system) == (scenario, what, system):
                figure.values.append(value)
                return
        self.figures.append(Figure(scenario, what, unit, system, [value]))

    def median(self, scenario: str, what: str, system: str = OURS) -> float | None:
        """The median of a figure, None if it was not measured."""
        for figure in self.figures:
            if (figure.scenario, figure.what, figure.system) == (scenario, what, system):
                return figure.median
        return None

    def at_most(self, scenario: str, what: str, limit: float, unit: str) -> None:
        """The median of this figure of scitq must not exceed the limit."""
        measured = self.median(scenario, what)
        if measured is not None:
            self.bars.append(Bar(scenario, what, limit, True, unit, measured))

    def at_least(self, scenario: str, what: str, limit: float, unit: str, measured: float | None) -> None:
        """What was measured must reach the limit."""
        if measured is not None:
            self.bars.append(Bar(scenario, what, limit, False, unit, measured))

    # --- shown --------------------------------------------------------------------------------------------------------

    def table(self) -> str:
        """Two tables in Markdown: the bars, then every figure with its ratio to that of scitq."""
        bars = [
            [b.scenario, b.what, f"{'<=' if b.at_most else '>='} {number(b.limit)} {b.unit}", f"{number(b.measured)} {b.unit}",
             "met" if b.met else "**missed**"]
            for b in self.bars
        ]  # fmt: skip
        figures = [
            [f.scenario, f.what, f.system, f"{number(f.median)} {f.unit}", _spread(f), self._ratio(f)]
            for f in sorted(self.figures, key=lambda f: self._place(f))
        ]
        text = markdown(["scenario", "bar", "wanted", "measured", ""], bars) + "\n"
        text += markdown(["scenario", "figure", "system", "median", "from - to", "against scitq"], figures)
        text += "".join(f"\n- {title} is not in the table: {why}" for title, why in self.missing.items())
        return text + "".join(f"\n- {note}" for note in self.notes) + "\n"

    def _place(self, figure: Figure) -> tuple[int, int]:
        whats = list(dict.fromkeys((f.scenario, f.what) for f in self.figures))
        scenarios = list(dict.fromkeys(f.scenario for f in self.figures))
        return scenarios.index(figure.scenario), whats.index((figure.scenario, figure.what))

    def _ratio(self, figure: Figure) -> str:
        ours = self.median(figure.scenario, figure.what)
        return "" if figure.system == OURS or not ours else f"{number(figure.median / ours)} x"

    # --- kept ---------------------------------------------------------------------------------------------------------

    def record(self, date: str, about: dict) -> None:
        """Writes `results/<date>-<scenario>.json` for each scenario, and the table of all the newest ones into README.md."""
        folder = HERE / "results"
        folder.mkdir(exist_ok=True)
        for scenario in dict.fromkeys(f.scenario for f in self.figures):
            plain = {
                "date": date, "scenario": scenario, **about, "missing": self.missing, "notes": self.notes,
                "figures": [asdict(f) for f in self.figures if f.scenario == scenario],
                "bars": [asdict(b) | {"met": b.met} for b in self.bars if b.scenario == scenario],
            }  # fmt: skip
            (folder / f"{date}-{scenario}.json").write_text(json.dumps(plain, indent=1) + "\n")
        _write_readme(newest(folder))


def newest(folder: Path) -> list[dict]:
    """The latest record of each scenario, as they were measured."""
    latest = {}
    for path in sorted(folder.glob("*.json")):
        plain = json.loads(path.read_text())
        latest[plain["scenario"]] = plain
    return list(latest.values())


def _write_readme(records: list[dict]) -> None:
    results = Results()
    for record in records:
        results.figures += [Figure(**plain) for plain in record["figures"]]
        results.bars += [Bar(**{name: value for name, value in plain.items() if name != "met"}) for plain in record["bars"]]
        results.missing |= record["missing"]
        results.notes += [note for note in record["notes"] if note not in results.notes]
    sources = "; ".join(f"{r['scenario']} {r['date']} at {r['commit']}{' with changes' if r['changed'] else ''}" for r in records)
    loads = max(r["load_before"] for r in records)
    first = records[0]
    about = (
        f"{first['cores']} cores, {first['machine']}, Python {first['python']}; load before the run up to {loads:g}. "
        f"Peers: {', '.join(f'{name} {version}' for name, version in first['versions'].items())}.\n\nRecorded: {sources}.\n"
    )
    if loads > 1:
        about += "\nThe machine was busy with other work: figures and ratios are preliminary.\n"
    readme = HERE / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    readme.write_text(f"{before}{BEGIN}\n\n{about}\n{results.table()}\n{END}{rest.partition(END)[2]}")


def number(value: float) -> str:
    """Three figures that count, and no more digits than needed."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _spread(figure: Figure) -> str:
    return f"{number(min(figure.values))} - {number(max(figure.values))}" if len(figure.values) > 1 else ""


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table whose columns are aligned also when it is read as text."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |\n" for line in lines)
