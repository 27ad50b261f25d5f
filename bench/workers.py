"""Run the worker processes of a contestant on a database of its own, warm, and end them."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import IO, Any

import psycopg
from peers.base import BENCH, Peer
from server import Bench, PeerError

#: Jobs of the first lap of warming up, and for how many seconds the later ones have jobs, if that
#: is more; the fewest laps.
LAP, SECONDS_A_LAP, LAPS = 300, 0.2, 3
#: Seconds until a worker must have started, and until it must have stopped.
START, STOP = 30.0, 15.0


class Process:
    """A worker: when it started which job, and how it took them, as it prints it."""

    def __init__(self, peer: Peer, dsn: str) -> None:
        self.started: dict[int, int] = {}
        #: When it had taken jobs, in how many seconds, and how many: of ours, if it is told to.
        self.fetches: list[tuple[int, float, int]] = []
        self.printed = threading.Condition()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by stop)
        self._process = subprocess.Popen(
            peer.command(dsn), cwd=BENCH, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            number, at, *fetch = line.split()
            with self.printed:
                if fetch:
                    self.fetches.append((int(at), float(fetch[0]), int(fetch[1])))
                else:
                    self.started[int(number)] = int(at)
                self.printed.notify_all()

    def check(self) -> None:
        """Raise PeerError if it has ended."""
        if self._process.poll() is not None:
            self._errors.seek(0)
            last = self._errors.read().decode(errors="replace").strip()[-2000:]
            raise PeerError(f"the worker ended with {self._process.returncode}: {last}")

    def wait_for(self, number: int, seconds: float) -> int:
        """Return when the job was started, once it was; raise PeerError if that takes longer."""
        with self.printed:
            if not self.printed.wait_for(lambda: number in self.started, seconds):
                self.check()
                raise PeerError(f"job {number} was not started in {seconds} seconds")
            return self.started[number]

    def stop(self) -> None:
        """Ask it to end, and make it."""
        self._process.terminate()
        try:
            self._process.wait(STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._errors.close()


class Run:
    """The workers of a contestant that are ready, and its database."""

    def __init__(self, peer: Peer, dsn: str, processes: int) -> None:
        self.peer, self.dsn = peer, dsn
        self.processes: list[Process] = []
        self._count = processes
        #: Jobs a second of the last lap of warming up: a first guess.
        self.pace = 0.0

    def __enter__(self) -> Run:
        self._ends = ExitStack()
        with self._ends:
            self.conn = self._ends.enter_context(psycopg.connect(self.dsn, autocommit=True))
            for _ in range(self._count):
                process = Process(self.peer, self.dsn)
                self._ends.callback(process.stop)
                self.processes.append(process)
            self._warm_up()
            self._ends = self._ends.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ends.close()

    def _warm_up(self) -> None:
        """Have every process run jobs, so that code is compiled and statements are prepared."""
        deadline, laps = time.monotonic() + START, 0
        while laps < LAPS or not all(process.started for process in self.processes):
            if time.monotonic() > deadline:
                raise PeerError("the workers do not start to work")
            count = max(LAP, int(SECONDS_A_LAP * self.pace))
            start = time.monotonic()
            last = self.add(count, number=-1)
            self.until_empty(last, START)
            self.pace = count / (time.monotonic() - start)
            laps += 1
            time.sleep(0.02)

    def add(self, count: int, *, number: int = 0, wait: float = 0.0) -> int:
        """Add equal jobs in one transaction, with fresh statistics; return the last one's id."""
        with self.conn.transaction():
            self.peer.load(self.conn, count, {"n": number, "wait": wait})
            found = self.conn.execute(f"select max(id) from {self.peer.jobs}").fetchone()
            self.conn.execute("analyze")
        return (found and found[0]) or 0

    def until_empty(self, last: int, seconds: float) -> int:
        """Return the time, in nanoseconds, at which no job was left; look at the last one first."""
        if not self.empties(last, seconds):
            raise PeerError(f"not done in {seconds:.0f} seconds")
        return time.time_ns()

    def empties(self, last: int, seconds: float, *, after: int = 0) -> bool:
        """Wait until no job is left, or none with an id above ``after``; say whether that was so.

        The last one is looked at first.
        """
        deadline = time.monotonic() + seconds
        for query in (f"where id = {last}", f"where id > {after}" if after else ""):
            while True:
                start = time.monotonic()
                if not self._some(query):
                    break
                if time.monotonic() > deadline:
                    return False
                for process in self.processes:
                    process.check()
                # Looking costs the others a tenth of a core at most.
                time.sleep(max(0.002, 10 * (time.monotonic() - start)))
        return True

    def _some(self, where: str) -> bool:
        found: tuple[Any, ...] | None = self.conn.execute(
            f"select exists (select from {self.peer.jobs} {where})"
        ).fetchone()
        return bool(found and found[0])

    def drain(self, jobs: int, *, most_seconds: float, wait: float = 0.0) -> float:
        """Return the jobs a second of a drain.

        The clock runs from the start of the first job to the time at which the database holds none
        any more. A slow contestant gets fewer jobs, as many as take about ``most_seconds``.
        """
        count = int(min(jobs, max(self.pace * most_seconds, LAP)))
        last = self.add(count, wait=wait)
        end = self.until_empty(last, 5 * most_seconds + 30)
        first = min(process.started[0] for process in self.processes if 0 in process.started)
        return count / (end - first) * 1e9

    def resident(self) -> float:
        """Return the MiB of memory that the first process has."""
        with open(f"/proc/{self.processes[0].pid}/status") as status:  # noqa: PTH123
            fields = dict(line.split(":", 1) for line in status)
        return int(fields["VmRSS"].split()[0]) / 1024

    def busy(self) -> float:
        """Return the seconds of CPU that the first process has used."""
        with open(f"/proc/{self.processes[0].pid}/stat") as stat:  # noqa: PTH123
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(bench: Bench, peer: Peer, processes: int = 1) -> Iterator[Run]:
    """Lend the workers of a contestant, ready and warm, on a fresh database."""
    with bench.copy(peer) as dsn, Run(peer, dsn, processes) as run:
        yield run
