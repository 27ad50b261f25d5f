"""Workers in SQL alone: they add, claim, send heartbeats and grow old."""

from __future__ import annotations

from typing import Any

from support.pg import Database, wait_for

G = "graphile_worker"


SWEEP = f"select * from {G}.recover_dead_workers(%s)"


JOBS = f"select id, attempts, locked_by from {G}.jobs order by id"


def add(db: Database, task: str = "t", **options: Any) -> int:
    names = "".join(f", {name} := %s" for name in options)
    job: int = db.value(f"select id from {G}.add_job(%s{names})", task, *options.values())
    return job


def take(db: Database, worker: str, n: int = 100) -> list[int]:
    # Workers have sessions of their own: what one remembers of the order is not passed to the next.
    db.rows("select set_config('graphile_worker.cursors', 'null', false)")
    return db.column(f"select id from {G}.get_jobs(%s, %s)", worker, n)


def beat(db: Database, worker: str) -> bool:
    known: bool = db.value(f"select is_known from {G}.heartbeat(%s)", worker)
    return known


def shift(db: Database, worker: str, column: str, ago: str) -> None:
    """Move one of the times of a worker."""
    db.rows(
        f"update {G}._private_heartbeats set {column} = clock_timestamp() - %s::interval"
        " where worker_id = %s",
        ago,
        worker,
    )


def age(db: Database, worker: str, ago: str) -> None:
    """Make the locks of a worker older."""
    for table in ("_private_jobs", "_private_job_queues"):
        db.rows(
            f"update {G}.{table} set locked_at = now() - %s::interval where locked_by = %s",
            ago,
            worker,
        )


def ready(db: Database) -> Database:
    """Make 2 seconds of silence enough, and wait until the server has been up for longer."""
    db.rows(f"select {G}.set_recovery('2 seconds')")
    wait_for(
        lambda: db.value("select clock_timestamp() > pg_postmaster_start_time() + interval '3 s'")
    )
    return db


def die(db: Database, worker: str) -> None:
    beat(db, worker)
    shift(db, worker, "heartbeat_at", "1 minute")


def steady(db: Database, worker: str) -> None:
    """A worker that beats without a gap, whatever the machine that runs the test does."""
    beat(db, worker)
    shift(db, worker, "heartbeat_at", "-1 minute")
    shift(db, worker, "alive_since", "1 minute")
