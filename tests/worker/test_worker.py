"""The worker on a real server: how jobs end, how it stops, and what happens when it is killed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from graphile_worker import Tasks
from graphile_worker.errors import AccessDenied, SchemaMissing
from graphile_worker.worker import (
    Context,
    Worker,
)
from support.fleet import PROGRAM as PROCESS
from support.live import add, once, running, state, work_dsn, work_role
from support.pg import Database, wait_for
from support.ran import TABLE


def test_a_job_that_is_done_is_gone_and_its_queue_free(db: Database) -> None:
    seen: list[Any] = []

    async def task(payload: Any, context: Context) -> None:
        seen.append((payload, context.queue_name, context.job.attempts))

    add(db, "task", '{"n": 1}', ", 'q'")
    add(db, "task", '{"n": 2}', ", 'q'")
    once(db, {"task": task})
    assert seen == [({"n": 1}, "q", 1), ({"n": 2}, "q", 1)]
    assert db.value("select count(*) from graphile_worker.jobs") == 0
    assert db.value("select count(*) from graphile_worker.queues where locked_at is not null") == 0
    assert db.value("select count(*) from graphile_worker.workers") == 0


def test_forbidden_flags_are_asked_for_before_each_take(db: Database) -> None:
    done: list[int] = []

    async def task(payload: Any, context: Context) -> None:
        done.append(context.job.id)

    async def flags() -> list[str]:
        return ["slow"]

    free, slow = add(db, "task"), add(db, "task", "{}", ", flags := '{slow}'")
    for forbidden in (["slow"], lambda: ["slow"], flags):
        once(db, {"task": task}, forbidden_flags=forbidden)
        assert done == [free]
    once(db, {"task": task})
    assert done == [free, slow]


def test_a_notification_starts_a_job_long_before_the_next_poll(db: Database) -> None:
    done = threading.Event()

    async def task(payload: Any) -> None:
        done.set()

    with running({"task": task}, db, poll_interval=60) as worker:
        wait_for(lambda: worker.health().listening)
        add(db, "task")
        assert done.wait(10)
        # A killed LISTEN comes back by itself.
        done.clear()
        db.rows(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'graphile_worker listen' and datname = current_database()"
        )
        add(db, "task")
        assert done.wait(10)
        wait_for(lambda: worker.health().listening)


def test_a_job_of_the_future_starts_when_it_is_due(db: Database) -> None:
    started: list[float] = []

    async def task(payload: Any) -> None:
        started.append(time.time())

    add(db, "task", "{}", ", run_at := now() + interval '2 seconds'")
    due = time.time() + 2
    with running({"task": task}, db, poll_interval=60):
        wait_for(lambda: started)
    assert started[0] - due < 1


def test_connections_that_are_killed_lose_no_job_and_run_none_twice(
    db: Database,
) -> None:
    ran: list[int] = []

    async def task(payload: Any, context: Context) -> None:
        ran.append(context.job.id)

    jobs = [add(db, "task") for _ in range(300)]
    with running({"task": task}, db, concurrency=3, prefetch=0, poll_interval=0.5):
        while len(ran) < len(jobs):
            db.rows(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'graphile_worker' and datname = current_database()"
            )
            seen = len(ran)
            wait_for(lambda seen=seen: len(ran) >= min(seen + 20, len(jobs)))  # type: ignore[misc]
        wait_for(lambda: db.value("select count(*) from graphile_worker.jobs") == 0)
    assert sorted(ran) == jobs


def test_a_stop_gives_back_what_was_not_started_and_waits_for_what_runs(db: Database) -> None:
    started, release = threading.Event(), threading.Event()

    def task(payload: Any) -> None:
        started.set()
        release.wait(30)

    jobs = [add(db, "task") for _ in range(4)]
    with running({"task": task}, db, concurrency=1, prefetch=3, prefetch_ttl=60) as worker:
        assert started.wait(10)
        worker._loop.call_soon_threadsafe(worker.stop)
        wait_for(
            lambda: (
                db.value("select count(*) from graphile_worker.jobs where locked_at is null") == 3
            )
        )
        release.set()
    left = db.rows("select id, attempts, locked_by from graphile_worker.jobs order by id")
    assert left == [(job, 0, None) for job in jobs[1:]]


@pytest.mark.parametrize("force", [False, True])
def test_after_the_grace_jobs_are_aborted_and_none_stays_locked(db: Database, force: bool) -> None:
    started = threading.Event()

    async def task(payload: Any) -> None:
        started.set()
        await asyncio.sleep(60)

    job = add(db, "task")
    with running({"task": task}, db, grace=60 if force else 0.2) as worker:
        assert started.wait(10)
        stop: Callable[[], None] = worker.stop_now if force else worker.stop
        worker._loop.call_soon_threadsafe(stop)
    attempts, error, locked_by, _ = state(db, job)
    assert (attempts, locked_by) == (1 if force else 0, None)
    assert error == ("the worker was stopped by force" if force else None)


def test_jobs_of_a_killed_worker_run_again_soon(db: Database) -> None:
    db.rows(TABLE)
    db.rows(f"grant select, insert, update on public.ran to {work_role(db)}")
    db.rows("select graphile_worker.set_recovery(interval '2 seconds')")

    def worker() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, str(PROCESS), work_dsn(db), "0.1"], stderr=sys.stderr
        )

    workers = [worker(), worker()]
    try:
        wait_for(lambda: db.value("select count(*) from graphile_worker.workers") == 2)
        for n in range(40):
            add(db, "note", "{}", f", 'q{n % 5}', max_attempts := 1")
        wait_for(
            lambda: (
                len(db.column("select distinct worker from public.ran where ended is null")) == 2
            )
        )
        workers[0].send_signal(signal.SIGKILL)
        wait_for(lambda: db.value("select count(*) from graphile_worker.jobs") == 0)
        workers[1].send_signal(signal.SIGTERM)
        assert workers[1].wait(30) == 0
    finally:
        for process in workers:
            process.kill()
            process.wait()
    assert db.value("select count(distinct job_id) from public.ran") == 40
    overlaps = """select count(*) from public.ran as a join public.ran as b
        on a.queue_name = b.queue_name and a.ctid <> b.ctid
        and a.started < b.started and b.started < a.ended"""
    assert db.value(overlaps) == 0


def test_no_heartbeat_comes_after_the_last_one(db: Database) -> None:
    async def task(payload: Any) -> None: ...

    async def life() -> None:
        worker = Worker({"task": task}, dsn=work_dsn(db))
        running = asyncio.create_task(worker.run())
        while worker.health().last_fetch_seconds_ago is None:
            await asyncio.sleep(0.01)
        stop = worker._protocol.end_worker

        async def asked_meanwhile(worker_id: str) -> int:
            worker._lease._soon.set()
            await asyncio.sleep(0.05)
            return await stop(worker_id)

        worker._protocol.end_worker = asked_meanwhile  # type: ignore[method-assign]
        worker.stop()
        await running

    for _ in range(5):
        asyncio.run(life())
        assert db.value("select count(*) from graphile_worker.workers") == 0


def test_recurring_jobs_of_tasks_and_of_the_crontab_are_added_and_run(db: Database) -> None:
    tasks, seen = Tasks(), []

    @tasks.cron("0 * * * *", fill="3h", payload={"kind": "hourly"})
    def report(kind: str, _cron: Any) -> None:
        seen.append((kind, _cron["backfilled"]))

    def tick() -> None:
        seen.append(("tick", True))

    db.rows(
        "insert into graphile_worker._private_known_crontabs (identifier, known_since)"
        " values ('renamed', now() - interval '1 day'), ('tick', now() - interval '1 day')"
    )
    crontab = "0 * * * * tick ?fill=1h30m"
    # A registry's task keeps its times under another name.
    sources = [{"renamed": tasks["report"]}, {"tick": tick}]
    with running(sources, db, crontab=crontab):
        wait_for(lambda: len(seen) >= 4)
    assert seen.count(("hourly", True)) == 3
    assert seen.count(("tick", True)) in (1, 2)
    last = db.column("select last_execution from graphile_worker.crontabs order by identifier")
    assert len(last) == 2
    assert None not in last


def test_a_worker_presumed_dead_stops_what_it_ran_and_goes_on_under_a_new_id(
    db: Database,
) -> None:
    cancelled, started = threading.Event(), threading.Event()

    async def task(payload: Any, context: Context) -> None:
        if started.is_set():
            return
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    db.rows("select graphile_worker.set_recovery(interval '1 second')")
    add(db, "task")
    with running({"task": task}, db, poll_interval=0.5) as worker:
        assert started.wait(10)
        old = worker.worker_id
        # As a sweeper would after a silence.
        db.rows("select graphile_worker.end_worker(%s)", old)
        assert cancelled.wait(10)
        wait_for(lambda: db.value("select count(*) from graphile_worker.jobs") == 0)
        wait_for(lambda: worker.worker_id != old)


def test_less_than_the_level_work_is_refused(db: Database) -> None:
    async def task(payload: Any) -> None: ...

    add(db, "task")
    db.rows("select graphile_worker.grant_access(%s, 'enqueue')", work_role(db))
    with pytest.raises(AccessDenied, match="needs the access level work"):
        once(db, {"task": task})
    assert db.value("select count(*) from graphile_worker.jobs where locked_at is null") == 1


def test_without_the_schema_it_says_what_to_run(empty_db: Database) -> None:
    async def task(payload: Any) -> None: ...

    with pytest.raises(SchemaMissing, match="gw-install install"):
        once(empty_db, {"task": task}, dsn=empty_db.dsn)
