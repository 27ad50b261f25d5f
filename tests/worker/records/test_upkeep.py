"""What running jobs report, and how the worker looks after the history."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from graphile_worker import WorkerUtils
from graphile_worker.errors import (
    ResultUnavailable,
)
from graphile_worker.worker import context
from sql.history.test_partitions import shift
from support.live import add, running
from support.pg import Database, wait_for

pytestmark = pytest.mark.majors(13, 18)


def double(payload: Any) -> Any:
    return {"doubled": 2 * payload["n"]}


TASKS = {"double": double}


def test_progress_is_written_once_a_second_and_seen_while_the_job_runs(db: Database) -> None:
    go_on = threading.Event()

    def copy(payload: Any) -> None:
        for n in range(100):
            context().progress(n / 100, f"copied {n} of 100")
        go_on.wait(60)

    with running({"copy": copy}, db):
        job = add(db, "copy")
        wait_for(
            lambda: (
                db.rows("select progress, message from graphile_worker.job_progress")
                == [(pytest.approx(0.99), "copied 99 of 100")]
            )
        )
        writes = db.value(
            "select n_tup_ins + n_tup_upd from pg_stat_user_tables where relname = '_private_progress'"
        )
        assert writes <= 2
        with WorkerUtils(db.dsn) as utils:
            record = utils.find_job(job)
            assert record is not None
            assert (record.state, record.progress_message) == ("running", "copied 99 of 100")
        # no row of the jobs was written for it
        assert db.value("select updated_at = created_at from graphile_worker.jobs")
        go_on.set()
    assert db.rows("select * from graphile_worker.job_progress") == []


def test_the_worker_looks_after_the_history(db: Database) -> None:
    db.rows("select graphile_worker.keep_history(keep => '1 day')")
    shift(db, "1 year")
    with running(TASKS, db):
        wait_for(
            lambda: db.value(
                "select min(ends_at) > now() from graphile_worker._private_history_partitions"
            )
        )


def test_history_that_is_kept_from_now_on_has_the_results_of_the_next_job(db: Database) -> None:
    with WorkerUtils(db.dsn) as utils, running(TASKS, db):
        first = add(db, "double", '{"n": 1}')
        wait_for(lambda: utils.find_job(first) is None)
        utils.keep_history("double")
        assert utils.handle(add(db, "double", '{"n": 1}')).result(60) == {"doubled": 2}
        assert utils.stop_history("double")
        third = add(db, "double", '{"n": 1}')
        wait_for(lambda: utils.find_job(third) is None)
        utils.keep_history("double", results=False)
        job = add(db, "double", '{"n": 1}')
        with pytest.raises(ResultUnavailable, match="keep_history"):
            utils.handle(job).result(60)
        wait_for(lambda: len(utils.job_history()) == 2)
        assert [record.result for record in utils.job_history()] == [None, {"doubled": 2}]
