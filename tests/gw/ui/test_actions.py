"""What each action asks and does."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
from graphile_worker.gw.ui.actions import ACTIONS
from support.pg import Database

from gw.ui.site import G, add, claim, fail, fill, silence, site

pytestmark = pytest.mark.majors(18)
STATE = f"select state from {G}.get_job(%s)"

#: For each action: its address, what is filled in, what it says, and what is true then.
CASES: dict[str, tuple[str, dict[str, str], str, str, Any]] = {
    "add": (
        "add",
        {"task": "new", "payload": '{"a": 1}', "queue": "x", "priority": "-3", "key": "k",
         "run_at": "1h", "max_attempts": "2"},
        "Added job", f"select task_identifier, queue_name, priority, key, max_attempts, run_at > now() from {G}.jobs where task_identifier = 'new'",
        ("new", "x", -3, "k", 2, True),
    ),
    "retry": ("retry?id={failed}", {}, "Retried job", f"select attempts from {G}.jobs where id = {{failed}}", (0,)),
    "run-now": ("run-now?id={scheduled}", {}, "Made due now", f"select run_at <= now() from {G}.jobs where id = {{scheduled}}", (True,)),
    "reschedule": ("reschedule?id={ready}", {"run_at": "2h", "priority": "5"}, "Rescheduled", f"select priority, run_at > now() + interval '1 hour' from {G}.jobs where id = {{ready}}", (5, True)),
    "cancel": ("cancel?id={ready}", {"reason": "why not"}, "Cancelled job", f"select state, error from {G}.job_history where job_id = {{ready}}", ("cancelled", "Cancelled by postgres: why not")),
    "fail": ("fail?id={ready}", {"reason": "broken"}, "Failed job", f"select last_error from {G}.failed_jobs where id = {{ready}}", ("broken",)),
    "complete": ("complete?id={ready}", {}, "Completed job", f"select state from {G}.job_history where job_id = {{ready}}", ("completed",)),
    "discard": ("discard?id={failed}", {"reason": "old"}, "Discarded job", f"select bool_or(state = 'discarded') from {G}.job_history where job_id = {{failed}}", (True,)),
    "pause": ("pause?scope=queue&name=q", {"until": "1h", "reason": "r"}, "Queue q is paused", f"select reason, until > now() from {G}.pauses where name = 'q'", ("r", True)),
    "resume": ("resume?scope=queue&name=elsewhere", {}, "Queue elsewhere is resumed", f"select count(*) from {G}.pauses", (0,)),
    "limit": ("limit", {"scope": "queue", "name": "q", "rate": "5", "per": "1m"}, "Queue q is limited", f"select rate from {G}.limits where name = 'q'", (5,)),
    "unlimit": ("unlimit?scope=task&name=t", {}, "has no limit of its own", f"select count(*) from {G}.limits", (0,)),
    "unlock-worker": ("unlock-worker?worker=w", {}, "What worker w held is unlocked", f"select locked_by from {G}.jobs where id = {{running}}", (None,)),
    "run-schedule": ("run-schedule?schedule=nightly", {}, "Added job", f"select count(*) from {G}.jobs where task_identifier = 'good'", (1,)),
    "pause-schedule": ("pause-schedule?schedule=nightly", {}, "is paused", f"select is_paused from {G}.schedules", (True,)),
    "resume-schedule": ("resume-schedule?schedule=nightly", {}, "is resumed", f"select is_paused from {G}.schedules", (False,)),
    "end-schedule": ("end-schedule?schedule=nightly", {}, "is ended", f"select count(*) from {G}.schedules", (0,)),
}  # fmt: skip
ELSEWHERE = {"retry-failed", "discard-failed", "unlock-dead", "fix"}


def test_every_action_is_tested() -> None:
    assert set(CASES) | ELSEWHERE == set(ACTIONS)


def test_each_action_asks_first_then_does_it_and_leaves_a_line(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "graphile_worker.audit")
    for name, (path, fields, said, query, effect) in CASES.items():
        for table in ("_private_jobs", "_private_limits", "_private_pauses", "_private_schedules"):
            db.rows(f"delete from {G}.{table}")
        db.rows(f"select {G}.force_unlock_workers(array['w'])")
        jobs = fill(db)
        before = db.rows(query.format(**jobs))
        here = site(db)
        here.page(f"/queue/do/{path.format(**jobs)}")
        assert db.rows(query.format(**jobs)) == before, f"{name}: a page that asks does nothing"
        assert said in here.act(f"/queue/do/{path.format(**jobs)}", **fields), name
        assert db.rows(query.format(**jobs)) == [effect], name
    lines = [record.getMessage() for record in caplog.records]
    assert [re.findall(r'"action": "([^"]+)"', line)[0] for line in lines] == list(CASES)
    assert all('"user": "local"' in line and '"database": "queue"' in line for line in lines)
    assert not any('{"a"' in line for line in lines), "payloads stay out of the log"


def _failed(db: Database, task: str, error: str) -> int:
    job = add(db, task, max_attempts=1)
    assert claim(db) == [job]
    fail(db, job, error)
    return job


def test_many_failed_jobs_are_retried_or_discarded_as_far_as_they_were_shown(db: Database) -> None:
    boom = [_failed(db, "a", f"Boom {n}") for n in range(3)]
    other, elsewhere = _failed(db, "a", "other"), _failed(db, "b", "boom")
    here = site(db)
    path = "/queue/do/retry-failed?task=a&error=boom"
    assert "3 failed jobs with task &#39;a&#39;, error &#39;boom&#39; will run now" in here.page(
        path
    )
    asked = here.page(path)
    later = _failed(db, "a", "boom later")
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', asked))
    assert here.post("/queue/do/retry-failed", csrf=False, data=hidden).status_code == 303
    waiting = f"select id from {G}.jobs where attempts = 0 order by id"
    assert db.column(waiting) == boom, "not what failed after the page was shown"
    assert here.act("/queue/do/discard-failed", reason="old") == "Discarded 3 jobs."
    assert db.column(f"select id from {G}.jobs order by id") == boom
    assert {other, elsewhere, later}.isdisjoint(db.column(f"select id from {G}.jobs"))
    assert here.act("/queue/do/discard-failed") == "Discarded 0 jobs."


def test_what_dead_workers_hold_is_unlocked(db: Database) -> None:
    for path in ("unlock-dead", "fix"):
        job = add(db)
        assert claim(db, f"dead {path}") == [job]
        silence(db)
        here = site(db)
        here.act(f"/queue/do/{path}")
        assert db.value(f"select locked_by from {G}.jobs where id = %s", job) is None
        db.rows(f"delete from {G}._private_jobs")


@pytest.mark.parametrize(
    ("action", "fields", "problem"),
    [
        ("reschedule", {"run_at": "tomorrow"}, "run at"),
        ("reschedule", {"priority": "99999"}, "out of range"),
        ("reschedule", {}, "say what to change"),
        ("retry", {"id": "x"}, "id"),
        ("add", {"task": ""}, "identifier"),
        ("add", {"task": "t", "payload": "{"}, "no json"),
        ("add", {"task": "t", "max_attempts": "0"}, "max attempts"),
        ("pause", {"scope": "queue"}, "do not fit"),
        ("pause", {"scope": "nosuch", "name": "x"}, "do not fit"),
        ("limit", {"scope": "task", "name": "t"}, "limit"),
        ("limit", {"scope": "task", "name": "t", "rate": "1", "per": "soon"}, "not a duration"),
        ("unlock-worker", {}, "which worker"),
        ("run-schedule", {"schedule": "nosuch"}, "schedule"),
        ("end-schedule", {"schedule": "nosuch"}, "no schedule"),
        ("resume", {"scope": "task", "name": "nosuch"}, "was not paused"),
        ("unlimit", {"scope": "task", "name": "nosuch"}, "has no limit"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_the_reason_and_changes_nothing(
    db: Database, action: str, fields: dict[str, str], problem: str
) -> None:
    job, here = add(db), site(db)
    here.page("/queue/")
    before = db.rows(f"select * from {G}.jobs")
    found = here.post(f"/queue/do/{action}", data={"id": str(job), **fields})
    assert found.status_code in (400, 409), found.text
    (shown,) = re.findall(r'role="alert">([^<]*)<', found.text)
    assert problem in shown.lower()
    assert db.rows(f"select * from {G}.jobs") == before


def test_a_job_that_changed_meanwhile_is_left_alone_and_said(db: Database) -> None:
    job, here = add(db), site(db)
    here.page(f"/queue/do/complete?id={job}")
    assert claim(db) == [job]
    found = here.post("/queue/do/complete", data={"id": str(job)})
    assert found.status_code == 409
    assert "nothing was changed" in found.text
    assert db.column(f"select locked_by from {G}.jobs") == ["w"]
