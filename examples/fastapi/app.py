"""A FastAPI application: jobs in its transactions, a worker beside its requests, the dashboard.

Run it with `alembic upgrade head && uvicorn app:app`, in this folder, with DATABASE_URL set.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from graphile_worker import Tasks, web
from graphile_worker.aio import add_job
from graphile_worker.worker import Worker
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

DSN = os.environ["DATABASE_URL"]
#: Who may see the dashboard: your application knows better.
ADMINS = {"ann": os.environ.get("ANNS_PASSWORD", "")}

engine = create_async_engine(DSN.replace("postgresql://", "postgresql+psycopg://"))
sessions = async_sessionmaker(engine)
pool = AsyncConnectionPool[Any](DSN, open=False)
logged_in: dict[str, str] = {}
tasks = Tasks()


@tasks.task("greet", max_attempts=5)
async def greet(name: str) -> str:
    return f"Hello {name}"


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    worker = Worker(tasks, dsn=DSN, concurrency=5)
    async with pool:
        running = asyncio.create_task(worker.run())
        app.state.worker = running
        yield
        worker.stop()
        await running
    await engine.dispose()


async def session() -> AsyncIterator[AsyncSession]:
    """A session that is committed when the request has succeeded."""
    async with sessions.begin() as found:
        yield found


async def connection() -> AsyncIterator[AsyncConnection[Any]]:
    """A connection of psycopg's pool, likewise."""
    async with pool.connection() as found:
        yield found


app = FastAPI(lifespan=lifespan)


@app.post("/users/{name}")
async def add_user(name: str, session: Annotated[AsyncSession, Depends(session)]) -> dict[str, int]:
    """Add a user and the job that greets it: both or neither."""
    await session.execute(text("insert into users (name) values (:name)"), {"name": name})
    job = await add_job("greet", {"name": name}, conn=session)
    if name == "nobody":
        raise HTTPException(409, "The name is taken.")
    return {"job": job.id}


@app.post("/greetings/{name}")
async def add_greeting(
    name: str, conn: Annotated[AsyncConnection[Any], Depends(connection)]
) -> dict[str, int]:
    """Add a job on a connection of psycopg."""
    job = await add_job("greet", {"name": name}, conn=conn)
    return {"job": job.id}


@app.get("/healthz")
async def health(response: Response) -> dict[str, bool]:
    """Tell whether the database answers and the worker runs."""
    async with pool.connection(timeout=2) as conn:
        await conn.execute("select 1")
    lives = not app.state.worker.done()
    response.status_code = 200 if lives else 503
    return {"worker": lives}


@app.post("/login/{name}")
async def login(name: str, password: str, response: Response) -> None:
    """Log in: the dashboard below asks who it is."""
    right = ADMINS.get(name)
    if not right or not secrets.compare_digest(right, password):
        raise HTTPException(401, "This is not right.")
    session_id = secrets.token_urlsafe(32)
    logged_in[session_id] = name
    response.set_cookie("session", session_id, httponly=True, samesite="lax")


def user(request: Request) -> str | None:
    """Return the user of the request, for the dashboard's log; None refuses."""
    return logged_in.get(request.cookies.get("session", ""))


app.mount("/jobs", web.app(DSN, user=user))
