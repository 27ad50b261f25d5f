"""The next runs of a schedule are those at which the worker's own scheduler would add it."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import psycopg
import pytest
from graphile_worker.crontab import cron_item
from support.pg import Database

pytestmark = pytest.mark.majors(13, 18)

NEXT = "select * from graphile_worker.next_runs(%s, %s, %s, %s)"
YEARS = timedelta(days=3653)
#: Their clocks change by an hour, by half of one, twice a year around Ramadan, at midnight, by a
#: whole day once, and not at all.
ZONES = (
    "Europe/London", "Australia/Lord_Howe", "Africa/Casablanca", "America/Sao_Paulo",
    "Pacific/Apia", "UTC",
)  # fmt: skip
FIELDS = ((0, 59, ()), (0, 23, ()), (1, 31, ()), (1, 12, ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]),
          (0, 7, ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]))  # fmt: skip


def test_the_next_runs_are_listed(db: Database) -> None:
    after = datetime(2026, 11, 27, 12, tzinfo=UTC)
    runs = db.column(NEXT, "30 9-17/4 * * MON-FRI", "America/New_York", 4, after)
    assert [run.astimezone(UTC).isoformat() for run in runs] == [
        "2026-11-27T14:30:00+00:00", "2026-11-27T18:30:00+00:00", "2026-11-27T22:30:00+00:00",
        "2026-11-30T14:30:00+00:00",
    ]  # fmt: skip
    defaults = db.column("select * from graphile_worker.next_runs('*/5 * * * *')")
    assert len(defaults) == 3
    assert defaults[0] > db.value("select now()") - timedelta(minutes=5)
    assert db.column(NEXT, "0 0 30 2 *", "UTC", 3, after) == []
    (leap, *_) = db.column(NEXT, "0 0 29 2 *", "UTC", 3, datetime(2096, 3, 1, tzinfo=UTC))
    assert leap.year == 2104


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("@hourly", "0 * * * *"), ("@daily", "0 0 * * *"), ("@midnight", "0 0 * * *"),
        ("@Weekly", "0 0 * * 0"), ("@monthly", "0 0 1 * *"), ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"), (" 5\t4 * *  fri-sun ", "5 4 * * 5,6,7"),
        ("0 0 * JAN,mar-may *", "0 0 * 1,3,4,5 *"), ("10-40/15 * * * *", "10,25,40 * * * *"),
        ("0 0 * * 7", "0 0 * * 0"),
    ],
)  # fmt: skip
def test_short_forms_are_understood(db: Database, short: str, long: str) -> None:
    after = datetime(2026, 2, 3, 4, 5, tzinfo=UTC)
    assert db.column(NEXT, short, "UTC", 50, after) == db.column(NEXT, long, "UTC", 50, after)


@pytest.mark.parametrize(
    ("cron", "named"),
    [
        ("60 * * * *", 'minute of a schedule is invalid: "60"'), ("* 24 * * *", "hour"),
        ("* * 0 * *", "day of the month"), ("* * * 13 *", "month"), ("* * * MAN *", '"MAN"'),
        ("* * * * 8", "day of the week"), ("* * * * DEC", '"DEC"'), ("JAN * * * *", '"JAN"'),
        ("*/0 * * * *", '"*/0"'), ("5/2 * * * *", '"5/2"'), ("5-1 * * * *", '"5-1"'),
        (", * * * *", '","'), ("1,,2 * * * *", '"1,,2"'), ("-1 * * * *", '"-1"'),
        ("99999999999 * * * *", "99999999999"), ("* * * *", "five fields"), ("", "five fields"),
        ("* * * * * *", "five fields"), ("@often", '"@often"'), (None, "five fields"),
    ],
)  # fmt: skip
def test_a_bad_expression_is_named_with_the_remedy(
    db: Database, cron: str | None, named: str
) -> None:
    with pytest.raises(psycopg.Error) as caught:
        db.rows(NEXT, cron, "UTC", 3, datetime.now(UTC))
    assert caught.value.sqlstate == "GWBCR"
    assert named in str(caught.value.diag.message_primary)
    assert caught.value.diag.message_hint


@pytest.mark.parametrize(
    ("tz", "n", "after", "named"),
    [
        ("Mars/Phobos", 3, "2026-01-01", "Mars/Phobos"), ("Foo5", 3, "2026-01-01", "Foo5"),
        ("", 3, "2026-01-01", "zone"), (None, 3, "2026-01-01", "zone"),
        ("UTC", 0, "2026-01-01", "0"), ("UTC", 1001, "2026-01-01", "1001"),
        ("UTC", None, "2026-01-01", "runs"), ("UTC", 3, "infinity", "infinity"),
        ("UTC", 3, None, "moment"),
    ],
)  # fmt: skip
def test_a_bad_zone_number_or_moment_is_named(
    db: Database, tz: str | None, n: int | None, after: str | None, named: str
) -> None:
    with pytest.raises(psycopg.Error) as caught:
        db.rows(NEXT, "@daily", tz, n, after)
    assert caught.value.sqlstate == "GWBCR"
    assert named in str(caught.value.diag.message_primary)


def _field(
    rng: random.Random, lowest: int, highest: int, names: list[str] | tuple[()]
) -> tuple[str, str]:
    """Return a field as SQL takes it, and the same in numbers as a crontab has it."""
    if rng.random() < 0.4:
        return "*", "*"
    if rng.random() < 0.2:
        every = f"*/{rng.randint(1, highest)}"
        return every, every
    parts: list[str] = []
    numbers: set[int] = set()
    for _ in range(rng.randint(1, 3)):
        first = rng.randint(lowest, highest)
        last = rng.randint(first, highest) if rng.random() < 0.4 else first
        step = rng.randint(1, 9) if last > first and rng.random() < 0.5 else 1
        numbers.update(range(first, last + 1, step))
        shown = [
            rng.choice([name, name.lower()])
            if rng.random() < 0.5 and (name := dict(enumerate(names, lowest)).get(number))
            else str(number)
            for number in (first, last)
        ]
        part = shown[0] if last == first else "-".join(shown)
        parts.append(part if step == 1 else f"{part}/{step}")
    return ",".join(parts), ",".join(map(str, sorted(numbers)))


def _near_a_change(rng: random.Random, zone: ZoneInfo, start: datetime) -> datetime:
    """Return a time around the next change of the zone's clocks, if there is one."""
    at = start
    for _ in range(400):
        if (at + timedelta(days=1)).astimezone(zone).utcoffset() != at.astimezone(zone).utcoffset():
            break
        at += timedelta(days=1)
    return at + timedelta(minutes=rng.randrange(-600, 1440))


@pytest.mark.parametrize(
    "expressions",
    [1_000, pytest.param(10_000, marks=pytest.mark.slow)],
    ids="{} expressions".format,
)
def test_random_schedules_run_when_the_scheduler_adds_them(db: Database, expressions: int) -> None:
    rng = random.Random(expressions)
    for _ in range(expressions):
        shown, numbers = (
            " ".join(each) for each in zip(*(_field(rng, *field) for field in FIELDS), strict=True)
        )
        tz, n = rng.choice(ZONES), rng.choice((1, 3, 5, 200))
        after = datetime(2010, 1, 1, tzinfo=UTC) + timedelta(minutes=rng.randrange(10 * 525_960))
        if rng.random() < 0.5:
            after = _near_a_change(rng, ZoneInfo(tz), after)
        runs = db.column(NEXT, shown, tz, n, after)
        ticks = []
        for tick in cron_item(numbers, "t", tz=tz).ticks(after, after + YEARS):
            ticks.append(tick)
            if len(ticks) == n:
                break
        assert [run for run in runs if run <= after + YEARS] == ticks, (shown, tz, n, after)
