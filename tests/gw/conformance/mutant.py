"""A plain worker that keeps every rule of the protocol, except one that MUTANT names."""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

MUTANT = os.environ.get("MUTANT", "")
TASKS = os.environ["CONFORMANCE_TASKS"].split(",")
CONCURRENCY = int(os.environ["CONFORMANCE_CONCURRENCY"])
POLL = float(os.environ["CONFORMANCE_POLL_SECONDS"])
GRACE = float(os.environ["CONFORMANCE_GRACE_SECONDS"])
URL = os.environ["DATABASE_URL"]
W = "graphile_worker"


def report(event: str, job: int) -> None:
    with Path(os.environ["CONFORMANCE_REPORT"]).open("a") as file:
        file.write(json.dumps({"event": event, "job": job}) + "\n")


class Run(threading.Thread):
    """A run of a job; ``failure`` is what fail_jobs is to be told, ``settled`` that nothing is."""

    def __init__(self, worker: str, job: dict[str, Any], ended: queue.Queue[Any]) -> None:
        super().__init__(daemon=True)
        self.worker, self.job, self.id, self.ended = worker, job, job["id"], ended
        self.stopped = threading.Event()
        self.failure: dict[str, Any] | None = None
        self.settled = False

    def run(self) -> None:
        try:
            report("start", self.id)
            payload = self.job["payload"]
            if self.job["task_identifier"] == "write":
                self.write(payload)
            elif self.job["task_identifier"] == "batch":
                failed = [element for element in payload if element.get("fail")]
                if failed:
                    self.failure = {"error": "elements failed", "payload": failed}
                    if MUTANT == "whole batch again":
                        del self.failure["payload"]
            elif self.opened(payload):
                if "error" in payload:
                    raise RuntimeError(payload["error"])
                report("end", self.id)
        except Exception as error:
            self.failure = {"error": str(error)}
        self.ended.put(self)

    def opened(self, payload: dict[str, Any]) -> bool:
        while "gate" in payload and not Path(payload["gate"]).exists():
            if self.stopped.wait(0.02):
                break
        return not self.stopped.is_set()

    def write(self, payload: dict[str, Any]) -> None:
        with psycopg.connect(URL) as conn:
            conn.execute("insert into conformance.effects values (%s)", [self.id])
            if not self.opened(payload):
                raise RuntimeError("it was stopped")
            sql = f"select done from {W}.finish_jobs(%s, array[%s::bigint])"
            row = conn.execute(sql, [self.worker, self.id]).fetchone()
            if row == (False,) and MUTANT != "late writes":
                raise RuntimeError("the job was lost")
        self.settled = True
        report("end", self.id)


class Worker:
    """Calls the functions on one connection, and runs each job in a thread."""

    def __init__(self) -> None:
        self.conn: Any = None
        self.events: queue.Queue[Any] = queue.Queue()
        self.runs: dict[str, dict[int, Run]] = {}
        self.known: set[str] = set()
        self.server: Any = None
        self.stopping, self.every = False, 1.0
        self.current = self.new_id()

    def new_id(self) -> str:
        name = (
            "the only one" if MUTANT == "one id for all" else f"plain-{random.randbytes(8).hex()}"
        )
        self.runs.setdefault(name, {})
        return name

    def once(self, sql: str, *args: Any) -> list[dict[str, Any]]:
        if self.conn is None or self.conn.closed:
            self.conn = psycopg.connect(
                URL, autocommit=True, row_factory=psycopg.rows.dict_row, connect_timeout=5
            )
        found: list[dict[str, Any]] = self.conn.execute(sql, args).fetchall()
        return found

    def call(self, sql: str, *args: Any) -> list[dict[str, Any]]:
        while True:
            try:
                return self.once(sql, *args)
            except psycopg.errors.LockNotAvailable:
                if MUTANT == "gives up at a lock":
                    return []
            except psycopg.OperationalError:
                if MUTANT == "gives up unanswered calls" and "heartbeat" not in sql:
                    self.conn = None
                    return []
                self.conn = None
                time.sleep(0.1)

    def heartbeat(self) -> None:
        if MUTANT == "silent while it runs" and any(self.runs.values()):
            return
        for worker in list(self.runs):
            sql = f"select *, extract(epoch from dead_after)::float8 as seconds, pg_postmaster_start_time() as server from {W}.heartbeat(%s, %s)"
            (row,) = self.call(sql, worker, TASKS)
            self.every = row["seconds"] / 3
            if not row["is_known"] and worker in self.known:
                self.abandon(worker)
            elif worker != self.current and not self.runs[worker]:
                self.forget(worker)
            else:
                self.known.add(worker)
        before, self.server = self.server, row["server"]
        if before not in (None, self.server) and MUTANT != "forgets after a crash":
            self.renew()
        if MUTANT != "recovers no one":
            self.call(f"select from {W}.recover_dead_workers(%s)", self.current)

    def abandon(self, worker: str) -> None:
        if MUTANT == "keeps a dead id":
            return
        for run in self.runs[worker].values():
            run.stopped.set()
        self.forget(worker)
        if worker == self.current:
            self.renew()

    def forget(self, worker: str) -> None:
        self.call(f"select {W}.end_worker(%s)", worker)
        self.runs.pop(worker, None)
        self.known.discard(worker)

    def renew(self) -> None:
        old, self.current = self.current, self.new_id()
        self.heartbeat()
        if old in self.runs:
            self.call(f"select {W}.return_unknown_jobs(%s, %s)", old, list(self.runs[old]))

    def fetch(self) -> float | None:
        """Claim and start jobs; return after how many seconds there may be more."""
        while (free := CONCURRENCY - sum(map(len, self.runs.values()))) > 0:
            if MUTANT == "hoards":
                free += 20
            sql = f"select * from {W}.get_jobs(%s, %s, %s)"
            tasks = [*TASKS, "not_its_task"] if MUTANT == "claims every task" else TASKS
            try:
                jobs = self.claim(sql, free, tasks)
                more = self.once("select current_setting('graphile_worker.more', true)")[0]
            except psycopg.Error as error:
                if error.sqlstate == "GWBWE" and MUTANT == "keeps a dead id":
                    self.heartbeat()
                elif error.sqlstate == "GWBWE":
                    self.abandon(self.current)
                elif self.conn is None or self.conn.closed or error.sqlstate is None:
                    self.conn = None
                    if not MUTANT.startswith("forgets"):
                        self.renew()
                return 0.2
            for job in jobs:
                run = self.runs[self.current][job["id"]] = Run(self.current, job, self.events)
                if len(self.runs[self.current]) <= CONCURRENCY:
                    run.start()
            if MUTANT == "ignores more":
                return None
            text = more["current_setting"]
            if len(jobs) < free and text != "true":
                return None if text in ("", None, "limited") else float(text)
        return None

    def claim(self, sql: str, free: int, tasks: list[str]) -> list[dict[str, Any]]:
        args = (self.current, free, tasks)
        if MUTANT.startswith("claims by itself"):
            return self.once(
                f"with due as (select id from {W}._private_jobs where locked_at is null limit %s)"
                f" update {W}._private_jobs j set locked_at = now(), locked_by = %s, attempts = attempts + 1"
                " from due where due.id = j.id returning j.*, 'run' as task_identifier",
                free, self.current,
            )  # fmt: skip
        if MUTANT != "starts before the commit":
            return self.once(sql, *args)
        self.once("begin")
        jobs = self.once(sql, *args)
        for job in jobs:
            Run(self.current, job, self.events).start()
        with suppress(psycopg.Error):
            self.once("commit")
        return []

    def settle(self, run: Run) -> None:
        held = self.runs.get(run.worker, {})
        if held.pop(run.id, None) is None and MUTANT != "starts before the commit":
            return
        for waiting in held.values():
            if waiting.ident is None and run.worker == self.current:
                waiting.start()
                break
        if run.failure is not None:
            failure = {"id": run.id, **run.failure}
            if MUTANT == "says no error":
                failure["error"] = ""
            if MUTANT == "its own backoff":
                failure["run_at"] = "2000-01-01T00:00:00Z"
            sql = f"select * from {W}.fail_jobs(%s, %s::text::json)"
            self.call(sql, run.worker, json.dumps([failure]))
        elif not run.settled:
            self.call(f"select * from {W}.finish_jobs(%s, array[%s::bigint])", run.worker, run.id)
            if MUTANT == "runs twice":
                report("start", run.id)

    def review(self) -> None:
        if MUTANT == "never reviews":
            return
        for worker, runs in list(self.runs.items()):
            for row in self.call(f"select * from {W}.review_jobs(%s)", worker):
                if row["verdict"] == "cancelled" and (run := runs.pop(row["job_id"], None)):
                    run.stopped.set()
                    failure = [{"id": run.id, "error": "cancelled", "final": True}]
                    self.call(
                        f"select * from {W}.fail_jobs(%s, %s::text::json)",
                        worker, json.dumps(failure),
                    )  # fmt: skip

    def listen(self) -> None:
        while MUTANT != "hears nothing":
            try:
                with psycopg.connect(URL, autocommit=True) as conn:
                    conn.execute('listen "jobs:insert"')
                    conn.execute('listen "jobs:control"')
                    self.events.put("jobs:insert")
                    for note in conn.notifies():
                        if MUTANT == "believes notifications":
                            json.loads(note.payload)["count"]
                        self.events.put(note.channel)
            except psycopg.Error:
                time.sleep(0.2)
            except Exception:
                os._exit(1)

    def work(self) -> None:
        signal.signal(signal.SIGTERM, lambda *_: self.events.put("stop"))
        threading.Thread(target=self.listen, daemon=True).start()
        if MUTANT == "claims before its heartbeat":
            self.fetch()
        self.heartbeat()
        heartbeat_at = review_at = time.monotonic()
        fetch_at = 0.0
        stop_at = float("inf")
        while not (self.stopping and not any(self.runs.values())):
            now = time.monotonic()
            if now >= stop_at:
                break
            if now - heartbeat_at >= self.every:
                heartbeat_at = now
                self.heartbeat()
            if now - review_at >= 10:
                review_at = now
                self.review()
            if now >= fetch_at and not self.stopping:
                again = self.fetch()
                fetch_at = now + (
                    1e9 if MUTANT == "never polls" else POLL if again is None else again
                )
            try:
                until = min(
                    heartbeat_at + self.every, fetch_at if not self.stopping else 1e12, stop_at
                )
                event = self.events.get(timeout=max(0.01, until - time.monotonic()))
            except queue.Empty:
                continue
            if event == "stop":
                if MUTANT == "leaves at once":
                    os._exit(0)
                self.stopping, stop_at = MUTANT != "goes on after a signal", now + GRACE
                for runs in self.runs.values():
                    waiting = [run.id for run in runs.values() if run.ident is None]
                    if waiting and self.stopping:
                        self.call(f"select * from {W}.return_jobs(%s, %s)", self.current, waiting)
                        for each in waiting:
                            del runs[each]
            elif event == "jobs:control":
                self.review()
            elif isinstance(event, Run):
                self.settle(event)
                fetch_at = 1e9 + time.monotonic() if MUTANT == "ignores more" else 0.0
            else:
                fetch_at = 0.0
        for worker in list(self.runs):
            ids = list(self.runs[worker])
            if ids:
                self.call(f"select * from {W}.return_jobs(%s, %s)", worker, ids)
            if MUTANT != "ends no id":
                self.forget(worker)
        os._exit(0)


if __name__ == "__main__":
    sys.setswitchinterval(0.001)
    Worker().work()
