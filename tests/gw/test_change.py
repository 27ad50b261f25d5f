"""The commands of gw that change jobs, locks and names."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest
from support.pg import Database

from gw.program import answer, said
from gw.rows import LOCK, add

pytestmark = pytest.mark.majors(18)


FAIL = "update graphile_worker._private_jobs set attempts = max_attempts, last_error = 'boom' where id = any (%s)"


def test_running_and_absent_jobs_are_left_out_and_named(db: Database) -> None:
    running, waiting = add(db), add(db)
    db.rows(LOCK, "worker-x", running)
    for command in (
        ["retry"],
        ["fail"],
        ["reschedule", "--priority", "1"],
        ["complete"],
        ["remove"],
    ):
        out, err = said(db, command[0], running, waiting, 99, *command[1:], "--json", code=1)
        found = json.loads(out)
        gone = command[0] == "remove"
        assert found["changed"] == ([] if gone else [waiting])
        assert {one["id"] for one in found["left_out"]} == {
            running,
            99,
            *([waiting] if gone else []),
        }
        assert f"job {running} runs, by worker worker-x" in err
        assert "job 99 is not there" in err
    assert db.column("select id from graphile_worker.jobs") == [running]


def test_many_are_changed_once_somebody_agrees(db: Database) -> None:
    ids = [add(db, "mail", "q", key="k"), *(add(db, "mail") for _ in range(2)), add(db, "other")]
    db.rows(FAIL, [ids[0], ids[3]])
    waiting = db.rows("select * from graphile_worker.jobs where id = any (%s)", ids[1:3])
    _, err = said(db, "retry", "--all-failed", code=1)
    assert "2 jobs, id 1 to 4: retry: say --yes" in err
    assert answer(db, "retry", "--task", "mail", "--yes")["changed"] == [ids[0]]
    job = answer(db, "job", ids[0])
    assert (job["attempts"], job["key"], job["queue_name"], job["state"]) == (0, "k", "q", "ready")
    assert db.rows("select * from graphile_worker.jobs where id = any (%s)", ids[1:3]) == waiting
    assert answer(db, "fail", "--queue", "q", "--yes")["changed"] == [ids[0]]
    assert answer(db, "retry", "--all-failed", "--yes")["changed"] == [ids[0], ids[3]]
    assert answer(db, "reschedule", "--state", "ready", "--run-at", "1h", "--yes")["changed"] == ids
    assert answer(db, "complete", "--task", "mail", "--state", "failed", "--yes")["changed"] == []
    assert answer(db, "complete", "--task", "mail", "--yes")["changed"] == ids[:3]
    for args in (["retry"], ["retry", "1", "--task", "x"], ["complete", "1", "--state", "ready"]):
        assert "say which jobs" in said(db, *args, code=1)[1]
    assert "exclude each other" in said(db, "retry", "--all-failed", "--state", "ready", code=1)[1]
    assert "say what to change" in said(db, "reschedule", ids[3], code=1)[1]


def test_more_jobs_than_fit_one_transaction_are_changed(db: Database) -> None:
    db.rows("select count(graphile_worker.add_job('t')) from generate_series(1, 2500)")
    assert len(answer(db, "fail", "--task", "t", "--yes")["changed"]) == 2500
    assert len(answer(db, "retry", "--all-failed", "--yes")["changed"]) == 2500


def test_what_was_changed_before_others_were_in_the_way_is_told(db: Database) -> None:
    db.rows("select count(graphile_worker.add_job('t')) from generate_series(1, 1500)")
    holder = db.connect(autocommit=False)
    holder.execute("select from graphile_worker._private_jobs where id = 1500 for update")
    err = said(db, "fail", "--task", "t", "--yes", "--timeout", "1", code=4)[1]
    assert "1000 of 1500 jobs were changed, then: the server stopped a query" in err
    holder.rollback()
    assert len(answer(db, "jobs", "--state", "failed", "--limit", 2000)) == 1000


def test_a_terminal_is_asked(db: Database) -> None:
    db.rows(FAIL, [add(db)])
    for reply, failed in (("n", 1), ("y", 0)):
        outer, inner = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "graphile_worker.gw.cli", "retry", "--all-failed"], stdin=inner,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "GW_DSN": db.dsn},
        )  # fmt: skip
        os.write(outer, f"{reply}\n".encode())
        _, err = process.communicate(timeout=60)
        os.close(outer)
        os.close(inner)
        assert b"1 job, id 1 to 1: retry. Go on? [y/N]" in err
        assert process.returncode == failed
        assert db.value("select count(*) from graphile_worker.jobs where attempts > 0") == failed


def test_remove_takes_keys_and_a_running_job_is_not_tried_again(db: Database) -> None:
    job, running = add(db, key="a"), add(db, key="b")
    db.rows(LOCK, "w", running)
    out, err = said(db, "remove", "--key", "a", "--key", "b", "--key", "c", "--json", code=1)
    assert json.loads(out)["changed"] == [job, running]
    assert f"job {running} is running: it lost its key" in err
    assert "no job has the key c" in err
    assert db.rows("select id, key, attempts from graphile_worker.jobs") == [(running, None, 25)]
    assert "say which jobs" in said(db, "remove", code=1)[1]


def test_unlock_refuses_live_workers_and_unknown_names(db: Database) -> None:
    db.rows("select graphile_worker.heartbeat('alive-1')")
    for worker in ("alive-1", "node-1"):
        add(db)
        db.rows("select graphile_worker.get_jobs(%s, 1)", worker)
    held = "select locked_by from graphile_worker.jobs where locked_by is not null order by 1"
    assert "holds no job" in said(db, "unlock", "node-1", "nobody", code=1)[1]
    assert "is alive" in said(db, "unlock", "node-1", "alive-1", code=1)[1]
    assert db.column(held) == ["alive-1", "node-1"]
    assert answer(db, "unlock", "node-1")["workers"] == [
        {"worker_id": "node-1", "jobs": 1, "queues": 0}
    ]
    assert db.column(held) == ["alive-1"]
    assert answer(db, "unlock", "--dead", "--queues")["workers"] == []
    assert db.column(held) == ["alive-1"]
    said(db, "unlock", "alive-1", "--force")
    assert db.column(held) == []
    assert "say what to unlock" in said(db, "unlock", code=1)[1]


def test_cleanup_deletes_failed_jobs_once_somebody_agrees(db: Database) -> None:
    old, new = add(db), add(db)
    db.rows(FAIL, [old, new])
    db.rows("alter table graphile_worker._private_jobs disable trigger all")
    db.rows(
        "update graphile_worker._private_jobs set updated_at = now() - interval '31 days' where id = %s",
        old,
    )
    assert "2 jobs permanently failed" in said(db, "cleanup", "failed-jobs", code=1)[1]
    assert "'jobs' is unknown" in said(db, "cleanup", "jobs", code=1)[1]
    assert "--older-than is for failed-jobs" in said(db, "cleanup", "--older-than", "1d", code=1)[1]
    found = answer(db, "cleanup", "failed-jobs", "--older-than", "30d", "--yes")
    assert found == {"failed_jobs": 1, "queues": 0, "tasks": 0}
    assert answer(db, "cleanup", "failed-jobs", "tasks", "--yes", "--keep-task", "t")["tasks"] == 0
