"""Figures that were measured: their medians, spreads and ratios, and the eight that come first."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from server import number

OURS = "ours"
#: What an equal statement or program does that is no queue.
LIMITS = ("insert", "insert..select", "bare SQL", "bare SQL, no task", "LISTEN and NOTIFY alone")
#: The rows of the README: label, part of the benchmark, and a piece of the figure's title.
ROWS = (
    ("add_job, durable, 1 client", "enqueue", "1 clients, commit on, notify on"),
    (
        "add_job, durable, 16 clients, `notify = off`",
        "enqueue",
        "16 clients, commit on, notify off",
    ),
    ("add_jobs of 1,000", "many", "add_jobs of 1,000"),
    ("fetch and finish in batches of 100", "protocol", "50,000 in batches"),
    ("drain 100,000 jobs, 1 process", "drain", " jobs, 1 process"),
    ("drain 100,000 jobs, 2 processes", "drain", " jobs, 2 processes"),
    ("commit to start of a job, idle, p50", "latency", "latency, idle, median"),
    ("memory of an idle worker", "memory", "memory, idle"),
)


@dataclass(frozen=True)
class Figure:
    """What was measured of each contestant, round by round."""

    part: str
    title: str
    unit: str
    values: dict[str, list[float | None]]

    def median(self, name: str) -> float | None:
        """Return a contestant's median; None where it has no figure."""
        seen = [value for value in self.values.get(name, []) if value is not None]
        return statistics.median(seen) if seen else None

    def shown(self, name: str) -> str:
        """Return a contestant's median with its unit."""
        median = self.median(name)
        return "" if median is None else f"{number(median)}{self.unit}"

    def spread(self, name: str) -> str:
        """Return the least and the greatest of a contestant's rounds."""
        return spread([value for value in self.values.get(name, []) if value is not None])

    def ratios(self, name: str) -> list[float]:
        """Return ours divided by a contestant's, round by round."""
        rounds = zip(self.values[OURS], self.values.get(name, []), strict=False)
        return [ours / its for ours, its in rounds if ours and its]


def spread(values: list[float]) -> str:
    if len(values) < 2:
        return ""
    least, most = number(min(values)), number(max(values))
    return f"{least}–{most}"  # noqa: RUF001 (a range, as it is printed)


def ratio(ratios: list[float]) -> str:
    """Return the median of ratios and their spread."""
    if not ratios:
        return ""
    around = spread(ratios)
    return f"{number(statistics.median(ratios))}{around and f' ({around})'}"


def beside(figure: Figure, name: str) -> str:
    """Return a contestant's cell: its figure, and ours as a multiple of it."""
    shown, ratios = figure.shown(name), ratio(figure.ratios(name))
    if not shown and name in figure.values:
        return "-"
    return f"{shown} · {ratios}" if ratios and name != OURS else shown


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head, body = list(head), [list(row) for row in rows]
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def first_rows(figures: list[Figure]) -> str:
    """Return the eight rows that come first: ours, the best rival and the limit of each."""
    rows = []
    for label, part, title in ROWS:
        for figure in figures:
            if figure.part == part and title in figure.title:
                rows.append((label, figure.shown(OURS), _best(figure), _limit(figure)))
                break
    return table(("", "ours", "best rival", "limit"), rows) if rows else ""


def _best(figure: Figure) -> str:
    """Return the best of the others that are no limit, and no setting of ours."""
    medians = {
        name: median
        for name in figure.values
        if name not in LIMITS and not name.startswith(OURS) and "our schema" not in name
        and (median := figure.median(name)) is not None
    }  # fmt: skip
    if not medians:
        return ""
    # Of rates more is better, of times and sizes less.
    choose = max if figure.unit == "/s" else min
    name = choose(medians, key=lambda each: medians[each])
    return f"{name}: {beside(figure, name)}"


def _limit(figure: Figure) -> str:
    return next((beside(figure, each) for each in LIMITS if each in figure.values), "")
