"""A Celery application as it was before it moved."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from celery import Celery
from celery.schedules import crontab

app = Celery("shop", broker=os.environ["REDIS"])
app.conf.timezone = "Europe/London"
app.conf.beat_schedule = {
    "nightly": {
        "task": "shop.report",
        "schedule": crontab(minute="30", hour="1", day_of_week="mon-fri"),
        "args": ["daily"],
    },
    "often": {"task": "shop.report", "schedule": timedelta(minutes=15), "kwargs": {"kind": "q"}},
}


def note(*what: object) -> None:
    with Path(os.environ["NOTES"]).open("a") as notes:
        print(*what, file=notes)


@app.task(name="shop.report")
def report(kind: str) -> None:
    note("report", kind)


@app.task(name="shop.fails")
def fails() -> None:
    note("fails")
    raise ValueError("as it is")


@app.task(name="shop.retries", bind=True, max_retries=2)
def retries(self: Any, n: int) -> None:
    note("retries", n, self.request.retries)
    raise self.retry(exc=ValueError("again"), countdown=0)


@app.task(name="shop.by_itself", autoretry_for=(ValueError,), retry_backoff=1, max_retries=1)
def by_itself() -> None:
    note("by_itself")
    raise ValueError("again")
