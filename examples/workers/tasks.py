"""The tasks of the conformance kit, for `gw run`."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from graphile_worker import Tasks
from graphile_worker.worker import context

tasks = Tasks()


def report(event: str) -> None:
    with Path(os.environ["CONFORMANCE_REPORT"]).open("a") as file:
        file.write(json.dumps({"event": event, "job": context().job.id}) + "\n")


async def opened(gate: str | None) -> None:
    while gate is not None and not Path(gate).exists():
        await asyncio.sleep(0.02)


@tasks.task("run")
async def run(gate: str | None = None, error: str | None = None) -> None:
    report("start")
    await opened(gate)
    if error is not None:
        raise RuntimeError(error)
    report("end")


@tasks.task("batch")
async def batch(elements: list[dict[str, Any]]) -> list[Any]:
    report("start")
    return [RuntimeError("it failed") if element.get("fail") else None for element in elements]


@tasks.task("write", transaction=True)
async def write(gate: str | None = None) -> None:
    job = context().job.id
    await context().transaction.execute("insert into conformance.effects values (%s)", [job])
    report("start")
    await opened(gate)
    report("end")
