"""The tasks of a bad night: `gw run tasks` in this folder. Each run is a line in a file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any, NoReturn

from graphile_worker import Tasks
from graphile_worker.worker import Context, Snooze

if offset := float(os.environ.get("CHAOS_CLOCK", "0")):
    _time = time.time
    time.time = lambda: _time() + offset


def note(context: Context, what: str) -> None:
    """Write down a run; lines of all processes go to one file."""
    job = context.job
    line = json.dumps([job.id, what, job.queue_name, job.locked_by, os.getpid(), time.monotonic()])
    file = os.open(os.environ["CHAOS_RUNS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


class UnprintableError(Exception):
    __notes__ = 5  # type: ignore[assignment]

    def __str__(self) -> NoReturn:
        raise RuntimeError("an exception that cannot be printed")

    __repr__ = __str__


async def ok(payload: Any, context: Context) -> Any:
    note(context, "begun")
    await asyncio.sleep(payload.get("seconds", 0.0) if isinstance(payload, dict) else 0)
    note(context, "done")
    return {"job": context.job.id}


@Tasks().task("pay", transaction=True)
async def pay(context: Context, seconds: float = 0.0, text: str = "") -> Any:
    """Have an effect that is to come once, however often the job runs."""
    note(context, "begun")
    job = context.job.id
    await context.transaction.execute("insert into public.effects values (%s)", [job])
    await asyncio.sleep(seconds)
    note(context, "paid")  # which may be undone, and come again
    return {"job": job}


def thread(payload: Any, context: Context) -> None:
    note(context, "begun")
    time.sleep(payload.get("seconds", 0.0))
    note(context, "done")


async def bad(payload: Any, context: Context) -> None:
    note(context, "begun")
    raise [UnprintableError(), SystemExit(3), ValueError("\0 \ud800"), BaseException("odd")][
        context.job.id % 4
    ]


async def block(payload: Any, context: Context) -> None:
    """Block the event loop, and with it the heartbeat, the first time that the job runs."""
    note(context, "begun")
    with contextlib.suppress(FileExistsError):
        Path(f"{os.environ['CHAOS_RUNS']}.{context.job.id}").touch(exist_ok=False)
        time.sleep(payload.get("seconds", 0.0))
    note(context, "done")


async def stubborn(payload: Any, context: Context) -> object:
    """Swallow a cancellation, and return what nobody expects."""
    note(context, "begun")
    for _ in range(2):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(payload.get("seconds", 0.0) / 2)
    note(context, "done")
    return type("Odd", (list,), {"__len__": lambda self: 1 / 0})()


async def later(payload: Any, context: Context) -> None:
    note(context, "begun")
    if context.job.last_error is None and time.monotonic() < payload["until"]:
        raise Snooze(0.1)
    note(context, "done")


async def tick(payload: Any, context: Context) -> None:
    note(context, f"tick {payload['_cron']['ts']}")


tasks = {
    "tick": tick, "ok": ok, "thread": thread, "bad": bad, "block": block, "stubborn": stubborn, "later": later,
    "pay": pay,
}  # fmt: skip
