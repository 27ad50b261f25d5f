"""The partitions of the history come ahead of time, and go when what they hold is old enough."""

from __future__ import annotations

import threading
import uuid

from support.pg import Database, wait_for

from sql.fetch.claims import add, take
from sql.history.test_history import FINISH, keep

PARTITIONS = "select name, starts_at, ends_at from graphile_worker._private_history_partitions order by ends_at"
CHILDREN = (
    "select relname from pg_inherits join pg_class on oid = inhrelid"
    " where inhparent = 'graphile_worker._private_history'::regclass order by 1"
)
MAINTAIN = "select * from graphile_worker.maintain_history()"


def finish(db: Database, task: str = "t") -> int:
    job = add(db, task)
    assert take(db) == [job]
    assert db.rows(FINISH, "w", [job], ["1"], None) == [(job, True)]
    return job


def shift(db: Database, by: str) -> None:
    """Let all that is recorded be older."""
    for name, starts, ends in db.rows(PARTITIONS):
        aside = f"_private_history_{uuid.uuid4().hex[:20]}"
        db.rows(f"alter table graphile_worker.{name} rename to {aside}")
        db.rows(
            "update graphile_worker._private_history_partitions set name = %s where name = %s",
            aside, name,
        )  # fmt: skip
        name = aside
        db.rows(
            f"alter table graphile_worker._private_history detach partition graphile_worker.{name}"
        )
        db.rows(f"update graphile_worker.{name} set finished_at = finished_at - interval '{by}'")
        db.rows(
            f"alter table graphile_worker._private_history attach partition graphile_worker.{name}"
            f" for values from ('{starts}'::timestamptz - interval '{by}')"
            f" to ('{ends}'::timestamptz - interval '{by}')"
        )
    db.rows(
        "update graphile_worker._private_history_partitions set starts_at = starts_at - %s::interval,"
        " ends_at = ends_at - %s::interval", by, by,
    )  # fmt: skip


def test_their_width_goes_by_how_long_history_is_kept(db: Database) -> None:
    for keep_for, width in (("1 hour", "1 hour"), ("30 days", "1 day"), ("200 days", "7 days")):
        keep(db, f"keep => '{keep_for}'")
        db.rows("delete from graphile_worker._private_history_partitions")
        for name in db.column(CHILDREN):
            db.rows(f"drop table graphile_worker.{name}")
        db.rows("select graphile_worker._add_history_partitions(clock_timestamp())")
        (length,) = db.column(
            f"select ends_at - starts_at = interval '{width}'"
            " from graphile_worker._private_history_partitions"
        )
        assert length, keep_for
    keep(db, "keep => '10 years'")
    db.rows(
        "select graphile_worker._add_history_partitions(clock_timestamp() + interval '60 days')"
    )
    assert db.column(CHILDREN) == [name for name, *_ in db.rows(PARTITIONS)]
    gaps = db.value(
        "select bool_or(starts_at <> before) from (select starts_at, lag(ends_at) over"
        " (order by ends_at) as before from graphile_worker._private_history_partitions) as p"
    )
    assert gaps is False


def test_old_partitions_are_dropped_and_new_ones_are_there_before_they_are_needed(
    db: Database,
) -> None:
    keep(db, "keep => '2 days'")
    old = finish(db)
    assert db.row(MAINTAIN) == (0, 0, 0)
    shift(db, "4 days")
    new = finish(db)
    (dropped, *_) = db.row(MAINTAIN)
    assert dropped >= 1
    assert db.column("select job_id from graphile_worker.job_history") == [new], old
    assert db.column(CHILDREN) == sorted(name for name, *_ in db.rows(PARTITIONS))
    assert db.value(
        "select max(ends_at) > now() + interval '1 hour'"
        " from graphile_worker._private_history_partitions"
    )


def test_a_job_ends_although_no_partition_was_made_ahead(db: Database) -> None:
    keep(db)
    shift(db, "10 days")
    job = finish(db)
    assert db.column("select job_id from graphile_worker.job_history") == [job]


def test_a_clock_that_was_set_back_loses_nothing(db: Database) -> None:
    keep(db)
    shift(db, "-10 days")
    job = finish(db)
    assert db.row("select job_id, finished_at > now() from graphile_worker.job_history") == (
        job,
        True,
    )


def test_tasks_that_are_kept_for_less_time_are_deleted_earlier(db: Database) -> None:
    keep(db, "keep => '10 days'")
    keep(db, "'short', keep => '1 day'")
    jobs = [finish(db), finish(db, "short")]
    assert db.row(MAINTAIN) == (0, 0, 0)
    shift(db, "2 days")
    assert db.row(MAINTAIN) == (0, 1, 0)
    assert db.column("select job_id from graphile_worker.job_history") == jobs[:1]
    keep(db, "keep => '1 day'")
    keep(db, "'long', keep => '10 days'")
    assert db.row(MAINTAIN) == (0, 1, 0)


def test_who_reads_the_history_or_the_jobs_holds_nobody_up(db: Database) -> None:
    """Neither a long query nor a long transaction keeps jobs from ending, or others from reading."""
    keep(db, "keep => '1 day'")
    finish(db)
    shift(db, "3 days")
    reader = db.connect(autocommit=False)
    reader.execute("select count(*) from graphile_worker.job_history")
    jobs = db.connect(autocommit=False)
    jobs.execute("lock table graphile_worker._private_jobs in share row exclusive mode")
    # The reader is in the way of dropping, which waits for another time; the jobs are not asked for.
    assert db.row(MAINTAIN) == (0, 0, 0)
    reader.rollback()
    (dropped, *_) = db.row(MAINTAIN)
    assert dropped >= 1
    jobs.rollback()


def test_one_at_a_time_looks_after_the_records(db: Database) -> None:
    keep(db, "keep => '1 day'")
    finish(db)
    shift(db, "3 days")
    first = db.connect(autocommit=False)
    found = first.execute(MAINTAIN).fetchone()
    assert found is not None
    assert found[0] >= 1
    assert db.row(MAINTAIN) == (0, 0, 0)
    first.commit()
    assert db.row(MAINTAIN) == (0, 0, 0)


def test_sessions_that_need_the_same_partition_do_not_disturb_each_other(db: Database) -> None:
    keep(db)
    shift(db, "10 days")
    ids = [add(db) for _ in range(6)]
    assert sorted(take(db)) == ids
    open_one = db.connect(autocommit=False)
    open_one.execute(FINISH, ["w", ids[:1], ["1"], None])
    failed: list[BaseException] = []

    def body(job: int) -> None:
        try:
            db.connect().execute(FINISH, ["w", [job], ["1"], None])
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=body, args=(job,)) for job in ids[1:]]
    for thread in threads:
        thread.start()
    wait_for(
        lambda: db.value("select count(*) >= 1 from pg_locks where not granted"), "they wait", 30
    )
    open_one.commit()
    for thread in threads:
        thread.join(30)
    assert not failed
    assert db.value("select count(*) from graphile_worker.job_history") == 6


def test_a_transaction_with_an_old_snapshot_records_as_well(db: Database) -> None:
    keep(db)
    shift(db, "10 days")
    ids = [add(db), add(db)]
    assert sorted(take(db)) == ids
    old = db.connect(autocommit=False)
    old.execute("set transaction isolation level repeatable read")
    old.execute("select 1 from graphile_worker.jobs")
    db.rows(FINISH, "w", ids[:1], None, None)
    db.rows(FINISH, "w", ids[:1], ["1"], None)
    old.execute(FINISH, ["w", ids[1:], ["1"], None])
    old.commit()
    assert sorted(db.column("select job_id from graphile_worker.job_history")) == ids


def test_partitions_give_no_rights_that_default_privileges_would(db: Database) -> None:
    role = f"anyone_{uuid.uuid4().hex}"
    db.rows(f"create role {role}")
    try:
        db.rows(f"alter default privileges grant all on tables to {role}")
        db.rows("alter default privileges grant select on tables to public")
        keep(db)
        (name, *_) = db.column(CHILDREN)
        for right in ("select", "insert", "truncate"):
            assert not db.value(
                "select has_table_privilege(%s, %s, %s)", role, f"graphile_worker.{name}", right
            )
        assert db.value("select relrowsecurity from pg_class where relname = %s", name)
    finally:
        db.rows(f"alter default privileges revoke all on tables from {role}")
        db.rows("alter default privileges revoke select on tables from public")
        db.rows(f"drop owned by {role}")
        db.rows(f"drop role {role}")


def test_failed_jobs_are_deleted_when_they_are_old(db: Database) -> None:
    jobs = [add(db, max_attempts=1) for _ in range(2)]
    db.rows("select graphile_worker.permanently_fail_jobs(%s)", jobs)
    db.rows(
        "update graphile_worker._private_jobs set updated_at = now() - interval '2 days' where id = %s",
        jobs[0],
    )
    assert db.row(MAINTAIN) == (0, 0, 0)
    assert db.value("select graphile_worker.keep_failed_jobs('1 day')") is None
    assert db.row(MAINTAIN) == (0, 0, 1)
    assert db.column("select id from graphile_worker.jobs") == jobs[1:]
    db.rows("update graphile_worker._private_jobs set updated_at = now() - interval '2 days'")
    assert db.row(MAINTAIN) == (0, 0, 0)  # once an hour
    assert str(db.value("select graphile_worker.keep_failed_jobs()")) == "1 day, 0:00:00"
    db.rows("update graphile_worker._private_settings set failed_deleted_at = null")
    assert db.row(MAINTAIN) == (0, 0, 0)


def test_what_is_left_of_jobs_that_are_gone_is_deleted(db: Database) -> None:
    keep(db)
    job = add(db)
    assert take(db) == [job]
    assert db.value("select graphile_worker.report_progress('w', %s, 0.5, 'half')", job) is True
    assert db.value("select graphile_worker.report_progress('x', %s, 0.6, 'x')", job) is False
    assert db.row("select job_id, progress, message from graphile_worker.job_progress") == (
        job, 0.5, "half",
    )  # fmt: skip
    found = db.row("select progress, progress_message from graphile_worker.get_job(%s)", job)
    assert found == (0.5, "half")
    db.rows(f"select graphile_worker.fail_jobs('w', '[{{\"id\": {job}}}]')")
    db.rows("delete from graphile_worker._private_jobs")
    db.rows("update graphile_worker._private_progress set reported_at = now() - interval '1 h'")
    db.rows(MAINTAIN)
    assert db.value("select count(*) from graphile_worker._private_progress") == 0
    assert db.value("select count(*) from graphile_worker._private_attempts") == 0
