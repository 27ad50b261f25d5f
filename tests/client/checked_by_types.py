"""Right and wrong calls for the type checkers: a line is an error if, and only if, it says wrong."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import timedelta
from typing import assert_type

import psycopg
from graphile_worker import Job, JobSpec, Tasks, TaskSpec, WorkerUtils, add_job, add_jobs, aio
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

tasks = Tasks()
awaited = aio.Tasks()


@tasks.task("send_email", queue_name="emails", max_attempts=5)
def send_email(to: str, subject: str = "Hello") -> int:
    return len(to + subject)


@awaited.task("resize")
async def resize(image: int, *, width: int) -> None: ...


@tasks.task("bad", queue="emails")  # wrong
def bad() -> None: ...


def right(
    conn: psycopg.Connection[dict[str, int]],
    cursor: psycopg.Cursor[tuple[int]],
    session: Session,
    connection: Connection,
    other: psycopg.AsyncConnection[tuple[int]],
) -> None:
    assert_type(send_email.add(to="a@b.c"), Job)
    assert_type(send_email.add("a@b.c", "Hi"), Job)
    assert_type(send_email("a@b.c"), int)
    assert_type(send_email.with_options(job_key="k", run_at=timedelta(1)).add("a"), Job)
    assert_type(send_email.with_options(conn=session).add("a"), Job)
    assert_type(send_email.with_options(conn=other).add("a"), Awaitable[Job])
    assert_type(send_email.job("a"), JobSpec)
    assert_type(resize.with_options(conn=conn).add(1, width=2), Job)
    assert_type(add_job("t", {"any": "thing"}, conn=conn, priority=3), Job)
    assert_type(add_job("t", conn=cursor, flags=["f"]), Job)
    assert_type(add_job("t", conn=session), Job)
    assert_type(add_job("t", None, TaskSpec(priority=1), conn=connection), Job)
    assert_type(add_job("t", conn="default"), Job)
    assert_type(add_jobs([JobSpec("t"), ("t", 1)], conn=conn), list[Job])
    assert_type(WorkerUtils("").get_job(3), Job | None)
    tasks.bind(WorkerUtils(conn))
    awaited.bind(aio.WorkerUtils(other))


async def right_too(
    conn: psycopg.AsyncConnection[tuple[int]], session: AsyncSession, connection: AsyncConnection
) -> None:
    assert_type(await resize.add(1, width=2), Job)
    assert_type(await resize.with_options(priority=1).add(1, width=2), Job)
    assert_type(await aio.add_job("t", conn=conn), Job)
    assert_type(await aio.add_job("t", conn=session), Job)
    assert_type(await aio.add_jobs([], conn=connection), list[Job])
    async with aio.WorkerUtils("") as utils:
        assert_type(await utils.counts(conn=session), object)  # wrong
    await resize(1, width=2)


async def wrong(
    conn: psycopg.Connection[tuple[int]],
    other: psycopg.AsyncConnection[tuple[int]],
    session: AsyncSession,
) -> None:
    send_email.add()  # wrong
    send_email.add(too="a@b.c")  # wrong
    send_email.add(7)  # wrong
    send_email.job("a", "b", "c")  # wrong
    send_email.with_options(key="k")  # wrong
    send_email.with_options(priority="high")  # wrong
    send_email.with_options(job_key_mode="upsert")  # wrong
    await send_email.add("a")  # wrong
    await resize.add(1)  # wrong
    await resize.add(1, width="2")  # wrong
    add_job("t", conn=other)  # wrong
    add_job("t", conn=session)  # wrong
    add_job("t")  # wrong
    add_job(7, conn=conn)  # wrong
    add_job("t", conn=conn, run_at="now")  # wrong
    await aio.add_job("t", conn=conn)  # wrong
    add_jobs(["t"], conn=conn)  # wrong
    TaskSpec("q")  # wrong
    JobSpec(priority=1)  # wrong
    tasks.bind(aio.WorkerUtils(""))  # wrong
