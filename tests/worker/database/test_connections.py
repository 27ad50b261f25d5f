"""The connection that takes jobs: libpq by itself, so whatever psycopg did for it is tried here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest
from graphile_worker.worker.database.connections import Connection, DirectConnection
from graphile_worker.worker.database.failures import is_outage
from support.pg import Database, wait_for

pytestmark = pytest.mark.majors(13, 18)


@pytest.fixture(params=[True, False], ids=["prepared", "not prepared"])
def link(db: Database, request: pytest.FixtureRequest) -> DirectConnection:
    return DirectConnection(connect(db), prepare=request.param)


def connect(db: Database) -> Callable[[], Awaitable[psycopg.AsyncConnection[Any]]]:
    async def connection() -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(
            db.dsn, autocommit=True, application_name="linked"
        )

    return connection


def run(body: Callable[[], Awaitable[None]]) -> None:
    """Run it; nothing may be left to the event loop to complain of."""
    complaints: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        async with asyncio.timeout(60):
            await body()

    asyncio.run(main())
    assert complaints == []


def terminate(db: Database) -> None:
    db.rows(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'linked'"
    )


def test_it_answers_as_psycopg_does_but_for_times(db: Database, link: DirectConnection) -> None:
    query = b"""select 1, %s::text, null::text, '{"a": 1}'::jsonb, %s::int4, %s::text[], 7::int8,
  timestamptz '2000-01-01 00:00:01+00'"""
    values = ("%s \\ é", 5, ['a"b', "c,d", "{}", ""])

    async def body() -> None:
        plain = Connection(connect(db))
        (expected,) = await plain.rows(query, values)
        for _ in range(2):
            ((*row, at),) = await link.rows(query, values)
            assert row == list(expected[:-1])
            assert bytes(at) == (1_000_000).to_bytes(8, "big")
        ((*row, _),) = await link.rows(query, ("other", 6, []))
        assert row[1::4] == ["other", []]
        await plain.close()
        await link.close()

    run(body)


def test_what_does_not_fit_into_the_socket_at_once_arrives(link: DirectConnection) -> None:
    async def body() -> None:
        names = [f"{n:0100}" for n in range(200_000)]
        query = b"select cardinality(%s::text[]), repeat('x', %s::int4)"
        for _ in range(2):
            assert await link.rows(query, (names, 20_000_000)) == [(200_000, "x" * 20_000_000)]
        await link.close()

    run(body)


def test_an_error_is_told_and_the_connection_is_kept(link: DirectConnection) -> None:
    async def body() -> None:
        query = b"select pg_backend_pid(), 1 / %s::int4"
        ((pid, _),) = await link.rows(query, (1,))
        with pytest.raises(psycopg.errors.DivisionByZero, match="division by zero"):
            await link.rows(query, (0,))
        assert await link.rows(query, (1,)) == [(pid, 1)]
        await link.close()

    run(body)


def test_a_cancelled_statement_is_nobodys_answer(link: DirectConnection) -> None:
    async def body() -> None:
        query = b"select %s::text from pg_sleep(%s::float8)"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await link.rows(query, ("old", 30))
        assert await link.rows(query, ("new", 0)) == [("new",)]
        await link.close()

    run(body)


def test_a_connection_lost_while_it_was_idle_is_not_missed(
    db: Database, link: DirectConnection
) -> None:
    async def body() -> None:
        query = b"select pg_backend_pid(), %s::int4"
        ((pid, _),) = await link.rows(query, (1,))
        await asyncio.to_thread(terminate, db)
        while link.is_open:
            await asyncio.sleep(0.01)
        ((other, two),) = await link.rows(query, (2,))
        assert (other != pid, two) == (True, 2)
        await link.close()

    run(body)


def test_a_connection_lost_in_the_middle_is_told(db: Database, link: DirectConnection) -> None:
    async def body() -> None:
        query = b"select %s::int4 from pg_sleep(%s::float8)"
        waiting = asyncio.create_task(link.rows(query, (1, 30)))
        active = (
            "select count(*) from pg_stat_activity where application_name = 'linked'"
            " and wait_event = 'PgSleep'"
        )
        await asyncio.to_thread(wait_for, lambda: db.value(active))
        await asyncio.to_thread(terminate, db)
        with pytest.raises(psycopg.OperationalError) as caught:
            await waiting
        assert is_outage(caught.value)
        assert await link.rows(query, (2, 0)) == [(2,)]
        await link.close()

    run(body)
