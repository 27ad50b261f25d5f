"""gw history, gw failed, gw discard, and what gw job shows of jobs that ended."""

from __future__ import annotations

import json

import pytest
from sql.fetch.claims import take
from sql.history.test_partitions import shift
from support.pg import Database

from gw.program import answer, gw
from gw.test_doctor import findings
from gw.test_explain import add

pytestmark = pytest.mark.majors(13, 18)
FINISH = (
    "select * from graphile_worker.finish_jobs_with_results('w', array[%s::bigint],"
    " array['{\"sum\": 3}'::json], array[0.25])"
)


def finish(db: Database, job: int) -> int:
    db.rows(FINISH, job)
    return job


def failed(db: Database, error: str = "boom", task: str = "t") -> int:
    job = int(
        db.value(
            "select id from graphile_worker.add_job(%s, '{\"a\": 1}', max_attempts => 1)", task
        )
    )
    assert db.value("select id from graphile_worker.get_jobs('w', 1, %s)", [task]) == job
    db.rows(
        "select graphile_worker.fail_jobs('w', json_build_array(json_build_object("
        "'id', %s::bigint, 'error', %s::text, 'seconds', 2)))", job, error,
    )  # fmt: skip
    return job


def test_history_is_kept_listed_and_ended(db: Database) -> None:
    assert "no history is kept: see gw history keep" in gw(db, "history")
    text = gw(db, "history", "keep", "--for", "7d", "--payloads")
    assert text == "Keeps the history of all tasks without a setting of their own for 7 d.\n"
    assert gw(db, "history", "keep", "--task", "u", "--no-results") == (
        "Keeps the history of task u for 30 d.\n"
    )
    (everything, one) = answer(db, "history", "settings")
    assert (everything["task"], everything["keep"], everything["payloads"]) == ("*", 604800, True)
    assert (one["task"], one["results"]) == ("u", False)
    assert gw(db, "history").splitlines()[1].strip() == "no job"
    jobs = [add(db) for _ in range(3)]
    for job in jobs:
        take(db)
        finish(db, job)
    bad = failed(db)
    listed = answer(db, "history")
    assert [row["id"] for row in listed] == [bad, *reversed(jobs)]
    assert listed[-1]["result"] == {"sum": 3}
    assert listed[-1]["duration"] == 0.25
    assert [row["id"] for row in answer(db, "history", "--state", "failed")] == [bad]
    first = answer(db, "history", "--limit", "2")
    rest = answer(db, "history", "--before", str(first[-1]["id"]))
    assert [row["id"] for row in first + rest] == [bad, *reversed(jobs)]
    assert "There may be more: --before" in gw(db, "history", "--limit", "2")
    shown = gw(db, "history").splitlines()
    assert shown[0].split() == [
        "id",
        "state",
        "task",
        "queue",
        "ended",
        "took",
        "attempts",
        "worker",
        "error",
    ]
    assert "boom" in shown[1]
    assert "2.000 s" in shown[1]
    assert gw(db, "history", "stop") == "Stopped; what is recorded stays for its time.\n"
    assert "no history was kept" in gw(db, "history", "stop", code=1)


def test_a_job_that_ended_is_shown_with_its_result_and_attempts(db: Database) -> None:
    gw(db, "history", "keep", "--payloads")
    job = failed(db)
    db.rows("select graphile_worker.reschedule_jobs(array[%s::bigint], now(), attempts => 0)", job)
    take(db)
    db.rows("select graphile_worker.report_progress('w', %s, 0.4, 'copied 40 of 100')", job)
    lines = {line[:18].strip(): line[18:] for line in gw(db, "job", str(job)).splitlines()}
    assert lines["progress"] == "40%"
    assert lines["progress_message"] == "copied 40 of 100"
    finish(db, job)
    lines = {
        line[:18].strip(): line[18:]
        for line in gw(db, "job", str(job)).splitlines()
        if line[:1] != " "
    }
    assert lines["state"] == "completed"
    assert lines["result"] == "{"
    assert lines["duration"] == "0.250 s"
    assert lines["attempt_log"].startswith("1: failed, ")
    found = answer(db, "job", str(job))
    assert found["result"] == {"sum": 3}
    assert [a["outcome"] for a in found["attempt_log"]] == ["failed", "completed"]
    assert "no job 999" in gw(db, "job", "999", code=1)


def test_failed_jobs_are_listed_exported_and_discarded(db: Database) -> None:
    gw(db, "history", "keep")
    one, two, three = failed(db, "time-out of A"), failed(db, "refused"), failed(db, "refused", "u")
    assert [row["id"] for row in answer(db, "failed")] == [one, two, three]
    assert [row["id"] for row in answer(db, "failed", "--error", "TIME-out")] == [one]
    assert [row["id"] for row in answer(db, "failed", "--task", "u")] == [three]
    assert "refused" in gw(db, "failed", "--limit", "1", "--after", str(one))
    lines = [json.loads(line) for line in gw(db, "export").splitlines() if line[:1] == "{"]
    assert [line["id"] for line in lines] == [one, two, three]
    assert lines[0]["payload"] == {"a": 1}
    assert lines[0]["attempt_log"][0]["error"] == "time-out of A"
    assert gw(db, "discard", str(one), "--reason", "old") == f"Changed 1 job: {one}.\n"
    waiting = add(db)
    assert "has not failed permanently" in gw(db, "discard", str(waiting), code=1)
    assert gw(db, "discard", "--all-failed", "--yes").startswith("Changed 2 jobs")
    assert answer(db, "failed") == []
    assert [row["id"] for row in answer(db, "history", "--state", "discarded")] == [three, two, one]


def test_what_becomes_of_failed_jobs_is_set(db: Database) -> None:
    assert gw(db, "failed", "notify", "notify_ops") == (
        "When a job of any task fails permanently, a job of task notify_ops is added.\n"
    )
    gw(db, "failed", "notify", "refund", "--task", "pay")
    assert answer(db, "failed", "settings") == [
        {"failed_task": "*", "task": "notify_ops"}, {"failed_task": "pay", "task": "refund"},
    ]  # fmt: skip
    gw(db, "failed", "notify", "none")
    assert "no job is added" not in gw(db, "failed", "settings")
    assert gw(db, "failed", "keep", "90d") == (
        "Workers delete failed jobs 90 d after they failed, once an hour.\n"
    )
    assert gw(db, "failed", "keep", "forever") == "Failed jobs are kept until you delete them.\n"
    for args, why in (
        (["keep"], "needs a VALUE"), (["keep", "x"], "not a duration"), (["list", "x"], "takes no VALUE"),
        (["notify", "x", "--task", "a", "--task", "b"], "one --task"),
    ):  # fmt: skip
        assert why in gw(db, "failed", *args, code=1)


def test_records_that_nobody_drops_are_found(db: Database) -> None:
    assert findings(db, "history") == []
    db.rows("select graphile_worker.keep_history(keep => '1 day')")
    failed(db)
    assert findings(db, "history") == []
    shift(db, "5 days")
    (found,) = findings(db, "history")
    assert found.what == "the oldest record of a job is 5 d old, and records are kept for 1 d"
    db.rows("select graphile_worker.maintain_history()")
    assert findings(db, "history") == []
