"""gw pause, resume, limit, cancel and schedule; and what explain and doctor say of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from graphile_worker.gw.explain import explain
from support.pg import Database

from gw.program import answer, gw, queue, said
from gw.test_doctor import findings
from gw.test_explain import add, reasons, take, verdict, worker

pytestmark = pytest.mark.majors(13, 18)


def test_a_pause_is_set_shown_and_ended(db: Database) -> None:
    add(db, queue="tenant-1"), add(db, queue="tenant-2"), add(db, queue="tenants")
    text = gw(db, "pause", "queue", "tenant-*", "--until", "1h", "--reason", "migration")
    assert text.startswith("Paused the queue tenant-* until ")
    assert "(in 1 h); 2 waiting jobs." in text
    assert (
        gw(db, "pause", "task", "t") == "Paused the task t until it is resumed; 3 waiting jobs.\n"
    )
    assert gw(db, "pause", "all") == "Paused everything until it is resumed; 3 waiting jobs.\n"
    shown = gw(db, "pauses")
    assert [line.split()[:2] for line in shown.splitlines()[1:]] == [
        ["all", "*"], ["queue", "tenant-*"], ["task", "t"],
    ]  # fmt: skip
    assert "migration" in shown
    (everything, tenants, _) = answer(db, "pauses")
    assert (everything["until"], tenants["reason"], tenants["paused_by"]) == (
        None,
        "migration",
        "postgres",
    )
    for args in (["queue", "tenant-*"], ["task", "t"], ["all"]):
        assert gw(db, "resume", *args) == "Resumed.\n"
    assert gw(db, "pauses").splitlines()[1].strip() == "nothing is paused"
    assert "was not paused by this name" in gw(db, "resume", "queue", "tenant-1", code=1)


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["pause", "queue"], "pause queue needs a name"),
        (["pause", "all", "x"], "pause all takes no name"),
        (["resume", "task"], "resume task needs a name"),
        (["limit", "task", "t"], "limits nothing"),
        (["limit", "task", "t", "--rate", "5"], "do not go together"),
        (["limit", "task", "t", "--remove", "--rate", "5"], "--remove takes no numbers"),
        (["limit", "task", "t", "--remove"], "has no limit of its own"),
        (["cancel"], "say which jobs"),
        (["cancel", "1", "--task", "t"], "say which jobs"),
        (["schedule", "set", "s"], "needs NAME, TASK and CRON"),
        (["schedule", "end"], "schedule end needs a NAME"),
        (["schedule", "end", "s"], "there is no schedule s"),
        (["schedule", "run", "s"], 'There is no schedule "s"'),
        (["schedule", "pause", "s", "t"], "takes a NAME only"),
        (["schedule", "list", "s"], "takes no NAME"),
        (["schedule", "list", "--crontab", "/nowhere"], "crontab /nowhere cannot be read"),
        (["schedule", "set", "s", "t", "at noon"], "does not have five fields"),
        (["schedule", "set", "s", "t", "@daily", "--payload", "{"], "the payload is no JSON"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_done_is_named(db: Database, args: list[str], named: str) -> None:
    assert named in gw(db, *args, code=1)
    assert db.value("select count(*) from graphile_worker.pauses") == 0


def test_a_limit_is_set_shown_and_removed(db: Database) -> None:
    text = gw(db, "limit", "queue", "tenant-*", "--max-running", "1", "--rate", "90", "--per", "1m")
    assert text == "Limited the queue tenant-*: 1 at once; 90 in 1 min, 1 together.\n"
    for name in ("tenant-1", "tenant-2"):
        add(db, queue=name)
    take(db, "w1", 2)
    shown = gw(db, "limits")
    assert "1 at once; 90 in 1 min, 1 together" in shown
    assert "tenant-1" in shown
    found = answer(db, "limits")
    assert [each["running"] for each in found["limits"]] == [2]
    assert [(each["name"], each["slots"]) for each in found["names"]] == [
        ("tenant-1", 0),
        ("tenant-2", 0),
    ]
    assert gw(db, "limit", "queue", "tenant-*", "--remove") == "Removed.\n"


def test_each_reason_of_a_control_is_named(db: Database) -> None:
    worker(db)
    job = add(db, queue="tenant-1")
    assert verdict(db, job) == "nothing"
    db.rows("select graphile_worker.pause_queue('tenant-*', now() + interval '1 hour', 'moving')")
    db.rows("select graphile_worker.pause_task('t')")
    db.rows("select graphile_worker.pause_all()")
    found = reasons(db, job)
    assert [code for code in found if "paused" in code] == [
        "all_paused",
        "queue_paused",
        "task_paused",
    ]
    assert "its queue is paused (by the name tenant-*) since" in found["queue_paused"]
    assert "moving; it ends in" in found["queue_paused"]
    assert found["all_paused"].endswith("`gw resume all` resumes it")
    assert found["task_paused"].endswith("`gw resume task 't'` resumes it")
    assert verdict(db, job) == "all_paused"
    for call in ("resume_queue('tenant-*')", "resume_task('t')", "resume_all()"):
        db.rows(f"select graphile_worker.{call}")
    db.rows("select graphile_worker.set_limit('queue', 'tenant-*', 2)")
    db.rows("select graphile_worker.set_limit('task', 't', rate => 2, per => '1 hour', burst => 2)")
    later = [add(db, queue="tenant-1", after="0 s") for _ in range(2)]
    take(db, "w1", 2)
    found = reasons(db, later[1])
    assert found["queue_limit"].startswith(
        "2 jobs of its queue tenant-1 run, as many as the limit of the queue tenant-* allows"
    )
    assert "the limit of the task t allows the next start of its task t in" in found["task_rate"]
    assert "queue_locked" not in found
    assert verdict(db, later[1]) == "queue_limit"
    db.rows("select graphile_worker.remove_limit('task', 't')")
    db.rows("select graphile_worker.set_limit('task', 't', 2)")
    assert "task_limit" in reasons(db, later[1])


def test_on_an_older_schema_the_reasons_that_it_has_are_named(db: Database) -> None:
    job = add(db)
    old = queue(db)
    old.version = "1.0.0"
    db.rows("select graphile_worker.pause_all()")
    assert explain(old, job).verdict == "no_worker"


def test_doctor_finds_what_waits_for_controls_for_long(db: Database) -> None:
    worker(db, tasks=["t", "u"])
    for task, name in (("t", "q"), ("u", None), ("u", None)):
        add(db, task, queue=name, after="-10 min")
    assert findings(db, "pauses", "limits", "schedules") == []
    db.rows("select graphile_worker.pause_queue('q*', reason := 'x')")
    db.rows("select graphile_worker.pause_task('u', until := now() + interval '1 hour')")
    (found,) = findings(db, "pauses")
    assert "queue q* has been paused for" in found.what
    assert "1 due job of it waits, the oldest for 10 min" in found.what
    assert (found.why, found.fix) == ("postgres paused it: x", "`gw resume queue 'q*'`")
    db.rows("select graphile_worker.resume_task('u'), graphile_worker.set_limit('task', '*', 1)")
    take(db, "w1", 5)
    (found,) = findings(db, "limits")
    assert found.what == "1 job of the task u, due for 10 min by now, waits for its limit"
    assert (found.why, found.fix) == ("1 of 1 run", "if that is too little: `gw limit task '*'`")
    db.rows("select graphile_worker.set_limit('task', '*', rate => 1, per => '1 day')")
    db.rows(
        "update graphile_worker._private_limit_states set next_start_at = now() + interval '1 h'"
    )
    (found,) = findings(db, "limits")
    assert found.why == "its rate allows no more starts now"
    db.rows("select graphile_worker.schedule('s', 't', '* * * * *')")
    db.rows("select graphile_worker.schedule('fine', 't', '@daily')")
    assert findings(db, "schedules") == []
    db.rows(
        "update graphile_worker._private_schedules set next_runs[1] = now() - interval '1 hour' where name = 's'"
    )
    (found,) = findings(db, "schedules")
    assert "the schedule s was due 1 h ago, and no worker added its job" in found.what
    db.rows("update graphile_worker._private_schedules set last_error = 'no' where name = 's'")
    (found,) = findings(db, "schedules")
    assert found.what == "the last run of the schedule s was refused: no"


def test_jobs_are_cancelled_by_id_key_and_filter(db: Database) -> None:
    worker(db)
    running = add(db)
    take(db, "w1")
    of_node = add(db)
    take(db, "node")
    waiting = [add(db) for _ in range(3)]
    db.rows("select graphile_worker.add_job('t', job_key := 'k')")
    out, err = said(
        db, "cancel", running, of_node, waiting[0], 99999, "--key", "k", "--key", "no", "--reason", "r",
        code=1,
    )  # fmt: skip
    assert out == "Cancelled 2 waiting jobs, and told the workers of 1 running job to stop.\n"
    assert f"job {of_node} runs in a worker that cannot be told to stop it (Node's)" in err
    assert "job 99999 is not there" in err
    assert "no job has the key no" in err
    assert db.value("select last_error from graphile_worker.jobs where id = %s", running) == (
        "Cancelled by postgres: r"
    )
    refused = gw(db, "cancel", "--task", "t", code=1)
    assert "4 jobs, id 1 to" in refused
    assert "say --yes to do so; nothing was changed" in refused
    found = answer(db, "cancel", "--task", "t", "--state", "ready", "--yes")
    assert found["outcomes"] == {str(job): "cancelled" for job in waiting[1:]}
    assert gw(db, "cancel", "--task", "nosuch", "--yes") == "Cancelled 0 waiting jobs.\n"


def test_schedules_are_set_listed_and_ended(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = gw(
        db, "schedule", "set", "nightly", "report", "30 1 * * MON-FRI", "--tz", "Europe/London",
        "--payload", '{"a": 1}', "--queue", "q", "--priority", "2", "--max-attempts", "3", "--key", "k",
        "--catch-up", "2d", "--overlap", "skip",
    )  # fmt: skip
    assert text.startswith("Set the schedule nightly; it is due next at ")
    row = db.row(
        "select task, cron, tz, payload, queue_name, priority, max_attempts, job_key,"
        " catch_up::text, overlap from graphile_worker.schedules"
    )
    assert row == (
        "report", "30 1 * * MON-FRI", "Europe/London", {"a": 1}, "q", 2, 3, "k", "48:00:00", "skip",
    )  # fmt: skip
    assert gw(db, "schedule", "set", "never", "t", "0 0 30 2 *").endswith("it is never due.\n")
    crontab, tasks = tmp_path / "crontab", tmp_path / "scheduled_tasks.py"
    crontab.write_text("0 4 * * * rollup ?id=daily_rollup\n")
    tasks.write_text(
        "from graphile_worker import Tasks\ntasks = Tasks()\n\n"
        "@tasks.cron('*/5 * * * *')\ndef sweep() -> None: ...\n"
    )
    db.rows("select * from graphile_worker.register_crontabs(array['old', 'daily_rollup'])")
    listed = answer(
        db, "schedule", "list", "--crontab", crontab, "--tasks", "scheduled_tasks:tasks"
    )
    assert [(each["name"], each["kind"], each["task"], each["state"]) for each in listed] == [
        ("never", "database", "t", "active"), ("nightly", "database", "report", "active"),
        ("daily_rollup", "crontab", "rollup", "active"), ("sweep", "tasks", "sweep", "new"),
        ("old", "a worker", None, "known"),
    ]  # fmt: skip
    assert [len(each["next_runs"]) for each in listed] == [0, 3, 3, 3, 0]
    shown = gw(db, "schedule", "list")
    assert "nightly" in shown
    assert "Europe/London" in shown
    assert gw(db, "schedule", "pause", "nightly").startswith("Paused")
    assert answer(db, "schedule", "list")[1]["state"] == "paused"
    assert gw(db, "schedule", "resume", "nightly").startswith(
        "Resumed the schedule nightly; it is due"
    )
    added = answer(db, "schedule", "run", "nightly")["job_id"]
    assert (
        db.value("select task_identifier from graphile_worker.jobs where id = %s", added)
        == "report"
    )
    assert "its overlap is skip" in gw(db, "schedule", "run", "nightly", code=1)
    assert gw(db, "schedule", "end", "nightly") == "Ended; the jobs that it has added stay.\n"
