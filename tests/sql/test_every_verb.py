"""Sessions that call every verb at once, at two isolation levels: none deadlocks, nothing is lost.

Beside them, jobs are deleted in no order, as Node's batched completion does.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from support.pg import Database

pytestmark = pytest.mark.majors(13, 18)

G = "graphile_worker"
KEYS = [f"k{n}" for n in range(6)]
SESSIONS, NODES = 16, 3
#: What a caller repeats: a snapshot that is too old, a row or table that others hold for longer than
#: a worker waits, the id of a worker that was presumed dead, and names collected at a level that refuses it.
REPEATED = {"40001", "55P03", "GWBWE", "GWBTI"}
SPECS = (
    f"array(select row('t' || mod(place, 3), p, q, null, null, k, null, null)::{G}.job_spec"
    " from unnest(%s::text[], %s::text[], %s::json[]) with ordinality as s (k, q, p, place))"
)
CLAIM = f"""
    update {G}._private_jobs set locked_at = now(), locked_by = %s, attempts = attempts + 1
    where id in (
      select id from {G}._private_jobs where is_available and job_queue_id is null
      order by random() limit 5 for update skip locked
    ) returning id
"""
DELETE = f"""
    delete from {G}._private_jobs using (
      select id from unnest(%s::bigint[]) as given (id) order by random()
    ) as done where _private_jobs.id = done.id and locked_by = %s
"""


class Session:
    """A session that calls verbs at random."""

    def __init__(self, db: Database, name: str) -> None:
        self.conn, self.rng = db.connect(), random.Random(name)
        self.name, self.worker = name, f"{name} 0"
        self.workers = 0
        self.errors: Counter[str] = Counter()
        self.strange: list[str] = []

    def call(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        level = "repeatable read" if self.rng.random() < 0.3 else "read committed"
        with self.conn.transaction():
            self.conn.execute(f"set transaction isolation level {level}".encode())
            return self.conn.execute(sql.encode(), params or None).fetchall()

    def step(self) -> None:
        verb = self.rng.choice(self.verbs)
        try:
            verb(self)
        except psycopg.Error as error:
            self.errors[error.sqlstate or "none"] += 1
            if error.sqlstate == "GWBWE":
                self.workers += 1
                self.worker = f"{self.name} {self.workers}"
            elif error.sqlstate not in REPEATED:
                self.strange.append(f"{verb.__name__}: {error.sqlstate} {error}")

    def add(self) -> None:
        mode = self.rng.choice(["replace", "preserve_run_at", "unsafe_dedupe"])
        payload = self.rng.choice(["{}", "[1]"])
        ((job,),) = self.call(
            f"select id from {G}.add_job('t0', %s, job_key := %s, job_key_mode := %s)",
            payload, self.rng.choice(KEYS), mode,
        )  # fmt: skip
        assert job is not None

    def add_plain(self) -> None:
        queue = self.rng.choice([None, "q1", "q2"])
        self.call(f"select id from {G}.add_job('t1', queue_name := %s)", queue)

    def _specs(self) -> list[list[Any]]:
        keys: list[str | None] = list(self.rng.sample(KEYS, self.rng.randint(2, 6)))
        keys += self.rng.choice([[], [keys[0]], [None]])
        queues = [self.rng.choice([None, "q1", "q3"]) for _ in keys]
        return [keys, queues, [self.rng.choice(["{}", "[2]"]) for _ in keys]]

    def add_many(self) -> None:
        specs = self._specs()
        rows = self.call(
            f"select id from {G}.add_jobs({SPECS}, %s)", *specs, self.rng.random() < 0.5
        )
        assert len(rows) == len(specs[0])

    def add_with_modes(self) -> None:
        specs = self._specs()
        modes = [self.rng.choice(["replace", "preserve_run_at", "unsafe_dedupe"]) for _ in specs[0]]
        rows = self.call(f"select id from {G}.add_jobs_with_modes({SPECS}, %s)", *specs, modes)
        assert len(rows) == len(specs[0])

    def work(self) -> None:
        rows = self.call(f"select id from {G}.get_jobs(%s, %s)", self.worker, 5)
        ids = [job for (job,) in rows]
        self.rng.shuffle(ids)
        how = self.rng.random()
        while ids:
            try:
                if how < 0.5:
                    self.call(f"select {G}.finish_jobs(%s, %s)", self.worker, ids)
                elif how < 0.75:
                    self.call(f"select {G}.return_jobs(%s, %s)", self.worker, ids)
                else:
                    failures = [{"id": job, "error": "no", "run_at": "2020-01-01"} for job in ids]
                    self.call(f"select {G}.fail_jobs(%s, %s)", self.worker, json.dumps(failures))
                return
            except psycopg.Error as error:
                if error.sqlstate not in ("40001", "55P03"):
                    raise
                self.errors[error.sqlstate] += 1

    def beat(self) -> None:
        self.call(f"select {G}.heartbeat(%s)", self.worker)

    def sweep(self) -> None:
        self.call(f"select {G}.recover_dead_workers()")

    def stop(self) -> None:
        self.call(f"select {G}.end_worker(%s)", self.worker)

    def settle(self) -> None:
        self.call(f"select {G}.return_unknown_jobs(%s, '{{}}')", self.worker)

    def _some(self) -> list[int]:
        rows = self.call(f"select id from {G}.jobs order by random() limit 5")
        return [job for (job,) in rows]

    def complete(self) -> None:
        self.call(f"select id from {G}.complete_jobs(%s)", self._some())

    def fail_for_good(self) -> None:
        self.call(f"select id from {G}.permanently_fail_jobs(%s)", self._some())

    def reschedule(self) -> None:
        self.call(f"select id from {G}.reschedule_jobs(%s, now(), attempts := 0)", self._some())

    def remove(self) -> None:
        self.call(f"select id from {G}.remove_job(%s)", self.rng.choice(KEYS))

    def force_unlock(self) -> None:
        other = f"session {self.rng.randrange(SESSIONS)} 0"
        self.call(f"select {G}.force_unlock_workers(%s)", [other, self.worker])

    def clean(self) -> None:
        verb = self.rng.choice(
            [
                "delete_failed_jobs()",
                "unlock_queues()",
                "release_stale_locks()",
                "delete_unused_queues()",
            ]
        )
        self.call(f"select {G}.{verb}")

    def cron(self) -> None:
        jobs = [
            {"identifier": f"c{n}", "task": "t2", "job_key": key}
            for n, key in enumerate(self.rng.sample(KEYS, 3))
        ]
        self.call(f"select {G}.add_cron_jobs(clock_timestamp(), %s)", json.dumps(jobs))

    verbs: tuple[Callable[[Any], None], ...] = (
        add, add, add, add_plain, add_many, add_many, add_with_modes, work, work, work, beat,
        sweep, stop, settle, complete, fail_for_good, reschedule, remove, force_unlock, clean, cron,
    )  # fmt: skip


class Node(Session):
    """Takes jobs and deletes several of them at once, in no order, as Node's worker does."""

    def delete(self) -> None:
        ids = [job for (job,) in self.conn.execute(CLAIM, [self.worker])]
        self.conn.execute(DELETE, [ids, self.worker])

    verbs = (delete,)


@pytest.mark.parametrize(
    "seconds", [pytest.param(6, id="6s"), pytest.param(600, id="600s", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("nodes", [0, NODES], ids=["", "beside Node"])
def test_no_call_deadlocks_with_another(
    db: Database, nodes: int, seconds: int, record_property: Callable[[str, object], None]
) -> None:
    sessions = [Session(db, f"session {n}") for n in range(SESSIONS)]
    sessions += [Node(db, f"node {n}") for n in range(nodes)]
    ended = threading.Event()
    steps = Counter[str]()

    def run(session: Session) -> None:
        while not ended.is_set():
            session.step()
            steps[type(session).__name__] += 1

    threads = [threading.Thread(target=run, args=[session]) for session in sessions]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end and not any(session.strange for session in sessions):
        ended.wait(0.1)
    ended.set()
    for thread in threads:
        thread.join(60)
    errors = sum((session.errors for session in sessions), Counter[str]())
    record_property("calls", f"{dict(steps)}, repeated: {dict(errors)}")
    assert [line for session in sessions for line in session.strange] == []
    assert (
        db.value("select deadlocks from pg_stat_database where datname = current_database()") == 0
    )
    # Nothing is locked in the name of a worker that has ended, once somebody looks.
    for session in sessions:
        session.conn.execute(f"select {G}.end_worker(%s)", [session.worker])
    for _ in range(2):
        db.rows(f"select {G}.recover_dead_workers()")
    held = f"select locked_by from {G}.jobs union select locked_by from {G}.queues"
    ended_ids = set(db.column(f"select worker_id from {G}.ended_workers"))
    assert set(db.column(held)) & ended_ids == set()
