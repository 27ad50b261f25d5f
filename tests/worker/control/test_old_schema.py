"""A worker of this version runs the jobs of a schema of 1.0.0, which has no controls."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from graphile_worker import WorkerUtils, errors
from graphile_worker.worker import PauseQueue, context
from support.live import running, state
from support.pg import Database, wait_for

pytestmark = pytest.mark.majors(13, 18)


def test_jobs_run_and_one_that_pauses_its_queue_only_waits_itself(empty_db: Database) -> None:
    empty_db.rows("create extension graphile_worker version '1.0.0'")
    ran: list[int] = []

    async def work(payload: Any) -> None:
        if payload.get("pause"):
            raise PauseQueue(for_seconds=3600)
        ran.append(context().job.id)

    with running({"work": work}, empty_db, dsn=empty_db.dsn):
        add = "select id from graphile_worker.add_job('work', %s, queue_name := 'q')"
        pausing = empty_db.value(add, '{"pause": true}')
        other = empty_db.value(add, "{}")
        wait_for(lambda: other in ran, "the queue is not paused")
    attempts, error, locked_by, wait = state(empty_db, pausing)
    assert (attempts, error, locked_by) == (0, None, None)
    assert wait > timedelta(minutes=59).total_seconds()
    with (
        WorkerUtils(empty_db.dsn) as utils,
        pytest.raises(errors.SchemaError, match="or an older one than this package needs"),
    ):
        utils.pause_queue("q")
