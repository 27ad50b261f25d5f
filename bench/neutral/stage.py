"""Run the cells of the neutral benchmark without Docker: depth, chaos and pressure.

    .venv/bin/python bench/neutral/stage.py --systems graphile_worker awa --cells depth chaos

Every system gets a database of its own on one durable private server, and one process that speaks
the contract. Depth: jobs a second while 4,000 wait. Chaos: passed if the process completes jobs at
the old rate again within a minute, and no job is left when the producer has stopped. Pressure:
passed if jobs are completed at the rate at which they are added, a third of what the system can do.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from graphile_worker.testing.embedded import Server  # noqa: E402
from server import SETTINGS  # noqa: E402
from systems import SYSTEMS  # noqa: E402

DEPTH, WORKERS = 4000, (4, 16, 64, 128, 256)
#: Jobs a second and jobs at once of the chaos cells: every system can do more.
CHAOS_RATE, CHAOS_WORKERS = 150, 32
WARM, RECOVERS_WITHIN, DRAINS_WITHIN = 8.0, 60.0, 120.0


@dataclass
class Run:
    """A system's process on a database: it is started again when it was killed."""

    system: str
    server: Server
    dbname: str
    seen: list[tuple[float, str, float]] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def start(self, **settings: Any) -> None:
        url = f"postgres://postgres@127.0.0.1:{self.server.port}/{self.dbname}"
        given = {name.upper(): str(value) for name, value in settings.items()}
        self.process = subprocess.Popen(
            [sys.executable, HERE / f"{self.system}_adapter.py"],
            env={**os.environ, "DATABASE_URL": url, "SAMPLE_EVERY_S": "1", **given},
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        threading.Thread(target=self._read, args=[self.process], daemon=True).start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for text in process.stdout:
            line = json.loads(text)
            if line["kind"] == "adapter":
                self.seen.append((time.monotonic(), line["metric"], line["value"]))

    def values(self, metric: str, since: float) -> list[float]:
        return [value for at, name, value in self.seen if name == metric and at >= since]

    def stop(self) -> float:
        """End the process; return the seconds that it took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return time.monotonic() - began

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def completes(self, rate: float, seconds: float) -> float | None:
        """Return the seconds until jobs are completed at a rate, for three seconds; None: never."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            last = self.values("completion_rate", began)[-3:]
            if len(last) == 3 and statistics.mean(last) >= rate:
                return time.monotonic() - began
            if self.process is not None and self.process.poll() is not None:
                return None
            time.sleep(0.2)
        return None


class Stage:
    """The server, and what was measured."""

    def __init__(self, server: Server, seconds: float) -> None:
        self.server, self.seconds, self._count = server, seconds, 0
        self.results: list[dict[str, Any]] = []
        self.rates: dict[str, float] = {}

    @contextmanager
    def system(self, system: str) -> Iterator[Run]:
        self._count += 1
        run = Run(system, self.server, f"stage_{self._count}")
        with psycopg.connect(self.server.dsn(), autocommit=True) as conn:
            conn.execute(f"create database {run.dbname}".encode())
        try:
            yield run
        finally:
            if run.process is not None and run.process.poll() is None:
                run.kill()
            with psycopg.connect(self.server.dsn(), autocommit=True) as conn:
                conn.execute(f"drop database {run.dbname} with (force)".encode())

    def report(self, cell: str, system: str, **figures: Any) -> None:
        self.results.append({"cell": cell, "system": system, **figures})
        print(f"{cell:28} {system:16} {figures}", flush=True)

    # --- depth

    def depth(self, systems: list[str]) -> None:
        for workers in WORKERS:
            for system in systems:
                with self.system(system) as run:
                    run.start(producer_mode="depth-target", target_depth=DEPTH,
                        producer_batch_max=1000, producer_batch_ms=5, worker_count=workers,
                    )  # fmt: skip
                    time.sleep(WARM)
                    since = time.monotonic()
                    time.sleep(self.seconds)
                    rates = run.values("completion_rate", since) or [0.0]
                    waits = run.values("claim_p99_ms", since) or [0.0]
                    rate = statistics.median(rates)
                    self.rates[system] = max(self.rates.get(system, 0.0), rate)
                    self.report(f"depth {DEPTH}, {workers} workers", system,
                        rate=round(rate), claim_p99_ms=round(waits[-1]), stop=round(run.stop(), 1),
                    )  # fmt: skip

    # --- chaos

    def chaos(self, systems: list[str]) -> None:
        settings = {"producer_rate": CHAOS_RATE, "worker_count": CHAOS_WORKERS}
        for name, disturb in CHAOS.items():
            for system in systems:
                with self.system(system) as run:
                    run.start(**settings)
                    before = run.completes(0.9 * CHAOS_RATE, 30.0)
                    disturb(run, settings)
                    if run.process is not None and run.process.poll() is not None:
                        run.start(**settings)  # as whatever watches over it would
                    back = run.completes(0.9 * CHAOS_RATE, RECOVERS_WITHIN)
                    run.stop()
                    left, drained = self._drained(run)
                    passed = None not in (before, back) and left == 0
                    self.report(f"chaos: {name}", system, passed=passed, left=left,
                        back=back and round(back, 1), drained=round(drained, 1),
                    )  # fmt: skip

    def _drained(self, run: Run) -> tuple[int, float]:
        """Run without new jobs until none is left; return how many are, and after which time."""
        run.start(producer_rate=0, worker_count=CHAOS_WORKERS)
        began, left = time.monotonic(), -1
        with psycopg.connect(self.server.dsn(run.dbname), autocommit=True) as conn:
            while time.monotonic() - began < DRAINS_WITHIN:
                time.sleep(1)
                ((left,),) = conn.execute(SYSTEMS[run.system].encode())
                if left <= 0:
                    break
        return max(left, 0), time.monotonic() - began

    # --- pressure

    def pressure(self, systems: list[str]) -> None:
        for name, press in PRESSURE.items():
            for system in systems:
                if system not in self.rates:
                    self.depth([system])
                rate = self.rates[system] / 3 * (2 if name == "twice the load" else 1)
                with self.system(system) as run, ExitStack() as stack:
                    run.start(producer_rate=rate, worker_count=64, producer_batch_max=1000)
                    run.completes(0.8 * rate, 15.0)
                    press(run, stack)
                    time.sleep(4 * self.seconds)
                    done = run.values("completion_rate", time.monotonic() - self.seconds)
                    depth = (run.values("queue_depth", 0) or [0.0])[-1]
                    least = 0.9 * rate
                    median = statistics.median(done or [0.0])
                    self.report(f"pressure: {name}", system, passed=median >= least,
                        asked=round(rate), completed=round(median), depth=round(depth),
                    )  # fmt: skip


def _sigkill(run: Run, settings: dict[str, Any]) -> None:
    run.kill()
    time.sleep(1)


def _sigkills(run: Run, settings: dict[str, Any]) -> None:
    for _ in range(3):
        run.kill()
        run.start(**settings)
        time.sleep(4)


def _restart(run: Run, settings: dict[str, Any]) -> None:
    run.server.restart()


def _terminate(run: Run, settings: dict[str, Any]) -> None:
    with psycopg.connect(run.server.dsn(), autocommit=True) as conn:
        for _ in range(5):
            conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s",
                [run.dbname],
            )
            time.sleep(2)


def _exhaust(run: Run, settings: dict[str, Any]) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            try:
                while True:
                    stack.enter_context(psycopg.connect(run.server.dsn(run.dbname)))
            except psycopg.OperationalError:
                time.sleep(4)


def _idle_transaction(run: Run, stack: ExitStack) -> None:
    conn = stack.enter_context(psycopg.connect(run.server.dsn(run.dbname)))
    conn.execute("set transaction isolation level repeatable read")
    conn.execute("select pg_current_xact_id()")


def _long_readers(run: Run, stack: ExitStack) -> None:
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            with psycopg.connect(run.server.dsn(run.dbname)) as conn:
                conn.execute("set transaction isolation level repeatable read")
                conn.execute(SYSTEMS[run.system].encode())
                stop.wait(10)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
        stack.callback(thread.join)
    stack.callback(stop.set)


def _all(run: Run, stack: ExitStack) -> None:
    _idle_transaction(run, stack)
    _long_readers(run, stack)


CHAOS: dict[str, Callable[[Run, dict[str, Any]], None]] = {
    "process killed": _sigkill, "process killed three times": _sigkills,
    "server restarted": _restart, "backends terminated": _terminate,
    "connections exhausted": _exhaust,
}  # fmt: skip
PRESSURE: dict[str, Callable[[Run, ExitStack], None]] = {
    "idle transaction": _idle_transaction, "long readers": _long_readers,
    "both": _all, "twice the load": lambda run, stack: None,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument(
        "--cells", nargs="+", choices=("depth", "chaos", "pressure"),
        default=["depth", "chaos", "pressure"],
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=15.0, help="of a measurement (15)")
    parser.add_argument("--json", type=Path, help="write all results to this file")
    chosen = parser.parse_args()
    # As Ctrl-C does: so that every process is ended and the server's folder goes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    server = Server(durable=True, settings=SETTINGS)
    with server:
        stage = Stage(server, chosen.seconds)
        for cells in chosen.cells:
            getattr(stage, cells)(chosen.systems)
    if chosen.json:
        chosen.json.write_text(json.dumps(stage.results, indent=1) + "\n")


if __name__ == "__main__":
    main()
