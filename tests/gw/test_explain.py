"""gw explain: each state that keeps a job from running, made by hand, is named with its evidence."""

from __future__ import annotations

import json
import re

import pytest
from graphile_worker.gw.explain import explain
from support.pg import Database, wait_for

from gw.program import answer, gw, queue, said

pytestmark = pytest.mark.majors(13, 18)

ADD = "select (graphile_worker.add_job(%s, queue_name => %s, run_at => now() + %s::interval, flags => %s)).id"


def add(
    db: Database,
    task: str = "t",
    queue: str | None = None,
    after: str = "-1 s",
    flags: list[str] | None = None,
) -> int:
    return int(db.value(ADD, task, queue, after, flags))


def reasons(db: Database, job: int | str) -> dict[str, str]:
    return {reason.code: reason.text for reason in explain(queue(db), job).reasons}


def verdict(db: Database, job: int | str) -> str:
    return explain(queue(db), job).verdict


def worker(db: Database, name: str = "w1", tasks: list[str] | None = None) -> None:
    db.rows("select graphile_worker.heartbeat(%s, %s)", name, tasks or ["t"])


def take(db: Database, name: str, count: int = 1) -> None:
    assert db.rows("select from graphile_worker.get_jobs(%s, %s)", name, count)


def bury(db: Database, name: str) -> None:
    """Let a worker have been silent for as long as makes it dead."""
    db.rows("select graphile_worker.set_recovery(interval '1 second')")
    db.rows(
        "update graphile_worker._private_heartbeats set heartbeat_at = heartbeat_at - interval '1 hour' where worker_id = %s",
        name,
    )
    alive = "select is_alive from graphile_worker.workers where worker_id = %s"
    wait_for(lambda: not db.value(alive, name))  # nor does the server's start count any more


def test_a_job_in_whose_way_nothing_stands(db: Database) -> None:
    worker(db)
    job = add(db)
    assert (verdict(db, job), set(reasons(db, job))) == ("nothing", {"workers"})
    assert "nothing stands in its way" in gw(db, "explain", job)
    found = json.loads(gw(db, "explain", job, "--json"))
    assert (found["id"], found["verdict"], found["reasons"][0]["stops"]) == (job, "nothing", False)


def test_a_job_that_is_not_due(db: Database) -> None:
    worker(db)
    job = add(db, after="3 hours")
    assert verdict(db, job) == "not_due"
    assert re.search(r"\(in (3 h|2 h 59 min)\)", reasons(db, job)["not_due"])


def test_a_job_that_waits_after_a_failure(db: Database) -> None:
    worker(db)
    job = add(db)
    take(db, "w1")
    db.rows(
        "select graphile_worker.fail_jobs('w1', %s::json)",
        json.dumps([{"id": job, "error": "no route\nto host"}]),
    )
    text = reasons(db, job)["not_due"]
    assert "after attempt 1 of 25, which failed: no route" in text
    assert verdict(db, job) == "not_due"


def test_a_job_that_failed_for_good(db: Database) -> None:
    job = add(db)
    db.rows(
        "select graphile_worker.permanently_fail_jobs(array[%s]::bigint[], 'the customer is gone')",
        job,
    )
    text = reasons(db, job)["failed"]
    assert verdict(db, job) == "failed"
    assert all(
        part in text for part in ("after 25 attempts", "the customer is gone", f"gw retry {job}")
    )


def test_a_job_that_runs(db: Database) -> None:
    job = add(db)
    worker(db)
    take(db, "w1")
    assert verdict(db, job) == "running"
    assert "worker w1, alive (heartbeat" in reasons(db, job)["running"]


def test_a_job_whose_worker_died(db: Database) -> None:
    job, queued, behind = add(db), add(db, queue="q"), add(db, queue="q")
    worker(db)
    take(db, "w1", 2)
    bury(db, "w1")
    assert verdict(db, job) == verdict(db, queued) == "worker_dead"
    assert "presumed dead (last heartbeat 1 h ago)" in reasons(db, job)["worker_dead"]
    assert verdict(db, behind) == "queue_worker_dead"


def test_a_job_that_runs_unseen_and_one_whose_lock_is_stale(db: Database) -> None:
    job = add(db)
    take(db, "node-1")
    assert verdict(db, job) == "running_unseen"
    assert "sends no heartbeats" in reasons(db, job)["running_unseen"]
    db.rows("update graphile_worker._private_jobs set locked_at = now() - interval '5 hours'")
    assert "more than four hours" in reasons(db, job)["running_unseen"]


def test_a_job_whose_queue_is_locked_by_another(db: Database) -> None:
    running, job = add(db, queue="q"), add(db, queue="q", after="-0.5 s")
    worker(db)
    take(db, "w1")
    text = reasons(db, job)["queue_locked"]
    assert verdict(db, job) == "queue_locked"
    assert all(
        part in text for part in ("its queue q", f"running job {running}", "worker w1, alive")
    )


def test_a_job_behind_others_of_its_queue(db: Database) -> None:
    worker(db)
    first, second = add(db, queue="q"), add(db, queue="q", after="-0.5 s")
    add(db, queue="other")
    assert "in its queue q: 1 due job" in reasons(db, second)["queue_behind"]
    assert verdict(db, second) == "queue_behind"
    assert verdict(db, first) == "nothing"
    assert ": 2 due jobs" in reasons(db, second)["jobs_ahead"]


def test_a_job_whose_queue_is_stuck(db: Database) -> None:
    worker(db)
    job = add(db, queue="q")
    db.rows("update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'x'")
    assert verdict(db, job) == "queue_stuck"
    assert "gw unlock --queues" in reasons(db, job)["queue_stuck"]
    assert answer(db, "unlock", "--queues") == {"unlocked_queues": ["q"]}
    assert verdict(db, job) == "nothing"


def test_a_job_whose_task_no_live_worker_knows(db: Database) -> None:
    job = add(db)
    assert verdict(db, job) == "no_worker"
    worker(db, tasks=["other"])
    assert verdict(db, job) == "task_unknown"
    assert "none of 1 live Python worker knows the task t" in reasons(db, job)["task_unknown"]
    db.rows("select graphile_worker.heartbeat('w2')")  # it does not say which
    assert verdict(db, job) == "nothing"


def test_flags_are_a_remark(db: Database) -> None:
    worker(db)
    job = add(db, flags=["slow", "eu"])
    assert verdict(db, job) == "nothing"
    assert "flags eu, slow" in reasons(db, job)["flags"]


def test_all_that_holds_is_told_and_a_key_names_a_job(db: Database) -> None:
    worker(db, tasks=["other"])
    add(db, queue="q")
    take(db, "node-1")
    job = add(db, queue="q", after="1 hour", flags=["slow"])
    db.rows(
        "update graphile_worker._private_jobs set key = '7', attempts = max_attempts where id = %s",
        job,
    )
    assert set(reasons(db, "7")) == {"failed", "not_due", "queue_locked", "task_unknown", "flags"}
    assert answer(db, "explain", "--key", "7")["id"] == job
    assert "no job 7:" in said(db, "explain", "7", code=1)[1]
