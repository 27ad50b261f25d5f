"""Jobs of what is paused wait; when it is resumed, or the time is over, they run."""

from __future__ import annotations

import psycopg
import pytest
from support.pg import Database

from sql.fetch.claims import add, backlog, take

PAUSED = "select scope, name, until is null, reason, paused_by from graphile_worker.pauses"


def soon(db: Database) -> object:
    return db.value("select clock_timestamp() + interval '200 ms'")


def test_a_paused_queue_keeps_its_jobs_and_gives_them_back(db: Database) -> None:
    job, other = add(db, queue_name="mail"), add(db, queue_name="post")
    add_running = add(db, queue_name="mail", priority=-1)
    assert take(db, n=1) == [add_running]
    db.rows("select graphile_worker.pause_queue('mail', reason := 'the server is down')")
    assert db.rows(PAUSED) == [("queue", "mail", True, "the server is down", "postgres")]
    assert take(db) == [other]
    db.rows("select * from graphile_worker.finish_jobs('w', %s)", [add_running, other])
    assert take(db) == []
    assert db.value("select graphile_worker.resume_queue('mail')") is True
    assert db.value("select graphile_worker.resume_queue('mail')") is False
    assert db.rows(PAUSED) == []
    assert take(db) == [job]


def test_a_paused_task_keeps_its_jobs_in_every_queue(db: Database) -> None:
    add(db, "slow"), add(db, "slow", queue_name="q")
    other = add(db, "quick", queue_name="r")
    db.rows("select graphile_worker.pause_task('slow')")
    assert take(db) == [other]
    assert take(db, tasks=["slow"]) == []
    assert db.value("select graphile_worker.resume_task('slow')") is True
    assert len(take(db, tasks=["slow"])) == 2


def test_everything_can_be_paused(db: Database) -> None:
    job = add(db)
    db.rows("select graphile_worker.pause_all(reason := 'maintenance')")
    assert take(db) == []
    assert take(db, tasks=["t"]) == []
    assert db.rows(PAUSED) == [("all", "*", True, "maintenance", "postgres")]
    assert db.value("select graphile_worker.resume_all()") is True
    assert take(db) == [job]


@pytest.mark.parametrize("scope", ["queue", "task"])
def test_a_name_with_an_asterisk_pauses_all_that_begin_so(db: Database, scope: str) -> None:
    def add_of(name: str) -> int:
        return add(db, **{"queue_name": name}) if scope == "queue" else add(db, name)

    add_of("tenant-42:a")
    db.rows(f"select graphile_worker.pause_{scope}('tenant-42:*')")
    add_of("tenant-42:b"), add_of("tenant-42:")  # names that come later
    others = [add_of("tenant-421:a"), add_of("tenant-4"), add_of("x tenant-42:a")]
    assert take(db) == others
    db.rows(f"select graphile_worker.pause_{scope}('tenant-42:a')")
    db.rows(f"select graphile_worker.resume_{scope}('tenant-42:*')")
    assert len(take(db)) == 2, "what is paused by its own name stays so"
    db.rows(f"select graphile_worker.resume_{scope}('tenant-42:a')")
    assert len(take(db)) == 1


def test_an_asterisk_alone_pauses_every_queue(db: Database) -> None:
    add(db, queue_name="q")
    free = add(db)
    db.rows("select graphile_worker.pause_queue('*')")
    assert take(db) == [free]


@pytest.mark.parametrize("scope", ["queue", "task", "all"])
def test_a_pause_ends_by_itself(db: Database, scope: str) -> None:
    job = add(db, queue_name="t")
    name = "" if scope == "all" else "'t', "
    db.rows(f"select graphile_worker.pause_{scope}({name}%s)", soon(db))
    assert take(db) == []
    (seconds,) = db.column("select current_setting('graphile_worker.more')")
    assert 0 < float(seconds) <= 0.2
    while db.value("select count(*) from graphile_worker.pauses"):
        pass
    assert take(db) == [job]
    db.rows("select * from graphile_worker.release_stale_locks()")
    assert db.value("select count(*) from graphile_worker._private_pauses") == 0


def test_pausing_again_replaces_the_end_and_the_reason(db: Database) -> None:
    db.rows("select graphile_worker.pause_queue('q', %s, 'short')", soon(db))
    db.rows("select graphile_worker.pause_queue('q')")
    assert db.rows(PAUSED) == [("queue", "q", True, None, "postgres")]


@pytest.mark.parametrize("count", [5_000])
def test_jobs_behind_many_paused_ones_are_found(db: Database, count: int) -> None:
    add(db)
    backlog(db, count, queues=3)
    db.rows("update graphile_worker._private_job_queues set locked_at = null, locked_by = null")
    last = add(db, "other", run_at=db.value("select now()"))
    db.rows("select graphile_worker.pause_task('t')")
    assert take(db, n=1) == [last]
    add(db, "other", queue_name="free")
    db.rows("select graphile_worker.resume_task('t'), graphile_worker.pause_queue('stuck*')")
    # It remembers for a moment where to begin, and asks to be called again.
    assert len(take(db, n=10) + take(db, n=10)) == 2


@pytest.mark.parametrize("scope", ["queue", "task"])
def test_a_job_pauses_what_it_belongs_to_and_goes_back_unattempted(
    db: Database, scope: str
) -> None:
    first, second = add(db, queue_name="api"), add(db, queue_name="api")
    assert take(db) == [first]
    call = "select graphile_worker.return_and_pause('w', %s, %s, now() + %s::interval, 'busy')"
    assert db.value(call, second, scope, "1 hour") is False, "it is not the worker's"
    assert db.rows(PAUSED) == []
    assert db.value(call, first, scope, "1 hour") is True
    name = "api" if scope == "queue" else "t"
    assert db.rows(PAUSED) == [(scope, name, False, "busy", "postgres")]
    assert db.row("select attempts, locked_at from graphile_worker.jobs where id = %s", first) == (
        0, None,
    )  # fmt: skip
    assert take(db) == []
    # a pause that ends later stays
    until = db.value("select until from graphile_worker.pauses")
    db.rows(f"select graphile_worker.resume_{scope}(%s)", name)
    assert take(db) == [first]
    db.rows(f"select graphile_worker.pause_{scope}(%s)", name)
    assert db.value(call, first, scope, "1 minute") is True
    assert db.value("select until from graphile_worker.pauses") is None
    assert until is not None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("pause_queue('')", "Name of the queue is null or empty"),
        ("pause_queue(null)", "Name of the queue is null or empty"),
        ("resume_task('')", "Name of the task is null or empty"),
        ("pause_task(repeat('x', 130))", "Name of the task is too long: 130 characters"),
        ("pause_queue('q', now() - interval '1 s')", "Pause would end before it begins"),
        ("pause_all('-infinity')", "Pause would end before it begins"),
        ("return_and_pause('w', 1, 'all', now())", 'Scope is unknown: "all"'),
        ("return_and_pause('w', 1, 'queue', 'infinity')", "Pause from a job has no end"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(db: Database, call: str, message: str) -> None:
    with pytest.raises(psycopg.Error, match=message) as caught:
        db.rows(f"select graphile_worker.{call}")
    assert caught.value.sqlstate == "GWBCO"
    assert caught.value.diag.message_hint
    assert db.rows(PAUSED) == []


def test_a_job_without_a_queue_cannot_pause_it(db: Database) -> None:
    job = add(db)
    take(db)
    with pytest.raises(psycopg.Error, match=f"Job {job} has no queue"):
        db.rows(
            "select graphile_worker.return_and_pause('w', %s, 'queue', now() + interval '1 h')", job
        )
    assert db.value("select locked_by from graphile_worker.jobs") == "w"
