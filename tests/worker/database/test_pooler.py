"""The worker behind pgbouncer, which gives each transaction whichever connection is free."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from graphile_worker import Tasks
from graphile_worker.errors import InvalidConnection
from graphile_worker.worker import Context, Retry
from support.bouncer import NEEDS_PGBOUNCER, pgbouncer, version
from support.fleet import PROGRAM as PROCESS
from support.live import add, once, running, state, work_dsn, work_role
from support.pg import Database, wait_for
from support.ran import TABLE

pytestmark = [NEEDS_PGBOUNCER, pytest.mark.majors(13, 18)]


@pytest.fixture
def bouncer(db: Database, tmp_path: Path) -> Iterator[str]:
    """The connection string of a worker through a pgbouncer in transaction mode."""
    with pgbouncer(db, tmp_path, user=work_role(db)) as dsn:
        yield dsn


@pytest.fixture(params=["listens directly", "polls"])
def options(request: pytest.FixtureRequest, db: Database, bouncer: str) -> dict[str, Any]:
    """The options of a worker behind pgbouncer: one that is notified, and one that is not."""
    listening: dict[str, Any] = (
        {"listen_dsn": work_dsn(db), "poll_interval": 60}
        if request.param == "listens directly"
        else {"listen": False, "poll_interval": 0.1}
    )
    return {"dsn": bouncer, "prepare": False, **listening}


def test_jobs_run_fail_and_are_tried_again(db: Database, options: dict[str, Any]) -> None:
    tasks, ran = Tasks(), []

    @tasks.task("good")
    async def good(n: int) -> None:
        ran.append(n)

    @tasks.task("second", retry=Retry.delays([0.1]))
    def second(context: Context) -> None:
        ran.append(-context.job.attempts)
        if context.job.attempts == 1:
            raise ValueError("not yet")

    @tasks.task("bad")
    async def bad() -> None:
        raise ValueError("never")

    with running(tasks, db, **options):
        add(db, "good", '{"n": 1}')
        add(db, "second")
        job = add(db, "bad")
        wait_for(lambda: sorted(ran) == [-2, -1, 1])
        wait_for(lambda: db.column("select id from graphile_worker.jobs") == [job])
        wait_for(lambda: state(db, job)[2] is None)
    attempts, error, locked_by, _ = state(db, job)
    assert (attempts, locked_by) == (1, None)
    assert error.startswith("ValueError: never")


def test_hundreds_of_jobs_of_two_workers_with_connections_of_their_own_run_once_each(
    db: Database, options: dict[str, Any]
) -> None:
    db.rows("create table public.ran (job_id bigint)")
    db.rows(f"grant insert on public.ran to {work_role(db)}")

    async def note(payload: Any, context: Context) -> None:
        async with context.connection() as conn:
            await conn.execute("insert into public.ran values (%s)", [context.job.id])
        if context.job.id % 10 == 0:
            await context.add_job("child", {})

    async def child(payload: Any) -> None: ...

    tasks = {"note": note, "child": child}
    jobs = db.column(
        "select id from graphile_worker.add_jobs(array("
        "  select row('note', '{}', case when n % 5 = 0 then 'q' || n % 20 end,"
        "    null, null, null, null, null)::graphile_worker.job_spec"
        "  from generate_series(1, 400) as n))"
    )
    with running(tasks, db, **options), running(tasks, db, **options):
        wait_for(lambda: db.value("select count(*) from graphile_worker.jobs") == 0)
    assert Counter(db.column("select job_id from public.ran")) == Counter(jobs)


def test_a_stop_waits_for_what_runs_and_leaves_nothing_locked(
    db: Database, options: dict[str, Any]
) -> None:
    started, release = threading.Event(), threading.Event()

    def task(payload: Any) -> None:
        started.set()
        release.wait(30)

    jobs = [add(db, "task") for _ in range(4)]
    with running({"task": task}, db, concurrency=1, prefetch=3, **options) as worker:
        assert started.wait(10)
        worker._loop.call_soon_threadsafe(worker.stop)
        free = "select count(*) from graphile_worker.jobs where locked_at is null"
        wait_for(lambda: db.value(free) == 3)
        release.set()
    left = db.rows("select id, attempts, locked_by from graphile_worker.jobs order by id")
    assert left == [(job, 0, None) for job in jobs[1:]]
    assert db.column("select worker_id from graphile_worker.workers") == []


def test_jobs_of_a_killed_worker_run_again_soon(db: Database, bouncer: str) -> None:
    db.rows(TABLE)
    db.rows(f"grant select, insert, update on public.ran to {work_role(db)}")
    db.rows("select graphile_worker.set_recovery(interval '1 second')")

    def worker(seconds: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(PROCESS), bouncer, seconds, "polls"]
        return subprocess.Popen(command, stderr=sys.stderr)

    jobs = [add(db, "note", "{}", f", 'q{n % 3}', max_attempts := 1") for n in range(6)]
    killed = worker("60")
    try:
        wait_for(lambda: db.value("select count(*) from public.ran") == 3)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        other = worker("0")
        try:
            wait_for(lambda: db.value("select count(*) from graphile_worker.jobs") == 0)
            other.send_signal(signal.SIGTERM)
            assert other.wait(30) == 0
        finally:
            other.kill()
            other.wait()
    finally:
        killed.kill()
        killed.wait()
    ended = db.column("select job_id from public.ran where ended is not null")
    assert sorted(ended) == jobs
    assert db.value("select count(*) from public.ran where ended is null") == 3


def test_a_pooler_that_mixes_up_prepared_statements_ends_the_worker_with_advice(
    db: Database, bouncer: str
) -> None:
    if version() >= (1, 21):
        pytest.skip("this pgbouncer knows prepared statements")

    async def task(payload: Any) -> None: ...

    def workers() -> None:
        for _ in range(10):  # one of them meets what another one has prepared
            add(db, "task")
            once(db, {"task": task}, dsn=bouncer)

    with pytest.raises(InvalidConnection, match="prepare=False"):
        workers()
