"""What a real Node worker ignores of pauses, limits, cancellations and schedules, and what it keeps."""

from __future__ import annotations

import pytest
from support.node import VERSIONS, NodeWorker
from support.pg import Database, wait_for

pytestmark = pytest.mark.majors(13, 18)

ADD = "select id from graphile_worker.add_job('note', '{}', queue_name := %s)"
RUNNING = "select count(*) from graphile_worker.jobs where locked_at is not null"
LEFT = "select count(*) from graphile_worker.jobs"


@pytest.mark.parametrize("version", VERSIONS)
def test_node_runs_jobs_of_what_is_paused(db: Database, version: str) -> None:
    db.rows(ADD, "q")
    db.rows("select graphile_worker.pause_queue('q'), graphile_worker.pause_task('note')")
    db.rows("select graphile_worker.pause_all()")
    assert db.rows("select from graphile_worker.get_jobs('python', 10)") == []
    with NodeWorker(db, version):
        wait_for(lambda: db.value(LEFT) == 0, "Node ran it")


@pytest.mark.parametrize("version", VERSIONS)
def test_node_exceeds_limits_and_keeps_serial_queues(db: Database, version: str) -> None:
    db.rows("select graphile_worker.set_limit('task', 'note', 1)")
    for _ in range(3):
        db.rows(ADD, None)
    with NodeWorker(db, version, pause=3):
        wait_for(lambda: db.value(RUNNING) == 3, "Node runs three of one")
        # They are not counted, but for those that run when a limit is set.
        db.rows("select graphile_worker.set_limit('task', 'note', 3)")
        assert db.value("select running from graphile_worker.limits") == 3
        db.rows(ADD, None)
        assert db.rows("select from graphile_worker.get_jobs('python', 10)") == []
        wait_for(lambda: db.value(LEFT) == 0, "all are done")


@pytest.mark.parametrize("version", VERSIONS)
def test_of_a_queue_with_a_limit_node_runs_one_more(db: Database, version: str) -> None:
    db.rows("select graphile_worker.set_limit('queue', 'q', 2)")
    for _ in range(4):
        db.rows(ADD, "q")
    assert len(db.rows("select from graphile_worker.get_jobs('python', 10)")) == 2
    with NodeWorker(db, version, pause=2):
        wait_for(lambda: db.value(RUNNING) == 3, "one in Node, besides the two")
        assert db.value("select locked_by is not null from graphile_worker.queues")
        assert db.rows("select from graphile_worker.get_jobs('python', 10)") == []
        wait_for(lambda: db.value(LEFT) == 2, "Node ran the others, one after the other")


@pytest.mark.parametrize("version", VERSIONS)
def test_what_node_runs_is_not_cancellable_and_untouched(db: Database, version: str) -> None:
    job = db.value("select id from graphile_worker.add_job('note', '{}', job_key := 'k')")
    with NodeWorker(db, version, pause=2):
        wait_for(lambda: db.value(RUNNING) == 1, "Node runs it")
        before = db.rows("select * from graphile_worker.jobs")
        cancel = "select outcome from graphile_worker.cancel_jobs(array[%s::bigint], 'no')"
        assert db.value(cancel, job) == "not_cancellable"
        assert db.rows("select * from graphile_worker.jobs") == before
        wait_for(lambda: db.value(LEFT) == 0, "it is done")
        assert db.value("select count(*) from public.ran where ended is not null") == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_node_runs_the_jobs_of_schedules_and_adds_none(db: Database, version: str) -> None:
    db.rows("select graphile_worker.schedule('s', 'note', '* * * * *')")
    db.rows(
        "update graphile_worker._private_schedules set next_runs[1] = now() - interval '1 minute'"
    )
    other = db.value(ADD, None)
    with NodeWorker(db, version):
        wait_for(
            lambda: db.value("select count(*) from public.ran where job_id = %s", other), "it runs"
        )
        assert db.value("select last_run_at from graphile_worker.schedules") is None
        ran = db.value("select json_array_length(runs) from graphile_worker.run_schedules()")
        assert ran >= 1
        wait_for(lambda: db.value(LEFT) == 0, "Node ran them")
    assert db.value("select count(*) from public.ran") >= 2
