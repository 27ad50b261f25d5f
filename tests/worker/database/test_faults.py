"""Each statement of a worker meets each fault: what it does happens once, and the worker goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
from graphile_worker.worker import Context, RetryAfter, Snooze
from support.live import add, running, state, work_dsn
from support.pg import Database, wait_for
from support.proxy import Proxy, proxy

pytestmark = pytest.mark.majors(13, 18)

#: What the text of each statement has that no other has.
STATEMENTS = {
    "take": ".get_jobs(",
    "complete": ".finish_jobs_with_results(",
    "fail": ".fail_jobs(",
    "give back": ".return_jobs(",
    "heartbeat": ".heartbeat(",
    "stop": ".end_worker(",
}
SERIALIZATION, DEADLOCK, SHUTDOWN = "40001", "40P01", "57P01"
#: No list says which of these pass: all are tried again.
OTHERS = ["XX000", "P0001", "0A000", "42501", "42883", "53200"]
#: How often a fault strikes before the statement gets through.
TIMES = 2


def raise_at(db: Database, text: str, code: str) -> Callable[[], int]:
    """Let the database fail after a statement's work is done; return what counts how often."""
    # A sequence does not forget what is rolled back. To end itself, a session needs a moment.
    fault = (
        "perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(10);"
        if code == SHUTDOWN
        else f"raise exception 'a fault' using errcode = '{code}';"
    )
    db.rows("create sequence public.faults")
    db.rows(f"""
        create function public.fault() returns trigger language plpgsql as $$
        begin
          if strpos(current_query(), '{text}') > 0 and nextval('public.faults') <= {TIMES} then
            {fault}
          end if;
          return null;
        end
        $$""")
    for table in ("_private_jobs", "_private_heartbeats"):
        db.rows(
            f"create trigger fault after insert or update or delete on graphile_worker.{table}"
            " for each statement execute function public.fault()"
        )
    return lambda: min(
        TIMES,
        db.value("select case when is_called then last_value else 0 end from public.faults"),
    )


class Jobs:
    """One job of each ending, and how often each ran at which attempt."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.ran: list[tuple[str, int]] = []
        self.tasks = {"good": self._good, "bad": self._bad, "later": self._later}

    async def _good(self, payload: Any, context: Context) -> None:
        self.ran.append(("good", context.job.attempts))

    async def _bad(self, payload: Any, context: Context) -> None:
        self.ran.append(("bad", context.job.attempts))
        raise RetryAfter(600, "bad")

    async def _later(self, payload: Any, context: Context) -> None:
        self.ran.append(("later", context.job.attempts))
        raise Snooze(600)

    def add(self) -> None:
        """Add one of each; those with a queue leave it locked if they are forgotten."""
        self.ids = {task: add(self.db, task, "{}", f", '{task}'") for task in self.tasks}

    def check(self) -> None:
        """Each ran once, at its first attempt, and the database has counted that once."""
        assert sorted(self.ran) == [("bad", 1), ("good", 1), ("later", 1)]
        assert set(self.db.column("select id from graphile_worker.jobs")) == {
            self.ids["bad"],
            self.ids["later"],
        }
        attempts, error, locked_by, delay = state(self.db, self.ids["bad"])
        assert (attempts, error, locked_by) == (1, "bad", None)
        assert 590 < delay < 601
        attempts, error, locked_by, delay = state(self.db, self.ids["later"])
        assert (attempts, error, locked_by) == (0, None, None)
        assert 590 < delay < 601

    def written(self) -> bool:
        """Whether the database has heard of each."""
        return (
            len(self.ran) >= 3
            and self.db.value(
                "select count(*) from graphile_worker.jobs"
                " where locked_at is null and run_at > now() + interval '1 minute'"
            )
            == 2
            and self.db.value("select count(*) from graphile_worker.jobs") == 2
        )

    def nothing_is_left(self) -> None:
        """Nothing is locked, and no worker is known."""
        for what in ("jobs", "queues"):
            locked = self.db.column(f"select locked_by from graphile_worker.{what}")
            assert set(locked) <= {None}
        assert self.db.column("select worker_id from graphile_worker.workers") == []


def meets(
    jobs: Jobs, statement: str, strike: Callable[[], None], hit: Callable[[], int], **options: Any
) -> None:
    """Run one job of each ending by a worker whose statement is struck."""
    db = jobs.db
    ended = threading.Event()

    async def last(payload: Any) -> None:
        ended.set()

    tasks = {**jobs.tasks, "last": last}
    db.rows("select graphile_worker.set_recovery(interval '1 second')")
    with running(tasks, db, poll_interval=60, prepare=False, **options) as worker:
        wait_for(lambda: worker.health().listening)
        strike()
        jobs.add()
        if statement != "stop":
            wait_for(lambda: hit() == TIMES, "the fault struck")
        wait_for(jobs.written, "the jobs ended")
        add(db, "last")
        assert ended.wait(10), "the worker goes on"
    assert hit() == TIMES
    jobs.check()
    jobs.nothing_is_left()


@pytest.mark.parametrize("code", [SERIALIZATION, DEADLOCK, SHUTDOWN, *OTHERS])
@pytest.mark.parametrize("statement", STATEMENTS)
def test_what_the_database_raises_is_tried_again_and_happens_once(
    db: Database, statement: str, code: str
) -> None:
    hits: list[Callable[[], int]] = []
    meets(
        Jobs(db),
        statement,
        lambda: hits.append(raise_at(db, STATEMENTS[statement], code)),
        lambda: hits[0](),
    )


@pytest.fixture
def cutter(db: Database) -> Iterator[Proxy]:
    with proxy(work_dsn(db)) as made:
        yield made


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_cut_connection_is_replaced_and_what_it_carried_happens_once(
    db: Database, cutter: Proxy, statement: str, when: Literal["before", "after"]
) -> None:
    meets(
        Jobs(db),
        statement,
        lambda: cutter.cut(STATEMENTS[statement], when, TIMES),
        lambda: cutter.cuts,
        dsn=cutter.dsn,
    )


@pytest.mark.parametrize("how", ["fail", "give back"])
def test_a_repeated_result_does_not_touch_the_next_run_of_its_job(
    db: Database, cutter: Proxy, how: str
) -> None:
    runs: list[int] = []
    again, go_on = threading.Event(), threading.Event()

    def task(payload: Any, context: Context) -> None:
        runs.append(context.job.attempts)
        if len(runs) == 1:
            raise RetryAfter(0, "once more") if how == "fail" else Snooze(0)
        again.set()
        go_on.wait(30)

    async def other(payload: Any) -> None: ...

    with running(
        {"task": task, "other": other},
        db,
        poll_interval=60,
        prepare=False,
        dsn=cutter.dsn,
        listen_dsn=work_dsn(db),
    ) as worker:
        wait_for(lambda: worker.health().listening)
        cutter.cut(STATEMENTS[how], "after", hold=True)
        job = add(db, "task")
        wait_for(lambda: cutter.cuts)
        add(db, "other")
        try:
            assert again.wait(10)
            cutter.let_in()
            wait_for(lambda: worker._completer.pending == 0, "it was repeated", 10)
            assert state(db, job)[2] == worker.worker_id
        finally:
            go_on.set()
    assert runs == ([1, 2] if how == "fail" else [1, 1])
    assert db.value("select count(*) from graphile_worker.jobs") == 0


def test_a_session_that_forgot_its_prepared_statements_is_replaced(db: Database) -> None:
    ran: list[int] = []

    async def task(payload: Any, context: Context) -> None:
        ran.append(context.job.id)

    # As poolers and failovers do between two transactions.
    db.rows("""
        create function public.forget() returns trigger language plpgsql as $$
        begin
          execute 'deallocate all';
          return null;
        end
        $$""")
    db.rows(
        "create trigger forget after update or delete on graphile_worker._private_jobs"
        " for each statement execute function public.forget()"
    )
    with running({"task": task}, db, poll_interval=60) as worker:
        wait_for(lambda: worker.health().listening)
        for n in range(1, 4):
            add(db, "task")
            wait_for(lambda n=n: len(ran) == n, "it ran", 10)  # type: ignore[misc]
    assert db.value("select count(*) from graphile_worker.jobs") == 0
