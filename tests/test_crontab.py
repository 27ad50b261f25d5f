"""Crontabs: what Node accepts is accepted and means the same; zones, and changes of the clock."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import graphile_worker as gw
import pytest
from graphile_worker import aio
from graphile_worker.client.tasks import Registry
from graphile_worker.crontab import (
    MINUTE,
    CronItem,
    check_identifiers,
    cron_item,
    parse_crontab,
)
from graphile_worker.errors import InvalidArgument, InvalidCrontab, InvalidPayload
from hypothesis import given, settings
from hypothesis import strategies as st
from support.node import VERSIONS
from support.pg import NODE, SERVERS, run

LONDON, NEW_YORK, LORD_HOWE = "Europe/London", "America/New_York", "Australia/Lord_Howe"


def node(version: str, code: str, data: Any) -> Any:
    """Run JavaScript with Node's parseCrontab and some data; return what it returns."""
    source = (
        f"const {{ parseCrontab }} = require('graphile-worker-{version}');"
        f"const data = JSON.parse(require('fs').readFileSync(0));"
        f"console.log('ANSWER ' + JSON.stringify((() => {{ {code} }})()));"
    )
    printed = run([NODE, "-e", source], cwd=SERVERS.parent, input=json.dumps(data))
    return json.loads(printed.rsplit("ANSWER ", 1)[1])


def only(text: str) -> CronItem:
    (item,) = parse_crontab(text)
    return item


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def shown(item: CronItem, after: str, until: str, **options: Any) -> list[str]:
    """Return the ticks, as a clock on the wall in UTC shows them."""
    return [at.strftime("%d %H:%M") for at in item.ticks(utc(after), utc(until), **options)]


# --- Node's format -------------------------------------------------------------------------------

ACCEPTED = [
    "30 4 * * 1 a", "30 4 * * 7 a", "30 4 * * 0-7 a", "*/70 * * * * a", "0 0 */5 */5 */3 a",
    "1,2,2,1 * * * * a", "*,5 * * * * a", "05 04 * * * a", " 1 2 3 4 5 a ", "1  2\t3 4 5 a",
    "001 * * * * a", "0,*/7 * * * * a", "*/1 * * * * a", "01-05 * * * * a", "* */3,1-4 * * * a",
    "# c\n\n  \n1 2 3 4 5 a", "  # c", "", "1 2 3 4 5 a\r\n1 2 3 4 5 b",
    "1 2 3 4 5 a-b:c_d", "1 2 3 4 5 a/b", "1 2 3 4 5 _a", "1 2 3 4 5 a//b-",
    "1 2 3 4 5 a   ?id=x", "1 2 3 4 5 a ?id=_x", "1 2 3 4 5 a ?id=A1-b", "1 2 3 4 5 a ?&id=x&&max=2&",
    "1 2 3 4 5 a ?i%64=x", "1 2 3 4 5 a ?fill=2d1h", "1 2 3 4 5 a ?fill=1h2d",
    "1 2 3 4 5 a ?fill=1h1h", "1 2 3 4 5 a ?fill=0s", "1 2 3 4 5 a ?fill=4w3d2h1m5s",
    "1 2 3 4 5 a ?fill=90m", "1 2 3 4 5 a ?max=1", "1 2 3 4 5 a ?max=01", "1 2 3 4 5 a ?queue=q",
    "1 2 3 4 5 a ?queue=a-b:c_d", "1 2 3 4 5 a ?queue=1a", "1 2 3 4 5 a ?queue=-",
    "1 2 3 4 5 a ?jobKey=a%20b%26c", "1 2 3 4 5 a ?jobKey=a+b", "1 2 3 4 5 a ?jobKey=ü",
    "1 2 3 4 5 a ?jobKey=k&jobKeyMode=preserve_run_at", "1 2 3 4 5 a ?jobKey=k&jobKeyMode=replace",
    "1 2 3 4 5 a ?priority=-3", "1 2 3 4 5 a ?priority=3", "1 2 3 4 5 a ?priority=-0",
    "1 2 3 4 5 a {a:1}", "1 2 3 4 5 a {}", "1 2 3 4 5 a ?id=x {a:'x', /*c*/ b:[1,],}",
    '1 2 3 4 5 a {"a": {"b": [null, true]}} ', "1 2 3 4 5 a ?id=x\t{a:1}", "1 2 3 4 5 a {_cron:1}",
    "1 2 3 4 5 a {a:0x10,b:+1,c:.5,d:'\\x41'}", "1 2 3 4 5 a {a:1,a:2}", "1 2 3 4 5 a {a:1}//{b:1}",
]  # fmt: skip

REFUSED = {
    "*/0 * * * * a": "step of 0",
    "1-5/2 * * * * a": "steps in a range",
    "5-1 * * * * a": "minute '5-1' is out of range: use 0 to 59",
    "1-1 * * * * a": "lower number first",
    "60 * * * * a": "minute '60' is out of range",
    "1 24 * * * a": "hour '24' is out of range: use 0 to 23",
    "1 2 0 4 5 a": "day of the month '0' is out of range: use 1 to 31",
    "1 2 3 13 5 a": "month '13'",
    "* * * * 8 a": "day of the week '8'",
    "1, * * * * a": "minute ''",
    ",1 * * * * a": "minute ''",
    "1 -1 * * * a": "hour '-1'",
    "**/3 * * * * a": "minute '**/3'",
    "1 2 jan 4 5 a": "day of the month 'jan' is neither",
    "1 2 3 4 mon a": "day of the week 'mon'",
    "1 2 3 4 a": "is not a schedule with a task",
    "1 2 3 4 5": "is not a schedule with a task",
    "* * * * * * a": "is not a schedule with a task",
    "@daily a": "such as '0 4 * * 1 report'",
    "1 2 3 4 5 a # comment": "is not a command",
    "1 2 3 4 5 a.b": "'a.b' is not a command",
    "1 2 3 4 5 /a": "is not a command",
    "1 2 3 4 5 a ?": "is not a command",
    "1 2 3 4 5 a?id=x": "is not a command",
    "1 2 3 4 5 a ?fill=1d 2h": "is not a command",
    "1 2 3 4 5 a [1]": "is not a command",
    "1 2 3 4 5 a {a:1": "is not a command",
    "1 2 3 4 5 a{a:1}": "is not a command",
    "1 2 3 4 5 a {a:1} // x": "is not a command",
    "1 2 3 4 5 a {a:1}}": "is not a JSON5 object",
    "1 2 3 4 5 a ?id=": "option 'id' is ''",
    "1 2 3 4 5 a ?id=b.c": "a letter or _, then letters, digits, _ and -",
    "1 2 3 4 5 a ?id=1b": "'1b'",
    "1 2 3 4 5 a ?id=a:b": "'a:b'",
    "1 2 3 4 5 a ?id=%zz": "'%zz'",
    "1 2 3 4 5 a ?id": "option 'id' is ''",
    "1 2 3 4 5 a ?id=x{a:1}": "'x{a:1}'",
    "1 2 3 4 5 a ?fill=2": "a time phrase such as",
    "1 2 3 4 5 a ?fill=": "a time phrase such as",
    "1 2 3 4 5 a ?fill=1H": "'1H'",
    "1 2 3 4 5 a ?fill=1.5h": "'1.5h'",
    "1 2 3 4 5 a ?fill=1ms": "'1ms'",
    "1 2 3 4 5 a ?max=-1": "a whole number from 1 to 32767",
    "1 2 3 4 5 a ?max=x": "'x'",
    "1 2 3 4 5 a ?queue=": "letters, digits, _, : and -",
    "1 2 3 4 5 a ?queue=a%20b": "'a b'",
    "1 2 3 4 5 a ?queue=a.b": "'a.b'",
    "1 2 3 4 5 a ?queue=ünï": "'ünï'",
    "1 2 3 4 5 a ?jobKey=k&jobKeyMode=unsafe_dedupe": "replace or preserve_run_at",
    "1 2 3 4 5 a ?jobKey=k&jobKeyMode=": "replace or preserve_run_at",
    "1 2 3 4 5 a ?priority=%2B3": "'+3'",
    "1 2 3 4 5 a ?priority=x": "-32768 to 32767",
    "1 2 3 4 5 a ?foo=1": "use id, fill, max, queue, jobKey, jobKeyMode, priority, tz",
    "1 2 3 4 5 a ?ID=x": "option 'ID' is unknown",
    "1 2 3 4 5 a ?max=1&max=2": "given twice",
    "1 2 3 4 5 a\n1 2 3 4 5 a": "such as 'a_2'",
    "1 2 3 4 5 a\n1 2 3 4 5 b ?id=a": "identifier 'a' is already used by the task 'a'",
}

#: Node takes them, and then adds no job, or another one than was meant.
REFUSED_BY_US_ALONE = {
    "1 2 3 4 5 a ?max=0": "max_attempts is out of range: 0",
    "1 2 3 4 5 a ?max=100000": "max_attempts is out of range: 100000",
    "1 2 3 4 5 a ?priority=99999": "priority is out of range",
    "1 2 3 4 5 a ?jobKey=": "option 'jobKey' is ''",
    "1 2 3 4 5 a {a:Infinity}": "payload",
    "1 2 3 4 5 a {a:NaN}": "payload",
    "1 2 3 4 5 a ?fill=99999w": "a hundred years",
    f"1 2 3 4 5 a ?jobKey={'k' * 513}": "1 to 512 characters",
    f"1 2 3 4 5 a ?queue={'q' * 129}": "1 to 128 characters",
    f"1 2 3 4 5 {'t' * 129}": "1 to 128 characters",
}


def as_node_says(item: CronItem) -> dict[str, Any]:
    options: dict[str, Any] = {"backfillPeriod": item.fill // timedelta(milliseconds=1)}
    for name, value in (
        ("maxAttempts", item.max_attempts), ("queueName", item.queue_name),
        ("jobKey", item.job_key), ("jobKeyMode", item.job_key_mode), ("priority", item.priority),
    ):  # fmt: skip
        if value is not None:
            options[name] = value
    if item.job_key is not None:
        options.setdefault("jobKeyMode", "replace")
    return {
        "task": item.task, "options": options, "payload": item.payload, "identifier": item.identifier,
    }  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
def test_what_node_accepts_is_accepted_and_means_the_same(version: str) -> None:
    assert [[as_node_says(item) for item in parse_crontab(text)] for text in ACCEPTED] == node(
        version, "return data.map((text) => parseCrontab(text))", ACCEPTED
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_what_node_refuses_is_refused(version: str) -> None:
    texts = [*REFUSED, *REFUSED_BY_US_ALONE]
    refused = node(
        version,
        "return data.map((text) => { try { parseCrontab(text); return false }"
        " catch { return true } })",
        texts,
    )
    assert refused == [text in REFUSED for text in texts]


@pytest.mark.parametrize(("text", "said"), {**REFUSED, **REFUSED_BY_US_ALONE}.items())
def test_an_error_names_the_line_the_value_and_the_remedy(text: str, said: str) -> None:
    with pytest.raises(InvalidCrontab) as caught:
        parse_crontab(f"# one\n{text}")
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"crontab line {2 + text.count(chr(10))}: ")


def fields(draw: Any) -> str:
    """Return the five fields of a schedule."""

    def field(low: int, high: int) -> str:
        def part() -> str:
            kind = draw(0, 5)
            if kind == 0:
                return "*"
            if kind == 1:
                return f"*/{draw(1, high + 2)}"
            first = draw(low, high)
            return f"{first}-{draw(first + 1, high)}" if kind == 2 and first < high else str(first)

        return "*" if draw(0, 2) == 0 else ",".join(part() for _ in range(draw(1, 3)))

    return " ".join(field(*ends) for ends in ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7)))


@pytest.mark.parametrize("version", VERSIONS)
def test_schedules_match_when_node_says_so(version: str) -> None:
    rng = random.Random(5)
    texts = [fields(rng.randint) for _ in range(300)]
    texts += [
        "0 0 13 * 5",
        "0 0 */2 * 5",
        "0 0 1-31 * 5",
        "0 0 5 * */1",
        "0 0 * * 5-7",
        "0 0 5 * 1-7",
    ]
    start = utc("2026-01-01")
    times = [start + rng.randrange(2 * 365 * 24 * 60) * MINUTE for _ in range(1500)]
    # Times at which the coarse fields decide, too.
    times += [start + timedelta(days=n) for n in range(400)]
    digests = [
        {
            "min": t.minute,
            "hour": t.hour,
            "date": t.day,
            "month": t.month,
            "dow": t.isoweekday() % 7,
        }
        for t in times
    ]
    matched = node(
        version,
        "return data.texts.map((text) => { const [item] = parseCrontab(text + ' a');"
        " return data.digests.map((digest) => +item.match(digest)).join('') })",
        {"texts": texts, "digests": digests},
    )
    ours = []
    for text in texts:
        item = cron_item(text, "a")
        ours.append("".join(str(int(item.matches(at))) for at in times))
    assert dict(zip(texts, ours, strict=True)) == dict(zip(texts, matched, strict=True))
    assert "1" in "".join(ours)


def test_where_both_days_are_restricted_either_is_enough() -> None:
    both = cron_item("0 0 13 * 5", "a")
    assert shown(both, "2026-03-01", "2026-03-31") == [
        "06 00:00", "13 00:00", "20 00:00", "27 00:00"
    ]  # fmt: skip
    assert shown(cron_item("0 0 13 * *", "a"), "2026-03-01", "2026-03-31") == ["13 00:00"]
    assert cron_item("0 0 */10 * *", "a").days == {1, 11, 21, 31}, "as Node does, not as its manual"


def test_the_zone_is_an_option_in_a_crontab() -> None:
    assert only("0 4 * * 1 a ?tz=Europe/London").tz == ZoneInfo(LONDON)
    for name in ("Mars/Base", "", "../etc/passwd", "Europe"):
        with pytest.raises(InvalidCrontab, match=r"Europe/London"):
            only(f"0 4 * * 1 a ?tz={name}")


def test_json5_is_asked_for_only_by_those_who_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "json5", None)
    assert only('1 2 3 4 5 a {"a": 1}').payload == {"a": 1}
    with pytest.raises(InvalidCrontab, match=r"line 1: .*pip install 'graphile-worker\[worker\]'"):
        only("1 2 3 4 5 a {a: 1}")


# --- Ticks ---------------------------------------------------------------------------------------

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


# --- In Python -----------------------------------------------------------------------------------


def test_an_item_is_made_with_the_names_of_add_job() -> None:
    item = cron_item(
        "0 4 * * 1", "report.weekly", id="weekly", fill=timedelta(days=2), tz=ZoneInfo(LONDON),
        payload={"since": datetime(2026, 1, 1, tzinfo=UTC)}, max_attempts=3, queue_name="q r",
        priority=-1, job_key="k", job_key_mode="unsafe_dedupe", flags=["f"],
    )  # fmt: skip
    assert (item.identifier, item.fill, item.tz) == ("weekly", timedelta(days=2), ZoneInfo(LONDON))
    assert item.payload == {"since": "2026-01-01T00:00:00+00:00"}
    assert (set(item.hours), set(item.weekdays), item.flags) == ({4}, {1}, ("f",))
    assert cron_item("0 4 * * 1", "a", fill="2d") == only("0 4 * * 1 a ?fill=2d")


@pytest.mark.parametrize(
    "options",
    [
        {"expression": "0 4 * *"}, {"expression": "0 4 * * * *"}, {"expression": "0 4 * * mon"},
        {"fill": "soon"}, {"fill": 5}, {"fill": timedelta(-1)}, {"tz": "Mars"}, {"tz": 3},
        {"id": ""}, {"id": 3}, {"queue_name": ""}, {"queue_name": "q" * 129}, {"job_key": ""},
        {"job_key_mode": "often"}, {"payload": [1]}, {"payload": {"a": float("nan")}},
        {"priority": 1.5}, {"max_attempts": 0}, {"flags": "f"}, {"task": ""}, {"task": None},
    ],
    ids=str,
)  # fmt: skip
def test_an_item_that_could_not_be_added_is_refused(options: dict[str, Any]) -> None:
    given: dict[str, Any] = {"expression": "0 4 * * 1", "task": "a", **options}
    with pytest.raises(InvalidArgument):
        cron_item(given.pop("expression"), given.pop("task"), **given)


@pytest.mark.parametrize("tasks", [gw.Tasks(), aio.Tasks()], ids=["sync", "async"])
def test_the_decorator_stands_on_a_task_or_on_a_function(tasks: Registry[Any]) -> None:
    @tasks.cron("0 4 * * 1", fill="2d", tz=LONDON, payload={"kind": "weekly"}, priority=5)
    @tasks.cron("0 4 1 * *", id="monthly", payload={"kind": "monthly"})
    @tasks.task("report", queue_name="reports", max_attempts=3, priority=1, flags=["slow"])
    def report(kind: str, size: int = 3) -> str:
        return f"{kind} {size}"

    @tasks.cron("*/5 * * * *")
    def sweep() -> int:
        return 1

    assert (report("x"), sweep(), list(tasks)) == ("x 3", 1, ["report", "sweep"])
    monthly, weekly, often = tasks.crontab
    assert (weekly.task, weekly.identifier, weekly.fill) == ("report", "report", timedelta(days=2))
    assert (weekly.queue_name, weekly.max_attempts, weekly.priority) == ("reports", 3, 5)
    assert (monthly.identifier, monthly.priority, monthly.flags) == ("monthly", 1, ("slow",))
    assert (often.task, often.identifier, often.payload) == ("sweep", "sweep", None)
    check_identifiers(tasks.crontab)


def test_a_decorator_that_could_not_work_is_refused_at_once() -> None:
    tasks, others = gw.Tasks(), gw.Tasks()

    @tasks.task("report")
    def report(kind: str, _cron: Any, context: Context) -> None: ...

    with pytest.raises(InvalidPayload, match="needs kind"):
        tasks.cron("0 4 * * 1")(report)
    with pytest.raises(InvalidPayload, match="no parameter what"):
        tasks.cron("0 4 * * 1", payload={"kind": "a", "what": 1})(report)
    with pytest.raises(InvalidArgument, match="other tasks"):
        others.cron("0 4 * * 1", payload={"kind": "a"})(report)
    assert tasks.crontab == []
    tasks.cron("0 4 * * 1", payload={"kind": "a"})(report)
    with pytest.raises(InvalidCrontab, match="'report_2'"):
        tasks.cron("0 5 * * 1", payload={"kind": "a"})(report)


class Context:
    """Stands for the worker's."""


def test_adding_jobs_imports_no_crontab() -> None:
    code = (
        "import sys, graphile_worker; t = graphile_worker.Tasks(); t.task('a')(lambda: None);"
        "assert t.crontab == [] and not [m for m in sys.modules if m.startswith('graphile_worker.worker')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("when", "fires"),
    [("0 0 31 2 *", False), ("0 0 30,31 2 *", False), ("0 0 31 4,6 *", False),
     ("0 0 29 2 *", True), ("0 0 31 2 1", True), ("0 0 31 2,3 *", True), ("* * * * *", True)],
)  # fmt: skip
def test_a_schedule_that_never_fires_is_warned_of(
    when: str, fires: bool, caplog: pytest.LogCaptureFixture
) -> None:
    parse_crontab(f"{when} task")
    assert ("never fires" in caplog.text) is not fires
