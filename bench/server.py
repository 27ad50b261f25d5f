"""The benchmark's server, its databases, and the rounds that compare contestants on it."""

from __future__ import annotations

import itertools
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from graphile_worker.testing.embedded import Server
from peers.base import Peer
from psycopg import sql

SETTINGS = {
    "max_connections": "500",
    "shared_buffers": "'1GB'",
    "max_wal_size": "'8GB'",
    "shared_preload_libraries": "'pg_stat_statements'",
    "pg_stat_statements.track": "none",
}


class PeerError(Exception):
    """A contestant did not do its work; the others go on without it."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rounds: int
    #: Seconds of a measurement that counts what is done in them, such as pgbench's.
    seconds: int
    #: How many clients add jobs at once, one number after the other.
    clients: tuple[int, ...]
    #: Jobs of a drain, and for about how many seconds of them slow contestants get.
    jobs: int
    most_seconds: float
    #: How many processes drain, and for how many milliseconds jobs wait.
    processes: tuple[int, ...]
    waits: tuple[int, ...]
    #: Jobs whose latency is measured, and seconds for which an idle worker is watched.
    probes: int
    idle_seconds: float
    #: How much of a hostile table there is, and how long one is churned beside an open snapshot.
    scale: float
    churn_seconds: float

    @property
    def is_small(self) -> bool:
        """Whether it is a quick look, in which not everybody takes part everywhere."""
        return self.scale < 0.1


@dataclass
class Bench:
    """One server, what is to be measured on it, and what was."""

    server: Server
    sizes: Sizes
    #: Parts of the names of those that run beside the first contestant; none: all do.
    only: list[str] = field(default_factory=list)
    #: The part of the benchmark that runs.
    part: str = ""
    #: Its part, title and unit, and the values of each contestant, a value a round.
    results: list[dict[str, Any]] = field(default_factory=list)
    _names: Iterator[int] = field(default_factory=itertools.count)

    @contextmanager
    def database(self, name: str) -> Iterator[psycopg.Connection[Any]]:
        """Connect to a database, in autocommit mode."""
        with psycopg.connect(self.server.dsn(name), autocommit=True) as connection:
            yield connection

    def create(self, name: str, template: str = "template1") -> None:
        """Create a database."""
        with self.database("postgres") as connection:
            connection.execute(
                sql.SQL("create database {} template {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )

    def prepare(self, peers: list[Peer]) -> None:
        """Make the databases with an empty schema that these need and that are not there yet."""
        with self.database("postgres") as connection:
            there = {name for (name,) in connection.execute("select datname from pg_database")}
        for peer in peers:
            if peer.template not in there and (peer is peers[0] or self.runs(peer.name)):
                there.add(peer.template)
                self.create(peer.template)
                peer.prepare(self.server.dsn(peer.template))

    def runs(self, name: str) -> bool:
        """Whether a contestant of this name was chosen; the first one runs beside any."""
        return not self.only or any(part in name for part in self.only)

    @contextmanager
    def copy(self, peer: Peer) -> Iterator[str]:
        """Lend a fresh database with the contestant's schema: its connection string."""
        name = f"run_{next(self._names)}"
        self.create(name, peer.template)
        try:
            with self.database("postgres") as connection:
                connection.execute("checkpoint")
            yield self.server.dsn(name)
        finally:
            with self.database("postgres") as connection:
                connection.execute(f"drop database {name} with (force)")

    def compare(
        self,
        title: str,
        contestants: dict[str, Callable[[], float]],
        *,
        unit: str = "/s",
        rounds: int | None = None,
    ) -> None:
        """Measure one figure of each contestant, and print it."""

        def one(measure: Callable[[], float]) -> Callable[[], dict[str, float]]:
            return lambda: {title: measure()}

        self.compare_all(
            {title: unit}, {name: one(measure) for name, measure in contestants.items()},
            rounds=rounds,
        )  # fmt: skip

    def compare_all(
        self,
        figures: dict[str, str],
        contestants: dict[str, Callable[[], dict[str, float]]],
        *,
        rounds: int | None = None,
    ) -> None:
        """Measure several figures of each contestant at once; they are given with their units.

        Each round measures all contestants one after the other, so that what else the machine does
        hits them alike; with each round another one begins, since a disk remembers who came before.
        The ratios are those of the first contestant to the others, round by round.
        """
        first, *_ = contestants
        seen: dict[str, list[dict[str, float]]] = {
            name: [] for name in contestants if name == first or self.runs(name)
        }
        order = list(seen)
        for _ in range(rounds or self.sizes.rounds):
            for name in order:
                try:
                    seen[name].append(contestants[name]())
                except PeerError as error:
                    print(f"! {name}: {error}", flush=True)
                    seen[name].append({})
            order.append(order.pop(0))
        for title, unit in figures.items():
            values = {name: [each.get(title) for each in rounds] for name, rounds in seen.items()}
            self.report(title, unit, values)

    def report(self, title: str, unit: str, values: dict[str, list[float | None]]) -> None:
        """Keep a figure of each contestant, a value a round, and say that it is there."""
        self.results.append({"part": self.part, "title": title, "unit": unit, "values": values})
        print(f"  {title}", file=sys.stderr, flush=True)

    def print_all(self) -> None:
        """Print every figure that was measured."""
        for each in self.results:
            _print(each["title"], each["unit"], each["values"])


def _print(title: str, unit: str, values: dict[str, list[float | None]]) -> None:
    ours, *_ = values
    print(title)
    for name, figures in values.items():
        line = f"  {name:28} {_spread([each for each in figures if each is not None], unit)}"
        ratios = [a / b for a, b in zip(values[ours], figures, strict=True) if a and b]
        if name != ours and ratios:
            line = f"{line:72} ours: x {_spread(ratios)}"
        print(line.rstrip())
    print(flush=True)


def _spread(figures: list[float], unit: str = "") -> str:
    """Return the median, and the least and the greatest."""
    if not figures:
        return "-"
    least, most = number(min(figures)), number(max(figures))
    spread = f" ({least}-{most})" if len(figures) > 1 else ""
    return f"{number(statistics.median(figures))}{unit}{spread}"


def number(figure: float) -> str:
    """Return three digits of it, or all before the point."""
    if abs(figure) >= 100:
        return f"{figure:,.0f}"
    return f"{figure:.1f}" if abs(figure) >= 10 else f"{figure:.2f}"
