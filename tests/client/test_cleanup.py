"""Names are collected in a loop while jobs are added and taken: none is lost, nobody sees an error."""

from __future__ import annotations

import random
import threading
from typing import Any

import graphile_worker as gw
import psycopg
import pytest
from graphile_worker import errors
from support.pg import Database, wait_for

NAMES = [f"n{n}" for n in range(100)]
#: A job whose names are gone: the view does not show it, or not its queue.
LOST = """
    select j.id from graphile_worker._private_jobs j
    left join graphile_worker._private_tasks t on t.id = j.task_id
    left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
    where t.id is null or (j.job_queue_id is not null and q.id is null)
"""


def test_collecting_names_in_a_loop_loses_no_job(db: Database) -> None:
    stop, trouble = threading.Event(), []
    added: list[int] = []
    ran: list[int] = []
    collected: list[int] = []

    def backlog_is_small() -> bool:
        """Names are left unused only where the workers keep up."""
        return stop.is_set() or len(added) - len(ran) < 20

    def guarded(body: Any, number: int) -> threading.Thread:
        def main() -> None:
            try:
                body(number)
            except Exception as error:
                trouble.append(error)

        thread = threading.Thread(target=main)
        thread.start()
        return thread

    def adder(number: int) -> None:
        rng = random.Random(number)
        with psycopg.connect(db.dsn, autocommit=True) as conn:
            while not stop.is_set():
                wait_for(backlog_is_small)
                task, queue = rng.choice(NAMES), rng.choice([None, *NAMES])
                if rng.random() < 0.7:
                    added.append(gw.add_job(task, conn=conn, queue_name=queue).id)
                else:
                    specs = [gw.JobSpec(rng.choice(NAMES), queue_name=queue) for _ in range(3)]
                    added.extend(job.id for job in gw.add_jobs(specs, conn=conn))

    def snapshot_adder(number: int) -> None:
        rng = random.Random(number)
        with psycopg.connect(db.dsn) as conn:
            conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            while not stop.is_set():
                wait_for(backlog_is_small)
                conn.execute("select count(*) from pg_class")
                name = rng.choice(NAMES)
                try:
                    job = gw.add_job(name, conn=conn, queue_name=name)
                    conn.commit()
                except psycopg.errors.SerializationFailure:
                    conn.rollback()
                else:
                    added.append(job.id)

    def worker(number: int) -> None:
        with psycopg.connect(db.dsn, autocommit=True) as conn:
            while True:
                ending = stop.is_set() and not any(one.is_alive() for one in adders)
                taken = [
                    row[0]
                    for row in conn.execute(
                        "select id from graphile_worker.get_jobs(%s, 20)", [f"w{number}"]
                    )
                ]
                conn.execute("select graphile_worker.finish_jobs(%s, %s)", [f"w{number}", taken])
                ran.extend(taken)
                if ending and not taken:
                    return

    def collector(_: int) -> None:
        with gw.WorkerUtils(db.dsn) as utils:
            while not stop.is_set():
                try:
                    done = utils.cleanup("queues", "tasks")
                except errors.Busy:
                    continue
                collected.append(done.queues + done.tasks)

    adders = [guarded(adder, n) for n in range(3)] + [guarded(snapshot_adder, 9)]
    workers = [guarded(worker, n) for n in range(2)]
    collectors = [guarded(collector, 0)]
    try:
        wait_for(lambda: trouble or (sum(collected) >= 2000 and len(ran) > 2000))
    finally:
        stop.set()
        for thread in [*adders, *collectors, *workers]:
            thread.join()
    assert trouble == []
    assert db.column(LOST) == []
    assert sorted(ran) == sorted(added)


def test_a_snapshot_taken_while_names_are_being_collected_is_too_old(db: Database) -> None:
    db.rows("select graphile_worker.add_job('t', queue_name := 'q')")
    db.rows("delete from graphile_worker._private_jobs")
    collector, adder = db.connect(autocommit=False), db.connect(autocommit=False)
    adder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    for verb in ("delete_unused_queues()", "delete_unused_tasks()"):
        collector.execute(f"select graphile_worker.{verb}")
        adder.execute("select now()")  # after the names were removed, before it was committed
        collector.commit()
        with pytest.raises(psycopg.errors.SerializationFailure):
            adder.execute("select graphile_worker.add_job('t', queue_name := 'q')")
        adder.rollback()
    assert db.column(LOST) == []
    adder.execute("select graphile_worker.add_job('t', queue_name := 'q')")
    adder.commit()
    # A number from another server, as a dump of a plain schema may bring.
    db.rows("select setval('graphile_worker.names_deleted_seq', 9000000000000)")
    adder.execute("select graphile_worker.add_job('t', queue_name := 'q')")
    adder.commit()
