"""The scheduler: each tick once, whatever clocks, hosts and other schedulers do."""

from __future__ import annotations

import asyncio
import itertools
import logging
from datetime import datetime, timedelta
from typing import Any

import pytest
from graphile_worker.crontab import CronItem, cron_item
from graphile_worker.errors import AccessDenied, InvalidCrontab, InvalidQueueName
from graphile_worker.worker import Event, Events
from graphile_worker.worker.schedule.crontabs import Scheduler

from worker.schedule.clocks import DAY, Clock, OverError, utc

pytestmark = pytest.mark.majors(18)


HOURS = timedelta(hours=1)


class FakeDatabase:
    """The two functions and the time, in memory; each call may take some time."""

    def __init__(self, clock: Clock, call: timedelta = timedelta(0)) -> None:
        self.clock, self.call = clock, call
        self.known: dict[str, list[Any]] = {}
        self.added: list[tuple[datetime, dict[str, Any]]] = []
        self.refused: dict[str, Exception] = {}

    async def register_crontabs(
        self, identifiers: list[str]
    ) -> list[tuple[str, datetime, datetime | None]]:
        for each in identifiers:
            self.known.setdefault(each, [self.clock.now, None])
        return [(each, *self.known[each]) for each in identifiers]

    async def add_cron_jobs(self, at: datetime, jobs: list[dict[str, Any]]) -> list[str]:
        self.clock.now += self.call
        assert at <= self.clock.now
        for job in jobs:
            if job["identifier"] in self.refused:
                raise self.refused[job["identifier"]]
        fired = []
        for job in jobs:
            last = self.known[job["identifier"]]
            if last[1] is None or last[1] < at:
                last[1] = at
                self.added.append((self.clock.now, job))
                fired.append(job["identifier"])
        return fired

    async def now(self) -> datetime:
        return self.clock.now

    def ticks(self, identifier: str = "a") -> list[str]:
        """Return hour and minute of what was added; a star is for what came late."""
        crons = [
            job["payload"]["_cron"] for _, job in self.added if job["identifier"] == identifier
        ]
        return [cron["ts"][11:16] + "*" * cron["backfilled"] for cron in crons]


def simulate(
    *items: CronItem, clock: Clock, database: FakeDatabase | None = None, **known: str
) -> FakeDatabase:
    """Run a scheduler until the clock's end; ``known`` says what was added before it started."""
    database = database or FakeDatabase(clock)
    for identifier, last in known.items():
        database.known[identifier] = [utc("2020-01-01"), utc(last)]
    with pytest.raises(OverError):
        asyncio.run(Scheduler(items, database, Events(), sleep=clock.sleep).run())
    return database


def jump(start: str, end: str, at: str, by: timedelta) -> Clock:
    return Clock(start, end, **{at: by})


HOURLY = cron_item("0 * * * *", "a")


# --- What is due ---------------------------------------------------------------------------------


def test_items_are_added_in_their_minute_and_not_before_or_twice() -> None:
    clock = Clock(DAY + "09:58:20", DAY + "10:04:30")
    database = simulate(
        cron_item("*/2 * * * *", "a"), cron_item("0 10 * * *", "b", payload={"x": 1}), clock=clock
    )
    assert [str(at)[11:19] for at, _ in database.added] == [
        "10:00:00", "10:00:00", "10:02:00", "10:04:00"
    ]  # fmt: skip
    assert database.added[1][1] == {
        "identifier": "b", "task": "b",
        "payload": {"x": 1, "_cron": {"ts": "2026-01-01T10:00:00.000Z", "backfilled": False}},
    }  # fmt: skip
    assert clock.sleeps == [40.0, 60.0, 60.0, 60.0, 60.0, 60.0, 60.0]


def test_a_job_has_all_that_its_item_says() -> None:
    item = cron_item(
        "* * * * *", "t", id="a", max_attempts=3, queue_name="q", priority=-1, job_key="k",
        job_key_mode="preserve_run_at", flags=["f"], payload={"_cron": 1},
    )  # fmt: skip
    database = simulate(item, clock=Clock(DAY + "09:59", DAY + "10:00:30"))
    ((_, job),) = database.added
    assert {**job, "payload": sorted(job["payload"]["_cron"])} == {
        "identifier": "a", "task": "t", "payload": ["backfilled", "ts"], "queue_name": "q",
        "max_attempts": 3, "priority": -1, "job_key": "k", "job_key_mode": "preserve_run_at",
        "flags": ("f",),
    }  # fmt: skip


def test_those_who_listen_are_told_of_what_was_added_and_by_whom() -> None:
    events, told, ids = Events(), [], itertools.count(1)
    events.on("cron:fired")(lambda event: told.append(event))
    clock = Clock(DAY + "09:59", DAY + "10:01:30")
    database = FakeDatabase(clock)
    database.known["b"] = [utc("2020-01-01"), utc(DAY + "10:00")]
    items = [cron_item("* * * * *", "a"), cron_item("* * * * *", "b")]
    cron = Scheduler(items, database, events, sleep=clock.sleep, worker_id=lambda: f"w{next(ids)}")
    with pytest.raises(OverError):
        asyncio.run(cron.run())
    assert told == [
        Event("cron:fired", worker, data={"identifier": name, "at": at, "backfilled": False})
        for worker, name, at in (
            ("w1", "a", utc(DAY + "10:00")),
            ("w2", "a", utc(DAY + "10:01")),
            ("w3", "b", utc(DAY + "10:01")),
        )
    ]


def test_without_items_there_is_nothing_to_do() -> None:
    asyncio.run(Scheduler([], FakeDatabase(Clock(DAY + "10:00", DAY + "10:00")), Events()).run())


def test_two_items_with_one_identifier_are_refused() -> None:
    with pytest.raises(InvalidCrontab, match="already used"):
        Scheduler([HOURLY, HOURLY], FakeDatabase(Clock(DAY + "10:00", DAY + "10:00")), Events())


# --- Backfill ------------------------------------------------------------------------------------


def test_what_was_missed_within_the_fill_is_added_first_in_the_order_of_time() -> None:
    items = [
        cron_item("*/20 * * * *", "a", fill="1h"),
        cron_item("30 * * * *", "b", fill="1d"),
        cron_item("*/10 * * * *", "c"),
    ]
    database = simulate(
        *items, clock=Clock(DAY + "10:02", DAY + "10:21"),
        a=DAY + "03:00", b=DAY + "07:30", c=DAY + "03:00",
    )  # fmt: skip
    assert database.ticks("a") == ["09:20*", "09:40*", "10:00*", "10:20"]
    assert database.ticks("b") == ["08:30*", "09:30*"]
    assert database.ticks("c") == ["10:10", "10:20"]
    times = [job["payload"]["_cron"]["ts"] for _, job in database.added]
    assert times == sorted(times)


def test_what_is_new_is_not_filled() -> None:
    item = cron_item("* * * * *", "a", fill="1w")
    assert simulate(item, clock=Clock(DAY + "10:00:10", DAY + "10:01:10")).ticks() == ["10:01"]


def test_the_minute_of_the_start_belongs_to_the_fill() -> None:
    clock, item = Clock(DAY + "10:00:00", DAY + "10:00:50"), cron_item("* * * * *", "a", fill="1h")
    assert simulate(item, clock=clock, a=DAY + "09:59").ticks() == ["10:00*"]


def test_what_is_known_but_was_never_added_is_filled_since_it_is_known() -> None:
    clock = Clock(DAY + "10:02", DAY + "10:02:30")
    database = FakeDatabase(clock)
    database.known["a"] = [utc(DAY + "08:30"), None]
    item = cron_item("0 * * * *", "a", fill="1w")
    assert simulate(item, clock=clock, database=database).ticks() == ["09:00*", "10:00*"]


def test_a_long_backfill_makes_nothing_come_late_that_is_due_meanwhile() -> None:
    clock = Clock(DAY + "10:00:30", DAY + "10:05:30")
    database = FakeDatabase(clock, call=timedelta(seconds=0.05))
    items = [cron_item("* * * * *", "a", fill="1d"), cron_item("* * * * *", "b")]
    simulate(*items, clock=clock, database=database, a="2025-12-31 10:00", b=DAY + "10:00")
    assert len(database.ticks("a")) == 1440 + 5
    assert [tick.rstrip("*") for tick in database.ticks("b")] == [
        "10:01", "10:02", "10:03", "10:04", "10:05"
    ]  # fmt: skip
    for at, job in database.added[-3:]:
        assert at - datetime.fromisoformat(job["payload"]["_cron"]["ts"]) < timedelta(seconds=1)


# --- Clocks --------------------------------------------------------------------------------------


def test_a_host_that_slept_adds_the_last_minutes_and_what_the_fill_covers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    items = [
        cron_item("*/2 * * * *", "a"),
        cron_item("*/30 * * * *", "b", fill="1h"),
        cron_item("30 * * * *", "c"),
    ]
    clock = jump(DAY + "09:59", DAY + "12:04:30", DAY + "10:01", 2 * HOURS)
    with caplog.at_level(logging.WARNING, "graphile_worker"):
        database = simulate(*items, clock=clock)
    assert database.ticks("a") == ["10:00", "11:58*", "12:00*", "12:02", "12:04"]
    assert database.ticks("b") == ["10:00", "11:30*", "12:00*"]
    assert database.ticks("c") == []
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "crontab a", "crontab b", "crontab c"
    ]  # fmt: skip
    assert "ticks from 2026-01-01 10:30:00+00:00" in caplog.records[2].message


def test_a_loop_that_was_blocked_for_a_moment_loses_nothing() -> None:
    clock = jump(DAY + "09:59", DAY + "10:06", DAY + "10:01", timedelta(minutes=3, seconds=50))
    assert simulate(cron_item("* * * * *", "a"), clock=clock).ticks() == [
        "10:00", "10:01*", "10:02*", "10:03*", "10:04", "10:05", "10:06"
    ]  # fmt: skip


def test_a_clock_put_back_adds_nothing_twice_and_is_no_busy_loop() -> None:
    clock = jump(DAY + "09:59", DAY + "11:00:30", DAY + "10:05", -2 * HOURS)
    items = [cron_item("*/5 * * * *", "a"), cron_item("30 * * * *", "b")]
    database = simulate(*items, clock=clock)
    ticks = database.ticks("a")
    assert ticks == ["10:00"] + [f"10:{n:02}" for n in range(5, 60, 5)] + ["11:00"]
    assert database.ticks("b") == ["08:30", "09:30", "10:30"], "which it had not reached"
    assert len(clock.sleeps) <= 180 + 10
    assert max(clock.sleeps) == 60.0


def test_a_clock_that_was_wrong_for_a_while_loses_nothing_when_it_is_right_again() -> None:
    clock = Clock(
        DAY + "09:58", DAY + "11:00:30", **{DAY + "10:01": 2 * HOURS, DAY + "12:03": -2 * HOURS}
    )
    database = simulate(cron_item("30 * * * *", "a"), clock=clock)
    assert database.ticks() == ["10:30"]


def test_a_clock_that_trembles_around_a_minute_adds_it_once_and_hardly_late() -> None:
    clock = Clock(
        DAY + "09:59", DAY + "10:01:30",
        **{DAY + "10:00": timedelta(seconds=-0.4), DAY + "10:00:00.01": timedelta(seconds=-0.2)},
    )  # fmt: skip
    database = simulate(cron_item("* * * * *", "a"), clock=clock)
    assert database.ticks() == ["10:00", "10:01"]
    assert database.added[0][0] - utc(DAY + "10:00") < timedelta(seconds=0.1)
    assert min(clock.sleeps) >= 0.05


def test_what_was_added_for_a_time_to_come_is_told(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock(DAY + "09:59", DAY + "11:00:30")
    with caplog.at_level(logging.WARNING, "graphile_worker"):
        database = simulate(HOURLY, clock=clock, a=DAY + "10:00")
    assert database.ticks() == ["11:00"]
    with caplog.at_level(logging.WARNING, "graphile_worker"):
        simulate(HOURLY, clock=Clock(DAY + "09:00", DAY + "09:01"), a="2030-01-01")
    assert "crontab a was added for 2030-01-01" in caplog.text


@pytest.mark.parametrize(
    ("zone", "schedule", "start", "ticks"),
    [
        ("Europe/London", "30 1 * * *", "2026-03-28 12:00", ["01:00", "00:30"]),
        ("Europe/London", "30 1 * * *", "2026-10-24 12:00", ["00:30", "01:30"]),
        ("America/New_York", "30 2 * * *", "2026-03-07 12:00", ["07:00", "06:30"]),
        ("America/New_York", "30 1 * * *", "2026-10-31 12:00", ["05:30", "06:30"]),
        ("Australia/Lord_Howe", "15 2 * * *", "2026-10-02 16:00", ["15:30", "15:15"]),
        ("Australia/Lord_Howe", "45 1 * * *", "2026-04-03 16:00", ["14:45", "15:15"]),
    ],
)
@pytest.mark.parametrize("asleep", [False, True])
def test_a_zone_whose_clock_is_changed_has_its_tick_once_a_day(
    zone: str, schedule: str, start: str, ticks: list[str], asleep: bool
) -> None:
    item = cron_item(schedule, "a", tz=zone, fill="2d")
    end = (utc(start) + timedelta(days=2)).isoformat(" ")[:19]
    soon = (utc(start) + timedelta(minutes=5)).isoformat(" ")[:19]
    clock = jump(start, end, soon, timedelta(hours=47.7)) if asleep else Clock(start, end)
    late = "*" if asleep else ""
    assert simulate(item, clock=clock).ticks() == [tick + late for tick in ticks]


# --- Errors --------------------------------------------------------------------------------------


def test_an_item_that_the_database_refuses_does_not_hold_up_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock(DAY + "09:59", DAY + "10:01:30")
    database = FakeDatabase(clock)
    database.refused["b"] = InvalidQueueName("Queue name is too long")
    items = [cron_item("* * * * *", name) for name in "abc"]
    simulate(*items, clock=clock, database=database)
    assert database.ticks("a") == database.ticks("c") == ["10:00", "10:01"]
    assert database.ticks("b") == []
    assert caplog.messages == ["crontab b was refused: Queue name is too long"] * 2


def test_what_no_time_heals_ends_the_scheduler() -> None:
    clock = Clock(DAY + "09:59", DAY + "10:01:30")
    database = FakeDatabase(clock)
    database.refused["a"] = AccessDenied("permission denied")
    with pytest.raises(AccessDenied):
        asyncio.run(Scheduler([HOURLY], database, Events(), sleep=clock.sleep).run())
