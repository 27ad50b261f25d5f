"""Write what `make bench` measured into the README and docs/performance.md, and draw the plot.

Reads the files that `bench/run.py --json` wrote: parts that were measured apart are put together,
and of a figure that is there twice the later file's counts. Everything between the markers is
replaced, and nothing else; figures that were not measured are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import plots
from figures import LIMITS, OURS, ROWS, Figure, beside, ratio, table

ROOT = Path(__file__).parents[1]
START, END = "<!-- bench -->", "<!-- /bench -->"

#: Columns of the tables, and the figures in them, as the parts of the benchmark call them.
DRAINS = {
    "1 process": "1 process",
    "2 processes": "2 processes",
    "1 ms": "of 1 ms",
    "10 ms": "of 10 ms",
}
LATENCIES = {
    f"{kind}, {short}": f"latency, {kind}, {which}"
    for kind in ("idle", "light load", "heavy load", "half load")
    for short, which in (("p50", "median"), ("p99", "99th percentile"))
}
USES = {
    "MiB idle": "memory, idle", "MiB after a drain": "memory, after a drain",
    "statements a minute, idle": "statements, idle", "CPU of a job": "CPU of a job",
    "WAL of a job": "WAL of a job, its whole life", "index entries": "index entries of a job",
}  # fmt: skip


class Report:
    """The figures, and the texts that are made of them."""

    def __init__(self, measured: list[dict[str, Any]]) -> None:
        """Put files together; raise ValueError for figures of different machines or versions."""
        self.machine = measured[-1]["machine"]
        if any(each["machine"] != self.machine for each in measured):
            raise ValueError("the files are of different machines or versions: measure them anew")
        self.date, self.sizes = measured[-1]["date"], measured[-1]["sizes"]
        found = {
            (result["part"], result["title"]): Figure(**result)
            for each in measured
            for result in each["results"]
        }
        self.figures = list(found.values())

    def _of(self, *parts: str) -> list[Figure]:
        return [figure for figure in self.figures if figure.part in parts]

    def _named(self, part: str, title: str) -> Figure | None:
        return next((each for each in self._of(part) if title in each.title), None)

    def conditions(self) -> str:
        """Say with what it was measured, and how to read the tables."""
        machine = self.machine
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        rounds = max((len(v) for f in self._of("drain") for v in f.values.values()), default=0)
        rounds = rounds or self.sizes["rounds"]
        return (
            f"Measured on {self.date} on one server: {machine['processor']},"
            f" {machine['cores']} cores, {machine['memory']}, {machine['system']}; {versions}.\n"
            f"Medians of {rounds} round{'s' * (rounds != 1)}. After the dot: ours as a multiple of"
            " it, the median of the rounds' ratios (least to greatest). Of rates, above 1 means"
            " that ours is faster; of times and sizes, below 1 is better. A dash: not measured, or"
            " failed."
        )

    def adding(self) -> str:
        """Return the table of adding jobs."""
        figures = self._of("enqueue", "keyed", "many", "protocol")
        others = ("Node", "Procrastinate", "PgQueuer")
        rows = [
            (
                figure.title, figure.shown(OURS),
                next((beside(figure, each) for each in LIMITS if each in figure.values), ""),
                *(beside(figure, each) for each in others),
            )
            for figure in figures
        ]  # fmt: skip
        return table(("", "ours", "the limit: plain SQL", *others), rows) if rows else ""

    def _contestants(self, columns: dict[str, Figure | None]) -> str:
        shown = {head: figure for head, figure in columns.items() if figure}
        names = list(dict.fromkeys(name for figure in shown.values() for name in figure.values))
        rows = [(name, *(beside(figure, name) for figure in shown.values())) for name in names]
        return table(("", *shown), rows) if rows else ""

    def draining(self) -> str:
        """Return the table of drains."""
        return self._contestants(
            {
                head: self._named("drain" if "process" in head else "wait", f" jobs, {title}")
                or self._named("wait", f" jobs {title}")
                for head, title in DRAINS.items()
            }
        )

    def latency(self) -> str:
        """Return the table of latencies."""
        return self._contestants(
            {head: self._named("latency", title) for head, title in LATENCIES.items()}
        )

    def beside(self) -> str:
        """Return the table of jobs that are added while a worker runs them."""
        return self._contestants(
            {
                figure.title.removeprefix("added ").replace(" beside a worker", "")
                .replace("median", "p50").replace("99th percentile", "p99"): figure
                for figure in self._of("beside")
            }
        )  # fmt: skip

    def use(self) -> str:
        """Return the table of what a worker uses."""
        return self._contestants(
            {head: self._named("memory", title) for head, title in USES.items()}
        )

    def hostile(self) -> str:
        """Return the table of hostile states."""
        rows = []
        suffix = ": of the clean rate"
        for figure in self._of("hostile", "churn"):
            if not figure.title.endswith(suffix):
                continue
            title = figure.title.removesuffix(suffix)
            others = {
                name: self._named(figure.part, f"{title}: {name}")
                for name in (
                    "drained", "its clean twin", "fetch, 95th percentile",
                    "fetch of one job, 95th percentile",
                )
            }  # fmt: skip
            peers = [name for name in figure.values if name != OURS]
            rows.append(
                (
                    title,
                    *(other.shown(OURS) if other else "" for other in others.values()),
                    ratio([value for value in figure.values[OURS] if value is not None]),
                    *(
                        ratio([v for v in figure.values[peer] if v is not None])
                        for peer in peers[:1]
                    ),
                )
            )
        if not rows:
            return ""
        heads = (
            "", "drained", "clean twin", "fetch p95", "fetch of one, p95", "of the clean rate",
            "Node, batched: of its own",
        )  # fmt: skip
        return table(heads[: len(rows[0])], rows)

    def everything(self) -> str:
        """Return every figure of every contestant."""
        rows = [
            (
                figure.title if not index else "", name, figure.shown(name), figure.spread(name),
                ratio(figure.ratios(name)) if name != OURS and OURS in figure.values else "",
            )
            for figure in self.figures
            for index, name in enumerate(figure.values)
        ]  # fmt: skip
        return table(("", "", "median", "least to greatest", "ours : it"), rows)

    def short(self) -> str:
        """Return the eight rows of the README."""
        rows = []
        for label, part, title in ROWS:
            figure = self._named(part, title)
            if figure is None:
                continue
            limit = next((beside(figure, each) for each in LIMITS if each in figure.values), "")
            node = "Node, batched" if "Node, batched" in figure.values else "Node"
            others = (beside(figure, each) for each in (node, "Procrastinate", "PgQueuer"))
            rows.append((label, figure.shown(OURS), limit, *others))
        head = ("", "ours", "the limit", "Node", "Procrastinate", "PgQueuer")
        return _paragraphs([(self.conditions(), True), ("", table(head, rows) if rows else "")])

    def long(self) -> str:
        """Return what docs/performance.md says."""
        parts = (
            (self.conditions(), True),
            ("### Adding jobs", self.adding()),
            ("### Draining\n\n" + self._drain_line(), self.draining()),
            ("### Latency", self.latency()),
            ("### Adding beside a worker", self.beside()),
            ("### Hostile tables", self.hostile()),
            ("### What a worker uses", self.use()),
            ("### Every figure", self.everything()),
        )
        return _paragraphs(parts)

    def _drain_line(self) -> str:
        waits = ", and jobs that wait for 1 and for 10 ms, 24 at once" if self._of("wait") else ""
        return (
            f"{self.sizes['jobs']:,} jobs that do nothing are drained by 1 and by 2 processes"
            f"{waits}:"
        )


def _paragraphs(parts: Iterable[tuple[str, str | bool]]) -> str:
    return "\n\n".join(
        f"{text}\n\n{table}" if isinstance(table, str) else text for text, table in parts if table
    )


def replaced(text: str, between: str) -> str:
    """Return the text with something else between its markers; raise ValueError without them."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"{START} and {END} are not both there")
    return f"{before}{START}\n{between}\n{END}{after}"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("measured", type=Path, nargs="+", help="files that run.py --json wrote")
    found.add_argument("--root", type=Path, default=ROOT, help="the folder of the README")
    return found


def main() -> int:
    chosen = parser().parse_args()
    report = Report([json.loads(path.read_text()) for path in chosen.measured])
    pages = {"README.md": report.short(), "docs/performance.md": report.long()}
    for name, between in pages.items():
        page: Path = chosen.root / name
        page.write_text(replaced(page.read_text(), between))
    plots.drains(report.figures, chosen.root / "docs" / "drain.svg")
    plots.growth(report.figures, chosen.root / "docs" / "growth.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
