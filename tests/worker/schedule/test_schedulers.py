"""Schedulers side by side on a real database add each tick once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any

import pytest
from graphile_worker.crontab import CronItem, cron_item, parse_crontab
from graphile_worker.worker import Event, Events
from graphile_worker.worker.database.protocol import Protocol
from graphile_worker.worker.schedule.crontabs import Scheduler
from support.live import work_dsn
from support.node import VERSIONS, NodeWorker
from support.pg import Database, wait_for

from worker.schedule.clocks import DAY, Clock, OverError

pytestmark = pytest.mark.majors(18)


# --- Several schedulers, on a server -------------------------------------------------------------


class Timed(Protocol):
    """The real functions, and a clock of ours."""

    def __init__(self, db: Database, clock: Clock) -> None:
        super().__init__(work_dsn(db), schema="graphile_worker")
        self.clock = clock

    async def now(self) -> datetime:
        return self.clock.now


class SleepyClock(Clock):
    """Sleeps longer than it was asked to, now and then by minutes."""

    def __init__(self, seed: int, start: str, end: str) -> None:
        super().__init__(start, end)
        self.rng = random.Random(seed)

    async def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=self.rng.choice([0, 0, 0.3, 20, 150]))
        await super().sleep(seconds)


def together(*schedulers: Coroutine[Any, Any, None]) -> None:
    async def run() -> list[Any]:
        return [*await asyncio.gather(*schedulers, return_exceptions=True)]

    assert [type(ended) for ended in asyncio.run(run())] == [OverError] * len(schedulers)


async def scheduler(db: Database, clock: Clock, items: list[CronItem], events: Events) -> None:
    protocol = Timed(db, clock)
    try:
        await Scheduler(items, protocol, events, sleep=clock.sleep).run()
    finally:
        await protocol.close()


def added(db: Database, task: str) -> list[str]:
    ticks: list[str] = db.column(
        "select jobs.payload -> '_cron' ->> 'ts' from graphile_worker._private_jobs as jobs"
        " join graphile_worker._private_tasks as tasks on tasks.id = jobs.task_id"
        " where tasks.identifier = %s order by 1",
        task,
    )
    return ticks


def test_five_schedulers_add_each_tick_once(db: Database) -> None:
    crontab = """
        */2 * * * * often ?fill=1d
        */5 9-10 * * * local ?tz=Europe/London&queue=q {a: 1}
    """
    start, end = "2026-07-01 08:00:00", "2026-07-01 10:00:30"
    told: list[Event] = []
    events = Events()
    events.on("cron:fired")(told.append)
    clocks = [SleepyClock(n, start, end) for n in range(5)]
    together(*(scheduler(db, clock, parse_crontab(crontab), events) for clock in clocks))
    ticks = added(db, "often")
    assert ticks == sorted(set(ticks))
    assert len(ticks) == 60
    local = added(db, "local")
    assert local == sorted(set(local))
    assert len(local) == 23, "the first, of 08:00, was before the start"
    assert db.value("select count(*) from graphile_worker.jobs") == 83
    assert len(told) == 83


def test_five_schedulers_fill_one_gap_together(db: Database) -> None:
    db.rows(
        "insert into graphile_worker._private_known_crontabs (identifier, known_since, last_execution)"
        " values ('a', '2026-01-01 00:00+00', '2026-01-01 06:00+00')"
    )
    items = [cron_item("* * * * *", "a", fill="1d")]
    clocks = [Clock(DAY + f"10:00:0{n}", DAY + "10:00:30") for n in range(5)]
    together(*(scheduler(db, clock, items, Events()) for clock in clocks))
    ticks = added(db, "a")
    assert ticks == [f"2026-01-01T{n // 60:02}:{n % 60:02}:00.000Z" for n in range(361, 601)]


@pytest.mark.parametrize("version", VERSIONS)
def test_node_and_python_fill_one_gap_together(db: Database, version: str) -> None:
    crontab = "* * * * * tick ?id=every&fill=1d {a:1}\n*/2 * * * * tick ?id=other&fill=1d"
    db.rows(
        "insert into graphile_worker._private_known_crontabs (identifier, known_since, last_execution)"
        " select name, now() - interval '1 day', date_trunc('minute', now()) - interval '12 hours'"
        " from unnest(array['every', 'other']) as name"
    )

    def filled_to(interval: str) -> bool:
        reached: bool = db.value(
            "select bool_and(last_execution > date_trunc('minute', now()) - %s::interval)"
            " from graphile_worker._private_known_crontabs",
            interval,
        )
        return reached

    told: list[Event] = []
    events = Events()
    events.on("cron:fired")(told.append)

    async def python() -> None:
        protocol = Protocol(work_dsn(db), schema="graphile_worker")
        crons = [Scheduler(parse_crontab(crontab), protocol, events) for _ in range(2)]
        tasks = [asyncio.create_task(cron.run()) for cron in crons]
        try:
            await asyncio.to_thread(wait_for, lambda: filled_to("2 minutes"), "the gap is filled")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await protocol.close()

    with NodeWorker(db, version, crontab=crontab):
        wait_for(lambda: filled_to("719 minutes"), "node has begun")
        asyncio.run(python())
        wait_for(
            lambda: db.value("select count(*) from graphile_worker.jobs") == 0, "all has been run"
        )
    for plain, most in ((False, 720), (True, 360)):
        ticks = db.column(
            "select payload -> '_cron' ->> 'ts' from ran where ((payload -> 'a') is null) = %s"
            " order by 1",
            plain,
        )
        assert ticks == sorted(set(ticks))
        assert most - 2 <= len(ticks) <= most + 2, "but for what was due when the test ended"
    assert 0 < len(told) < 1078, "each had a part in it"
