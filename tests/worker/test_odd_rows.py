"""No row, outcome, payload or setting stops a worker or wedges a queue."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import psycopg
import pytest
from graphile_worker import WorkerUtils
from graphile_worker.gw.explain import explain
from graphile_worker.gw.queue import Queue
from graphile_worker.worker import Context, Events, RetryAfter, Snooze
from support.fleet import Process
from support.live import add, running, work_dsn, work_role
from support.pg import Database, wait_for

from worker.executors import odd_outcomes
from worker.executors.odd_outcomes import RAISED, RETURNED, UnprintableError, outcome

G = "graphile_worker"


pytestmark = pytest.mark.majors(18)


# --- what a row can hold

#: By column, values that nobody expects.
ODD = {
    "run_at": ["'infinity'", "'-infinity'", "'294276-12-31 23:59:59+00'", "'4713-01-01 BC'"],
    "created_at": ["'infinity'", "'-infinity'"],
    "updated_at": ["'infinity'", "'-infinity'"],
    "priority": ["-32768", "32767"],
    "attempts": ["-32768", "-1", "24"],
    "max_attempts": ["1", "32767"],
    "revision": ["2147483647", "-2147483648"],
    "last_error": ["repeat('x', 3000000)", "''"],
    "key": ["repeat('é', 512)", "e'\\n'"],
    "payload": [
        "'null'", "'[]'", "'1e999999'", "'{\"a\": \"\\u0000\"}'", "'\"\\ud800\"'",
        "(repeat('[', 3000) || repeat(']', 3000))::json", "repeat('9', 100000)::json",
        "to_json(repeat('x', 3000000))",
    ],
    "flags": ["'{}'", "'[1]'", "'\"text\"'", "'null'", "'{\"a\": 1e400}'"],
}  # fmt: skip


@pytest.mark.parametrize("ending", ["good", "bad"])
def test_no_value_that_a_row_can_hold_stops_a_worker(db: Database, ending: str) -> None:
    ran: set[int] = set()

    async def task(payload: Any, context: Context) -> None:
        job = context.job
        ran.add(job.id)
        repr((job.run_at, job.created_at, job.updated_at, job.locked_at, job.flags, job.key))
        if ending == "bad":
            raise ValueError("bad")

    odd: dict[int, str] = {}
    for column, values in ODD.items():
        for value in values:
            job = add(db, "task", "{}", f", 'q{len(odd)}'")
            db.rows(f"update {G}._private_jobs set {column} = {value} where id = {job}")
            odd[job] = f"{column} = {value}"
    never = {job for job, what in odd.items() if "'infinity'" in what and "run_at" in what}
    never |= {job for job, what in odd.items() if "294276" in what}
    with running({"task": task}, db, poll_interval=0.5, forbidden_flags=["forbidden"]) as worker:
        left = f"select id from {G}.jobs where attempts < max_attempts and run_at <= now()"
        wait_for(lambda: db.column(left) == [], "they all run")
        last = add(db, "task")
        wait_for(lambda: last in ran, "the worker goes on")
        wait_for(lambda: db.rows(f"select from {G}.jobs where locked_at is not null") == [])
        assert worker.health().problems == []
    undecodable = {job for job, what in odd.items() if "999999" in what or "repeat('9'" in what}
    deep = {job for job, what in odd.items() if "repeat('['" in what}
    assert set(odd) - never - ran <= undecodable | deep
    # Python reads them all, and so does every command.
    with psycopg.connect(db.dsn, autocommit=True) as conn:
        assert {job.id for job in WorkerUtils(conn).list_jobs(limit=10000)} >= never
    queue = Queue(db.connect())
    for job in never:
        assert explain(queue, job).verdict == "never_due"


def test_a_time_that_never_comes_is_no_reason_to_wake_and_can_be_added(db: Database) -> None:
    job = db.value(f"select id from {G}.add_job('t', run_at => 'infinity')")
    assert db.row(f"select next_job_in, is_due from {G}.heartbeat('w')") == (None, False)
    db.rows(f"select id from {G}.add_job('t', run_at => '-infinity')")
    assert db.row(f"select next_job_in, is_due from {G}.heartbeat('w')") == (None, True)
    assert db.value(f"select count(*) from {G}.get_jobs('w', 10)") == 1
    assert db.column(f"select id from {G}.jobs where locked_at is null") == [job]


# --- what the database refuses


def test_a_job_whose_end_cannot_be_written_keeps_no_other_from_it(db: Database) -> None:
    ran: list[int] = []

    async def good(payload: Any, context: Context) -> None:
        ran.append(context.job.id)

    async def bad(payload: Any, context: Context) -> None:
        ran.append(context.job.id)
        raise RetryAfter(600, "bad")

    async def later(payload: Any, context: Context) -> None:
        ran.append(context.job.id)
        raise Snooze(600)

    tasks = {"good": good, "bad": bad, "later": later}
    cursed = [add(db, task, "{}", ", 'cursed'") for task in tasks]
    jobs = [add(db, task) for task in tasks for _ in range(20)]
    db.rows("create table public.cursed as select unnest(%s::bigint[]) as id", cursed)
    db.rows(f"""
        create function public.curse() returns trigger language plpgsql security definer as $$
        begin
          if exists (select from public.cursed where id = old.id)
            and old.locked_at is not null then
            raise exception 'this one cannot be written' using errcode = 'P0001';
          end if;
          return coalesce(new, old);
        end
        $$;
        create trigger curse before update or delete on {G}._private_jobs
        for each row execute function public.curse()""")
    with running(tasks, db, poll_interval=0.5, complete_delay=0.2, fail_delay=0.2):
        settled = f"""
            select id from {G}.jobs where id = any (%s)
            and (locked_at is not null or run_at <= now())
        """
        wait_for(lambda: len(ran) > len(jobs) and db.rows(settled, jobs) == [], "others end")
        assert db.column(f"select count(*) from {G}.jobs where locked_at is not null") == [1]
        db.rows("truncate public.cursed")
        wait_for(lambda: set(ran) >= set(cursed), "each cursed one runs")
        wait_for(lambda: db.rows(settled, cursed) == [], "and is written")
    assert len(ran) == len(set(ran)) == len(jobs) + len(cursed)


@pytest.mark.parametrize(
    "setting",
    [
        "graphile_worker.cursors = 'junk'", "graphile_worker.cursors = '[1, 2'",
        "graphile_worker.more = 'junk'", "graphile_worker.notify = 'junk'",
        "datestyle = 'German, DMY'", "intervalstyle = 'sql_standard'", "client_encoding = 'LATIN1'",
        "default_transaction_isolation = 'serializable'", "timezone = 'Asia/Kathmandu'",
        "bytea_output = 'escape'", "extra_float_digits = -15", "lock_timeout = '1ms'",
        "search_path = ''", "standard_conforming_strings = off", "row_security = off",
    ],
)  # fmt: skip
def test_no_setting_of_the_role_stops_a_worker(db: Database, setting: str) -> None:
    ran: list[Any] = []

    async def task(payload: Any) -> None:
        ran.append(payload)
        if len(ran) == 1:
            raise RetryAfter(0.01, "日本語 é")

    db.rows(f"alter role {work_role(db)} set {setting}")
    add(db, "task", '{"a": "日本語 é"}', ", 'q'")
    with running({"task": task}, db, poll_interval=0.5):
        wait_for(lambda: db.rows(f"select from {G}.jobs") == [], "it is done")
    assert ran == [{"a": "日本語 é"}] * 2


def test_a_row_type_that_changes_under_a_worker_ends_nothing(db: Database) -> None:
    ran: list[int] = []

    async def task(payload: Any, context: Context) -> None:
        ran.append(context.job.id)

    with running({"task": task}, db, poll_interval=0.5):
        for n in range(3):
            job = add(db, "task")
            wait_for(lambda job=job: job in ran)  # type: ignore[misc]
            db.rows(f"alter table {G}._private_jobs add column more{n} text default 'x'")
        wait_for(lambda: db.rows(f"select from {G}.jobs") == [])


# --- how a task can end


@pytest.mark.parametrize("kind", ["coroutine", "thread", "process"])
def test_every_outcome_reaches_the_database_whatever_listens(db: Database, kind: str) -> None:
    """Beside handlers of events, and a logging that raise, too."""

    async def coroutine(payload: Any) -> Any:
        return outcome(payload[0])

    def thread(payload: Any) -> Any:
        return outcome(payload[0])

    heard: list[str] = []
    events = Events()

    @events.on()
    def listens(event: Any) -> None:
        heard.append(event.name)
        raise [SystemExit(1), ValueError("handler"), UnprintableError()][len(heard) % 3]

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise UnprintableError

    handler = Handler()
    logger = logging.getLogger("graphile_worker")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    names = [*RAISED, *RETURNED]
    ids = {
        add(
            db,
            "task",
            json.dumps({"name": name} if kind == "process" else [name, 2]),
            f", 'q{n}', max_attempts => 1",
        ): name
        for n, name in enumerate(names)
    }
    tasks: dict[str, Any] = {
        "coroutine": {"task": coroutine}, "thread": {"task": thread}, "process": odd_outcomes.tasks,
    }  # fmt: skip
    try:
        with running(tasks[kind], db, poll_interval=0.5, events=events, concurrency=4) as worker:
            left = f"select id from {G}.jobs where attempts < max_attempts or locked_at is not null"
            wait_for(lambda: db.column(left) == [], "each comes to an end", 120)
            wait_for(lambda: worker.health().running == 0)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    failed = {ids[job] for job in db.column(f"select id from {G}.jobs")}
    assert failed >= set(RAISED) - {"bad snooze"}
    assert db.rows(f"select from {G}.jobs where coalesce(last_error, '') = ''") == []
    assert db.rows(f"select from {G}.queues where locked_at is not null") == []


# --- large payloads


def test_payloads_in_memory_are_bounded_in_bytes(db: Database, tmp_path: Path) -> None:
    worker = Process(work_dsn(db), tmp_path, seconds=0)
    try:
        wait_for(lambda: db.rows(f"select from {G}.workers"))
        db.rows(f"select {G}.add_job('say') from generate_series(1, 3000)")
        wait_for(lambda: db.rows(f"select from {G}.jobs") == [])
        db.rows(
            f"select {G}.add_job('say', json_build_object('text', repeat('x', 4000000)))"
            " from generate_series(1, 150)"
        )
        wait_for(lambda: db.rows(f"select from {G}.jobs") == [], "all are done", 180)
        peak = next(
            int(line.split()[1])
            for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines()
            if line.startswith("VmHWM")
        )
        assert peak < 400_000, f"{peak} kB at most"
        worker.stop()
    finally:
        worker.kill()
    runs = [json.loads(line) for line in worker.output.read_text().splitlines()]
    assert len(runs) == 3150
