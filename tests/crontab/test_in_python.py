"""Items made in Python, and the decorator."""

from __future__ import annotations

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
    check_identifiers,
    cron_item,
    parse_crontab,
)
from graphile_worker.errors import InvalidArgument, InvalidCrontab, InvalidPayload

from crontab.items import LONDON, only


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
