"""Ordinary bad days: frozen workers, odd values, refusals, junk. None stops a worker or wedges a queue."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from graphile_worker import Tasks
from graphile_worker.errors import SchemaTooNew
from graphile_worker.gw.doctor.checks import dead_locks
from graphile_worker.gw.doctor.findings import Examination
from graphile_worker.gw.explain import explain
from graphile_worker.gw.queue import Queue
from graphile_worker.worker import Context, Events
from graphile_worker.worker.lease import Identity
from support.fleet import Process
from support.live import add, once, running, work_dsn, work_role
from support.pg import Database, wait_for
from support.proxy import proxy

G = "graphile_worker"


pytestmark = pytest.mark.majors(18)


ORPHANS = f"""
    select locked_by from (
      select locked_by from {G}.jobs union all select locked_by from {G}.queues
    ) as held
    where locked_by is not null and locked_by not in (select worker_id from {G}.workers)
"""


# --- silent for too long


@pytest.mark.parametrize("how", ["frozen", "blocked"])
def test_a_worker_that_was_silent_for_too_long_leaves_no_lock_in_its_old_name(
    db: Database, tmp_path: Path, how: str
) -> None:
    db.rows(f"select {G}.set_recovery(interval '2 seconds')")

    async def sweeps(payload: Any) -> None: ...

    with running({"nothing": sweeps}, db, poll_interval=1):
        worker = Process(work_dsn(db), tmp_path)
        try:
            name = f"select worker_id from {G}.workers where (details ->> 'pid')::int = %s"
            wait_for(lambda: db.rows(name, worker.pid))
            (old,) = db.column(name, worker.pid)
            # A job that ends just when the worker comes back.
            add(db, "say", '{"seconds": 1}', ", 'q'")
            wait_for(lambda: db.column(f"select locked_by from {G}.jobs") == [old])
            add(db, "say", "{}", ", 'q'")
            blocking = 0
            if how == "frozen":
                worker._popen.send_signal(signal.SIGSTOP)
            else:
                blocking = add(db, "block", '{"seconds": 8}')
            ended = f"select count(*) from {G}.ended_workers where worker_id = %s"
            wait_for(lambda: db.value(ended, old) == 1, "it is presumed dead")
            db.rows(f"select {G}.complete_jobs(array[{blocking}])")
            add(db, "say", "{}", ", 'q'")
            worker._popen.send_signal(signal.SIGCONT)
            wait_for(lambda: db.rows(f"select from {G}.jobs") == [], "all jobs run")
            assert db.rows(ORPHANS) == []
            worker.stop()
        finally:
            worker.kill()
    assert db.rows(f"select from {G}.queues where locked_at is not null") == []


def test_an_ended_id_gets_no_job_and_what_it_was_just_taking_is_freed(db: Database) -> None:
    db.rows(f"select {G}.heartbeat('w')")
    add(db, "t", "{}", ", 'q'")
    taking = db.connect(autocommit=False)
    with taking.transaction():
        # Under way when its worker ends, and committed after that.
        assert len(taking.execute(f"select from {G}.get_jobs('w')").fetchall()) == 1
        db.rows(f"select {G}.end_worker('w')")
        assert db.rows(f"select * from {G}.recover_dead_workers()") == []
    assert db.column(f"select locked_by from {G}.jobs") == ["w"]
    found = explain(Queue(db.connect()), db.value(f"select id from {G}.jobs"))
    assert found.verdict == "worker_dead"
    (finding,) = dead_locks(Examination(Queue(db.connect())))
    assert "worker w is dead and holds 1 job and 1 queue" in finding.what
    assert db.rows(f"select * from {G}.recover_dead_workers()") == [("w", 1, 1)]
    assert db.rows(ORPHANS) == []
    with pytest.raises(psycopg.Error, match="has ended or was presumed dead") as caught:
        db.rows(f"select {G}.get_jobs('w')")
    assert caught.value.sqlstate == "GWBWE"
    db.rows(f"select {G}.heartbeat('w')")
    assert len(db.rows(f"select {G}.get_jobs('w')")) == 1


def test_a_fetch_under_way_at_an_old_snapshot_does_not_lock_for_an_ended_worker(
    db: Database,
) -> None:
    db.rows(f"select {G}.heartbeat('w')")
    add(db, "t")
    late = db.connect(autocommit=False)
    late.execute("set transaction isolation level repeatable read")
    late.execute("select")
    db.rows(f"select count(*) from {G}.jobs")
    late.execute(f"select count(*) from {G}.jobs")
    db.rows(f"select {G}.end_worker('w')")
    db.rows(f"select * from {G}.recover_dead_workers()")
    with pytest.raises(psycopg.errors.SerializationFailure):
        late.execute(f"select {G}.get_jobs('w')")
    late.rollback()


def test_a_job_that_another_transaction_holds_keeps_no_other_waiting(db: Database) -> None:
    ran: list[int] = []

    async def task(payload: Any, context: Context) -> None:
        ran.append(context.job.id)
        if context.job.id == held:
            await asyncio.to_thread(holding.wait, 60)

    holding = threading.Event()
    held = add(db, "task")
    with running({"task": task}, db, poll_interval=0.5):
        wait_for(lambda: ran == [held])
        other = db.connect(autocommit=False)
        with other.transaction():
            other.execute(f"select from {G}._private_jobs where id = %s for update", [held])
            jobs = [add(db, "task") for _ in range(50)]
            holding.set()
            wait_for(lambda: db.column(f"select id from {G}.jobs") == [held], "others end")
            assert len(ran) == 1 + len(jobs)
        wait_for(lambda: db.rows(f"select from {G}.jobs") == [])


def test_rights_that_are_gone_for_a_while_end_no_worker(db: Database) -> None:
    ran: list[int] = []

    async def task(payload: Any, context: Context) -> None:
        ran.append(context.job.id)

    refused = threading.Event()
    events = Events()
    events.on("pool:error")(lambda event: refused.set())
    with running({"task": task}, db, poll_interval=0.5, events=events):
        db.rows(f"select {G}.revoke_access(%s)", work_role(db))
        add(db, "task")
        assert refused.wait(60)
        assert ran == []
        db.rows(f"select {G}.grant_access(%s, 'work')", work_role(db))
        wait_for(lambda: len(ran) == 1)


# --- what anybody may notify of


def test_a_notification_of_a_migration_is_looked_into(db: Database) -> None:
    ran: list[int] = []

    async def task(payload: Any, context: Context) -> None:
        ran.append(context.job.id)

    stranger = f"{db.name}_stranger"
    db.rows(f"create role {stranger} login")
    try:
        with running({"task": task}, db, poll_interval=0.5) as worker:
            wait_for(lambda: worker.health().listening)
            anybody = db.connect(role=stranger)
            for payload in ('{"migrationNumber":999,"breaking":true}', "junk", "[" * 3000):
                anybody.execute("select pg_notify('worker:migrate', %s)", [payload])
            job = add(db, "task")
            wait_for(lambda: job in ran)
            assert worker._failed is None
        with pytest.raises(SchemaTooNew, match="revision 999"):
            _migrated_meanwhile(db, anybody, {"task": task})
        with pytest.raises(SchemaTooNew, match="revision 999"):
            once(db, {"task": task})
    finally:
        db.rows(f"drop role {stranger}")


def _migrated_meanwhile(db: Database, anybody: psycopg.Connection[Any], tasks: Any) -> None:
    with running(tasks, db, poll_interval=0.5) as worker:
        wait_for(lambda: worker.health().listening)
        db.rows(f"insert into {G}.migrations (id, breaking) values (999, true)")
        anybody.execute("""notify "worker:migrate", '{}'""")
        wait_for(lambda: worker._failed is not None)


def test_a_task_that_swallows_its_time_out_is_told_of(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = Tasks()

    @tasks.task("stubborn", timeout=0.2)
    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return

    add(db, "stubborn")
    once(db, tasks)
    assert db.rows(f"select from {G}.jobs") == []
    assert "although it was cancelled, and returned: it counts as done" in caplog.text


# --- runs that end by themselves


def test_once_leaves_no_due_job(db: Database) -> None:
    async def good(payload: Any) -> None: ...

    async def bad(payload: Any) -> None:
        raise SystemExit(1)

    for _ in range(6):
        db.rows(
            f"select {G}.add_job('good', queue_name => 'q' || mod(n, 3))"
            " from generate_series(1, 30) as n"
        )
        db.rows(f"select {G}.add_job('bad', queue_name => 'q1', max_attempts => 1)")
        once(db, {"good": good, "bad": bad})
        assert db.column(f"select task_identifier from {G}.jobs") == ["bad"]
        db.rows(f"select {G}.delete_failed_jobs()")


# --- the worker's own ids


def test_no_job_is_fetched_under_an_id_that_the_database_may_have_given_up(db: Database) -> None:
    async def task(payload: Any) -> None: ...

    with running({"task": task}, db, poll_interval=0.2) as worker:
        lease = worker._lease
        assert lease._is_usable()
        lost = Identity()
        lost.lost = True
        before, lease.current = lease.current, lost
        assert not lease._is_usable()
        lease.current = before
        known_at, lease._known_at = lease._known_at, time.monotonic() - 10**6
        assert not lease._is_usable()
        lease._known_at = known_at
        assert lease._is_usable()


def test_a_worker_behind_a_network_that_lost_its_answer_leaves_no_lock(db: Database) -> None:
    ran: list[int] = []

    async def task(payload: Any, context: Context) -> None:
        ran.append(context.job.id)

    with (
        proxy(work_dsn(db)) as made,
        running({"task": task}, db, poll_interval=0.5, prepare=False, dsn=made.dsn) as worker,
    ):
        wait_for(lambda: worker.health().listening)
        made.cut(".get_jobs(", "after", 3)
        jobs = [add(db, "task", "{}", f", 'q{n}'") for n in range(5)]
        wait_for(lambda: set(ran) >= set(jobs), "they run all the same")
        wait_for(lambda: db.rows(ORPHANS) == [])
    assert db.rows(f"select from {G}.jobs") == []
