"""Workers add the jobs of schedules: each run once in a fleet, and changes are heard of at once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from graphile_worker.worker import Event, Events, context
from support.live import once, running, work_dsn
from support.pg import Database, wait_for

pytestmark = pytest.mark.majors(13, 18)

SET = "select graphile_worker.schedule('s', 'work', '* * * * *')"
#: Nothing but the clock lets a run come; what a test can do is to say that it is due.
DUE = """
    update graphile_worker._private_schedules
    set next_runs[1] = date_trunc('minute', clock_timestamp()) where name = 's'
"""
TELL = "select pg_notify('jobs:control', '')"


def test_a_fleet_adds_each_run_once_and_hears_of_schedules_at_once(db: Database) -> None:
    events = Events()
    fired: list[Event] = []
    events.on("cron:fired")(fired.append)
    ran: list[Any] = []

    async def work(payload: Any) -> None:
        ran.append((context().job.run_at, payload["_cron"]))

    with running({"work": work}, db, events=events), running({"work": work}, db, events=events):
        db.rows(SET)
        db.rows(DUE)
        db.rows(TELL)
        wait_for(lambda: ran, "it was added and ran", 10)
        wait_for(lambda: db.value("select next_runs[1] > now() from graphile_worker.schedules"))
    ats = [at for at, _ in ran]
    assert len(ats) == len(set(ats)), "each run came once"
    assert [event.data["identifier"] for event in fired if event.data] == ["s"] * len(ran)


@pytest.mark.majors(18)
def test_a_worker_wakes_at_the_next_minute(db: Database) -> None:
    """No notification comes: it knows when the next run is due."""
    ran: list[Any] = []

    async def work(payload: Any) -> None:
        ran.append(context().job.run_at)

    db.rows(SET)
    due = db.value("select next_runs[1] from graphile_worker.schedules")
    with running({"work": work}, db, listen=False, poll_interval=1):
        wait_for(lambda: ran, "the minute came", 75)
    assert ran[0] == due
    assert db.value("select clock_timestamp()") - due < timedelta(seconds=60)


def test_a_run_once_adds_nothing(db: Database) -> None:
    async def work(payload: Any) -> None:
        pass

    db.rows(SET)
    db.rows(DUE)
    once(db, {"work": work}, dsn=work_dsn(db))
    assert db.value("select last_run_at from graphile_worker.schedules") is None
