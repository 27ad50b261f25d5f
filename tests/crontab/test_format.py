"""What Node accepts in a crontab is accepted and means the same."""

from __future__ import annotations

import json
import random
import sys
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from graphile_worker.crontab import (
    MINUTE,
    CronItem,
    cron_item,
    parse_crontab,
)
from graphile_worker.errors import InvalidCrontab
from support.node import VERSIONS
from support.pg import NODE, SERVERS, run

from crontab.items import LONDON, fields, only, shown, utc


def node(version: str, code: str, data: Any) -> Any:
    """Run JavaScript with Node's parseCrontab and some data; return what it returns."""
    source = (
        f"const {{ parseCrontab }} = require('graphile-worker-{version}');"
        f"const data = JSON.parse(require('fs').readFileSync(0));"
        f"console.log('ANSWER ' + JSON.stringify((() => {{ {code} }})()));"
    )
    printed = run([NODE, "-e", source], cwd=SERVERS.parent, input=json.dumps(data))
    return json.loads(printed.rsplit("ANSWER ", 1)[1])


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
