"""What a check plays on: a database that keeps its history, and the worker's processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from graphile_worker.gw.conformance.history import ROLE, TASKS, WAITS_BEFORE_COMMIT
from graphile_worker.testing.embedded import Server
from graphile_worker.testing.network import Network


class Broken(Exception):  # noqa: N818
    """The worker does not keep a rule; the text says what was seen."""


@dataclass(frozen=True)
class Settings:
    """How the worker is started, and how long a check waits for what must come."""

    command: list[str]
    timeout: float
    owner: bool = False


class Worker:
    """A process of the worker that is checked."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def send(self, number: signal.Signals) -> None:
        """Send a signal: to stop to the process, others to all processes of its group."""
        with suppress(ProcessLookupError):
            if number == signal.SIGTERM:
                os.kill(self.process.pid, number)
            else:
                os.killpg(self.process.pid, number)

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None

    def close(self) -> None:
        """Kill all processes of its group."""
        self.send(signal.SIGKILL)
        self.process.wait()


class Stage:
    """A database with the queue, its history, and a network between it and the worker."""

    def __init__(
        self, dsn: str, folder: Path, server: Server, settings: Settings, closes: ExitStack
    ) -> None:
        self.dsn, self.folder, self._server = dsn, folder, server
        self._settings, self._closes = settings, closes
        self.network = Network(dsn)
        closes.callback(self.network.close)
        self.report = folder / "report.jsonl"
        self.log = folder / "worker.log"
        self._conn: psycopg.Connection[Any] | None = None
        self._gates = 0
        self._workers: list[Worker] = []

    # The worker

    def start(self, *, concurrency: int = 4, poll: float = 1, grace: float = 30) -> Worker:
        """Start a process of the worker, and return it."""
        at = conninfo_to_dict(self.network.dsn)
        role = str(at["user"]) if self._settings.owner else ROLE
        environment = {
            "DATABASE_URL": f"postgresql://{role}@{at['host']}:{at['port']}/{at['dbname']}",
            "PGHOST": str(at["host"]), "PGPORT": str(at["port"]), "PGUSER": role,
            "PGDATABASE": str(at["dbname"]), "CONFORMANCE_REPORT": str(self.report),
            "CONFORMANCE_TASKS": ",".join(TASKS), "CONFORMANCE_CONCURRENCY": str(concurrency),
            "CONFORMANCE_POLL_SECONDS": f"{poll:g}", "CONFORMANCE_GRACE_SECONDS": f"{grace:g}",
        }  # fmt: skip
        self.report.touch()
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self._settings.command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        worker = Worker(process)
        self._closes.callback(worker.close)
        self._workers.append(worker)
        return worker

    def stop(self, worker: Worker) -> None:
        """Ask a process to stop, and wait until it has ended."""
        worker.send(signal.SIGTERM)
        self.wait_for(lambda: worker.has_ended, "the process ends after SIGTERM")

    # The database

    def rows(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        """Run a statement as the owner, and return its rows."""
        if self._conn is None or self._conn.closed:
            self._conn = self._closes.enter_context(psycopg.connect(self.dsn, autocommit=True))
        cursor = self._conn.execute(sql.encode(), params or None)
        return cursor.fetchall() if cursor.description else []

    def value(self, sql: str, *params: Any) -> Any:
        """Return the only value of a statement."""
        ((only,),) = self.rows(sql, *params)
        return only

    def add(self, task: str = "run", payload: Any = None, **options: Any) -> int:
        """Add a job, due now; return its id."""
        names = "".join(f", {name} := %s" for name in options)
        sql = f"select id from graphile_worker.add_job(%s, %s::text::json{names})"
        text = json.dumps({} if payload is None else payload)
        job: int = self.value(sql, task, text, *options.values())
        return job

    def history(self, event: str, job: int | None = None) -> list[str]:
        """Return the ids of the workers of each such event, in order."""
        sql = (
            "select worker_id from conformance.history"
            " where event = %s and (%s::bigint is null or job_id = %s) order by id"
        )
        return [worker for (worker,) in self.rows(sql, event, job, job)]

    def job(self, job: int) -> Any:
        """Return a job as a row with names, or None if it is gone."""
        found = self.rows(
            "select to_json(jobs) from graphile_worker._private_jobs as jobs where id = %s", job
        )
        return found[0][0] if found else None

    def is_free(self, job: int) -> bool:
        """Whether no worker has the job."""
        row = self.job(job)
        return row is not None and row["locked_by"] is None

    def set_dead_after(self, seconds: float) -> None:
        """Set after how much silence a worker is presumed dead."""
        self.rows("select graphile_worker.set_recovery(make_interval(secs => %s))", seconds)

    def crash_server(self) -> None:
        """Let the server crash and start again."""
        self._conn = None
        self._server.crash()
        self._server.start()

    @contextmanager
    def stopped_before_commit(self, event: str) -> Iterator[None]:
        """Let transactions that claim or complete a job wait before they commit."""
        with psycopg.connect(self.dsn) as conn:
            conn.execute("select pg_advisory_lock(hashtext(%s))", [event])
            yield

    def answer_is_lost(self, event: str, before: Callable[[], Any] = lambda: None) -> None:
        """Lose the answer of the next transaction that claims or completes a job."""
        seen = len(self.history(event))
        with self.stopped_before_commit(event):
            before()
            self.wait_for(
                lambda: self.value(WAITS_BEFORE_COMMIT), f"a transaction is about to {event} a job"
            )
            self.network.lose_answers()
        self.wait_for(lambda: len(self.history(event)) > seen, f"the {event} is committed")
        self.network.cut()
        self.network.heal()

    @contextmanager
    def other_worker(self) -> Iterator[None]:
        """Run a worker of the kit's own, which fetches nothing and recovers dead workers."""
        ended = threading.Event()

        def live() -> None:
            with psycopg.connect(self.dsn, autocommit=True) as conn:
                while not ended.wait(0.1):
                    conn.execute("select graphile_worker.heartbeat('other', array['none'])")
                    conn.execute("select graphile_worker.recover_dead_workers('other')")
                conn.execute("select graphile_worker.end_worker('other')")

        thread = threading.Thread(target=live, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    # What the tasks report

    def reported(self) -> list[tuple[str, int]]:
        """Return what was reported, in order: 'start' or 'end', and the job."""
        if not self.report.exists():
            return []
        lines = self.report.read_text().split("\n")[:-1]
        found = []
        for line in lines:
            try:
                said = json.loads(line)
                found.append((said["event"], int(said["job"])))
            except (ValueError, KeyError, TypeError) as error:
                raise Broken(
                    f'the report has the line {line!r}; write {{"event": "start", "job": 1}}'
                ) from error
        return found

    def starts(self, job: int) -> int:
        """Return how many times a job was started."""
        return self.reported().count(("start", job))

    def ends(self, job: int) -> int:
        """Return how many times a job was run to its end."""
        return self.reported().count(("end", job))

    def gate(self) -> Path:
        """Return a file for a job to wait for: it runs until the file is there."""
        self._gates += 1
        return self.folder / f"gate{self._gates}"

    # Waiting

    def wait_for(self, condition: Callable[[], Any], what: str, *, timeout: float = 0) -> None:
        """Wait until the condition is met; raise Broken if it is not in time."""
        timeout = timeout or self._settings.timeout
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                codes = {worker.process.poll() for worker in self._workers} - {None}
                ended = "".join(f"; a process has ended with exit code {code}" for code in codes)
                raise Broken(f"waited {timeout:g} s in vain until {what}{ended}")
            time.sleep(0.03)

    def never(self, condition: Callable[[], Any], what: str, *, seconds: float) -> None:
        """Watch for some seconds that something does not happen; raise Broken if it does."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition():
                raise Broken(what)
            time.sleep(0.05)

    def wait_until_started(self, job: int, times: int = 1) -> None:
        """Wait until the job was started so many times."""
        often = "" if times == 1 else f" {times} times"
        self.wait_for(lambda: self.starts(job) >= times, f"job {job} is started{often}")

    def wait_until_completed(self, *jobs: int) -> None:
        """Wait until the jobs are gone; each one that goes gives the others more time."""
        left = set(jobs)

        def some_are_gone() -> bool:
            waiting = self.rows(
                "select id from graphile_worker._private_jobs where id = any (%s)", list(left)
            )
            gone = left - {job for (job,) in waiting}
            left.difference_update(gone)
            return bool(gone)

        while left:
            others = f", and {len(left) - 1} others" if len(left) > 1 else ""
            what = f"job {min(left)} is completed{others}"
            self.wait_for(some_are_gone, what)


def expect(holds: object, otherwise: str) -> None:
    """Raise Broken with the text unless it holds."""
    if not holds:
        raise Broken(otherwise)
