"""When an item is due: in zones, and when their clocks change."""

from __future__ import annotations

from datetime import timedelta

import pytest
from graphile_worker.crontab import (
    MINUTE,
    cron_item,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from crontab.items import LONDON, LORD_HOWE, NEW_YORK, fields, shown, utc

ZONES = [None, LONDON, NEW_YORK, LORD_HOWE, "Pacific/Apia", "America/St_Johns", "Africa/Casablanca",
         "Asia/Kathmandu", "Africa/Cairo"]  # fmt: skip
#: Weeks with changes of the clock, among them a day that Samoa never had.
WEEKS = ["2026-03-27", "2026-10-23", "2026-03-06", "2026-10-30", "2026-04-03", "2026-10-02",
         "2011-12-28", "2006-10-27", "2006-04-01", "2026-02-13", "2026-04-22", "2026-12-30"]  # fmt: skip


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_ticks_are_the_minutes_that_match(data: st.DataObject) -> None:
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    item = cron_item(fields(draw), "a", tz=data.draw(st.sampled_from(ZONES)))
    after = utc(data.draw(st.sampled_from(WEEKS))) + timedelta(seconds=draw(0, 2 * 86400))
    until = after + timedelta(seconds=draw(0, 3 * 86400))
    minute = after.replace(second=0, microsecond=0)
    minutes = [minute + n * MINUTE for n in range(1, (until - minute) // MINUTE + 1)]
    assert list(item.ticks(after, until)) == [at for at in minutes if item.matches(at)]


def test_ticks_begin_after_the_first_moment_and_include_the_last() -> None:
    hourly = cron_item("0 * * * *", "a")
    assert shown(hourly, "2026-01-01 10:00", "2026-01-01 12:00") == ["01 11:00", "01 12:00"]
    assert shown(hourly, "2026-01-01 10:00", "2026-01-01 11:00") == ["01 11:00"]
    assert shown(hourly, "2026-01-01 09:59:59", "2026-01-01 10:59:59") == ["01 10:00"]
    assert shown(hourly, "2026-01-01 12:00", "2026-01-01 10:00") == []


def test_a_tick_is_found_years_ahead_without_looking_at_each_minute() -> None:
    leap = cron_item("0 12 29 2 *", "a", tz=LONDON)
    assert next(leap.ticks(utc("2096-03-01"), utc("2110-01-01"))) == utc("2104-02-29 12:00")
    assert list(cron_item("0 0 31 2 *", "a").ticks(utc("2026-01-01"), utc("2030-01-01"))) == []


SKIPPED = [
    # The clock goes from 01:00 to 02:00, from 02:00 to 03:00, from 02:00 to 02:30.
    (LONDON, "30 1 * * *", "2026-03-28 12:00", "2026-03-30 12:00", ["29 01:00", "30 00:30"]),
    (NEW_YORK, "30 2 * * *", "2026-03-07 12:00", "2026-03-09 12:00", ["08 07:00", "09 06:30"]),
    (LORD_HOWE, "15 2 * * *", "2026-10-02 12:00", "2026-10-04 16:00", ["02 15:45", "03 15:30", "04 15:15"]),
]  # fmt: skip
REPEATED = [
    # It shows 01:00 to 02:00 twice, as it does there; or 01:30 to 02:00.
    (LONDON, "30 1 * * *", "2026-10-24 12:00", "2026-10-26 12:00", ["25 00:30", "26 01:30"]),
    (NEW_YORK, "30 1 * * *", "2026-10-31 12:00", "2026-11-02 12:00", ["01 05:30", "02 06:30"]),
    (LORD_HOWE, "45 1 * * *", "2026-04-03 12:00", "2026-04-05 16:00", ["03 14:45", "04 14:45", "05 15:15"]),
]  # fmt: skip


@pytest.mark.parametrize(("zone", "schedule", "after", "until", "ticks"), SKIPPED)
def test_a_local_time_that_is_skipped_is_due_when_the_clock_goes_forward(
    zone: str, schedule: str, after: str, until: str, ticks: list[str]
) -> None:
    assert shown(cron_item(schedule, "a", tz=zone), after, until) == ticks


@pytest.mark.parametrize(("zone", "schedule", "after", "until", "ticks"), REPEATED)
def test_a_local_time_that_comes_twice_is_due_once_the_first_time(
    zone: str, schedule: str, after: str, until: str, ticks: list[str]
) -> None:
    assert shown(cron_item(schedule, "a", tz=zone), after, until) == ticks


@pytest.mark.parametrize("zone", [LONDON, NEW_YORK, LORD_HOWE])
@pytest.mark.parametrize(
    "week", ["2026-03-06", "2026-03-27", "2026-04-03", "2026-10-02", "2026-10-23"]
)
def test_an_item_for_every_hour_does_not_heed_changes_of_the_clock(zone: str, week: str) -> None:
    after, until = utc(week), utc(week) + timedelta(days=3)
    for schedule, step in (("* * * * *", 1), ("*/5 * * * *", 5), ("0,30 * * * *", 30)):
        ticks = list(cron_item(schedule, "a", tz=zone).ticks(after, until))
        assert ticks == [after + n * step * MINUTE for n in range(1, 3 * 24 * 60 // step + 1)]
    if zone != LORD_HOWE:
        assert len(list(cron_item("0 * * * *", "a", tz=zone).ticks(after, until))) == 72


def test_several_skipped_times_are_one_tick_and_repeated_ones_are_not_doubled() -> None:
    often = cron_item("*/10 1-2 * * *", "a", tz=NEW_YORK)
    assert shown(often, "2026-03-08 06:00", "2026-03-08 12:00") == [
        "08 06:10", "08 06:20", "08 06:30", "08 06:40", "08 06:50", "08 07:00"
    ]  # fmt: skip
    assert len(shown(often, "2026-11-01 04:00", "2026-11-01 12:00")) == 12


def test_a_day_that_a_zone_never_had_is_made_up_for_when_the_next_one_begins() -> None:
    samoa = cron_item("0 9 * * *", "a", tz="Pacific/Apia")
    assert shown(samoa, "2011-12-29 00:00", "2012-01-01 00:00") == [
        "29 19:00", "30 10:00", "30 19:00", "31 19:00"
    ]  # fmt: skip
