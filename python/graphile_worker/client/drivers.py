"""Run the verbs on the caller's connection: psycopg 3, SQLAlchemy 2 or Django.

Nothing here begins, commits or rolls back a transaction of the caller's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any, Protocol, TypeVar, cast

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from graphile_worker import errors
from graphile_worker.client.statements import Statement, Values
from graphile_worker.client.tracing import server_of, to_server
from graphile_worker.client.verbs import Rows, Verb, check

T = TypeVar("T")


class _SQLAlchemy(Protocol):
    """A Session or Connection of SQLAlchemy."""

    def close(self) -> None: ...
    def in_transaction(self) -> bool: ...


class _AsyncSQLAlchemy(Protocol):
    """An AsyncSession or AsyncConnection of SQLAlchemy."""

    def close(self) -> Awaitable[None]: ...
    def in_transaction(self) -> bool: ...


class _Django(Protocol):
    """A connection of Django."""

    vendor: str
    alias: str


#: What a verb can run on: also the alias of a Django connection.
SyncConn = psycopg.Connection[Any] | psycopg.Cursor[Any] | _SQLAlchemy | _Django | str
AsyncConn = psycopg.AsyncConnection[Any] | psycopg.AsyncCursor[Any] | _AsyncSQLAlchemy

_SYNC = {"sqlalchemy.Session", "sqlalchemy.scoped_session", "sqlalchemy.Connection"}
_ASYNC = {
    "sqlalchemy.AsyncSession",
    "sqlalchemy.async_scoped_session",
    "sqlalchemy.AsyncConnection",
}
_PSYCOPG = (psycopg.Connection, psycopg.AsyncConnection)
_DJANGO = {"django.BaseDatabaseWrapper", "django.ConnectionProxy"}
_ACCEPTED = (
    "pass a psycopg 3 connection or cursor, a SQLAlchemy session or connection,"
    " or a Django connection or its alias"
)


def _names(conn: object) -> set[str]:
    """Return the library and class of each of the object's types, such as sqlalchemy.Session."""
    return {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(conn).__mro__}


def _unusable(conn: object, asynchronous: bool) -> errors.InvalidConnection:
    names = _names(conn)
    shown = f"{type(conn).__module__}.{type(conn).__qualname__}"
    other = "an awaited one" if asynchronous else "one that is not awaited"
    if is_pool(conn):
        why = "is a pool: pass it to WorkerUtils, or one of its connections"
    elif is_engine(conn):
        why = "is an engine: pass it to WorkerUtils, or one of its connections or sessions"
    elif names & (_SYNC | _ASYNC) or isinstance(_connection_of(conn), _PSYCOPG):
        there = "graphile_worker" if asynchronous else "graphile_worker.aio"
        why = f"is not {other}: use the same name from {there}"
    else:
        why = f"is not a supported connection: {_ACCEPTED}"
    return errors.InvalidConnection(f"{shown} {why}")


def is_pool(source: object) -> bool:
    """Whether this is a pool of psycopg_pool."""
    return bool(
        _names(source) & {"psycopg_pool.ConnectionPool", "psycopg_pool.AsyncConnectionPool"}
    )


def is_engine(source: object) -> bool:
    """Whether this is an engine of SQLAlchemy."""
    return bool(_names(source) & {"sqlalchemy.Engine", "sqlalchemy.AsyncEngine"})


def _connection_of(conn: Any) -> Any:
    """Return the connection of a psycopg cursor, and anything else as it is."""
    return conn.connection if isinstance(conn, psycopg.Cursor | psycopg.AsyncCursor) else conn


def run(conn: Any, verb: Verb[T]) -> T:
    """Run a verb on a connection that waits; raise InvalidConnection for any other."""
    execute = _executor(conn)
    statements = _with_our_errors(conn, verb)
    try:
        request = next(statements)
        while True:
            try:
                rows = execute(*request)
            except Exception as error:
                request = statements.throw(error)
            else:
                request = statements.send(rows)
    except StopIteration as stop:
        result: T = stop.value
        return result


async def arun(conn: Any, verb: Verb[T]) -> T:
    """Run a verb on a connection that is awaited; raise InvalidConnection for any other."""
    execute = _async_executor(conn)
    statements = _with_our_errors(conn, verb)
    try:
        request = next(statements)
        while True:
            try:
                rows = await execute(*request)
            except Exception as error:
                request = statements.throw(error)
            else:
                request = statements.send(rows)
    except StopIteration as stop:
        result: T = stop.value
        return result


def _with_our_errors(conn: Any, verb: Verb[T]) -> Verb[T]:
    """Yield the verb's statements; raise a database's error, thrown in, as one of ours."""
    try:
        request = next(verb)
        while True:
            if (to := to_server.get()) is not None:
                to(server_of(conn))
            try:
                rows = yield request
            except Exception as error:
                statement, _ = request
                ours = translated(error, statement)
                if type(ours) is errors.SchemaError and _can_query(conn):
                    # Raises a clearer error where the schema is missing or old.
                    yield from _with_our_errors(conn, check(statement.schema))
                if ours is None:
                    raise
                raise ours from error
            request = verb.send(rows)
    except StopIteration as stop:
        result: T = stop.value
        return result


def run_either(conn: Any, verb: Verb[T]) -> T | Awaitable[T]:
    """Run a verb on a connection of either kind: the result has to be awaited if that has to be."""
    awaited = isinstance(_connection_of(conn), psycopg.AsyncConnection)
    return arun(conn, verb) if awaited or _names(conn) & _ASYNC else run(conn, verb)


def _executor(conn: Any) -> Callable[[Statement, Values], Rows]:
    conn = _connection_of(conn)
    if isinstance(conn, psycopg.Connection):
        # Not conn.cursor(): its class and rows are what the caller likes, such as dicts.
        cursor = psycopg.Cursor(conn, row_factory=tuple_row)

        def on_psycopg(statement: Statement, values: Values) -> Rows:
            return cursor.execute(statement.encoded, values).fetchall()

        return on_psycopg
    names = _names(conn)
    if names & _SYNC:
        return lambda statement, values: _sqlalchemy_rows(
            conn.execute(*_sqlalchemy(statement, values))
        )
    if isinstance(conn, str) or names & _DJANGO:
        return _on_django(conn)
    raise _unusable(conn, asynchronous=False)


def _async_executor(conn: Any) -> Callable[[Statement, Values], Awaitable[Rows]]:
    conn = _connection_of(conn)
    if isinstance(conn, psycopg.AsyncConnection):
        cursor = psycopg.AsyncCursor(conn, row_factory=tuple_row)

        async def on_psycopg(statement: Statement, values: Values) -> Rows:
            await cursor.execute(statement.encoded, values)
            return await cursor.fetchall()

        return on_psycopg
    if _names(conn) & _ASYNC:

        async def on_sqlalchemy(statement: Statement, values: Values) -> Rows:
            return _sqlalchemy_rows(await conn.execute(*_sqlalchemy(statement, values)))

        return on_sqlalchemy
    raise _unusable(conn, asynchronous=True)


def _sqlalchemy(statement: Statement, values: Values) -> tuple[Any, Values]:
    from sqlalchemy import text

    return text(statement.colons), values


def _sqlalchemy_rows(result: Any) -> Rows:
    rows: Rows = result.all()
    return rows


def _on_django(conn: Any) -> Callable[[Statement, Values], Rows]:
    if isinstance(conn, str):
        from django.db import connections

        conn = connections[conn]
    if conn.vendor != "postgresql":
        raise errors.InvalidConnection(
            f"the Django database {conn.alias!r} is {conn.vendor}: jobs live in PostgreSQL"
        )

    def execute(statement: Statement, values: Values) -> Rows:
        with conn.cursor() as cursor:
            cursor.execute(statement.text, values)
            return [tuple(map(_aware, row)) for row in cursor.fetchall()]

    return execute


def _aware(value: Any) -> Any:
    """Django without USE_TZ reads times as local ones."""
    naive = isinstance(value, datetime) and value.tzinfo is None
    return value.astimezone() if naive else value


def in_one_transaction(conn: Any) -> AbstractContextManager[object]:
    """Return a block that is one transaction, unless the caller is in one already.

    A caller in a transaction ends it, or does not, as before.
    """
    conn = _connection_of(conn)
    if isinstance(conn, psycopg.Connection):
        return conn.transaction() if _commits_itself(conn) else nullcontext()
    if isinstance(conn, str) or _names(conn) & _DJANGO:
        from django.db import connections, transaction

        alias = conn if isinstance(conn, str) else conn.alias
        if connections[alias].get_autocommit():
            block: Any = transaction.atomic(using=alias)
            return cast("AbstractContextManager[object]", block)
    return nullcontext()


def in_one_transaction_async(conn: Any) -> AbstractAsyncContextManager[object]:
    """Return in_one_transaction for a connection that is awaited."""
    conn = _connection_of(conn)
    if isinstance(conn, psycopg.AsyncConnection) and _commits_itself(conn):
        return conn.transaction()
    return nullcontext()


def _commits_itself(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    return conn.autocommit and conn.info.transaction_status == TransactionStatus.IDLE


def _can_query(conn: Any) -> bool:
    """Whether a query can be sent after an error: not in a transaction that it has ended."""
    raw = _connection_of(conn)
    return isinstance(raw, _PSYCOPG) and raw.info.transaction_status == TransactionStatus.IDLE


_INVALID: dict[str, type[errors.GraphileWorkerError]] = {
    "GWBID": errors.InvalidIdentifier,
    "GWBQN": errors.InvalidQueueName,
    "GWBJK": errors.InvalidJobKey,
    "GWBKM": errors.InvalidJobKeyMode,
    "GWBRT": errors.InvalidRoute,
    "GWBMA": errors.InvalidMaxAttempts,
    "GWBPR": errors.InvalidPriority,
    "GWBFL": errors.InvalidFlags,
    "GWBST": errors.InvalidFilter,
    "GWBMJ": errors.InvalidFilter,
    "GWBCR": errors.InvalidCrontab,
    "GWBCO": errors.InvalidControl,
    "GWBLI": errors.InvalidControl,
    "GWBPS": errors.InvalidPayload,
    "GWBSC": errors.InvalidSchema,
    "GWBHI": errors.InvalidHistory,
    "GWBTI": errors.InvalidConnection,
    "22P02": errors.InvalidPayload,  # what a dumps of the caller's made is no JSON
    "22008": errors.InvalidRunAt,  # a time beyond what PostgreSQL holds
}
_UNKNOWN_OBJECT = {"3F000", "42883", "42P01", "42704"}
_DENIED = "42501"


def translated(error: BaseException, statement: Statement) -> errors.GraphileWorkerError | None:
    """Return our error for a database's error, or None where there is none."""
    source = _database_error(error)
    code = getattr(source, "sqlstate", None) or getattr(source, "pgcode", None)
    if source is None or code is None:
        return None
    said = _message(source)
    ours: errors.GraphileWorkerError | None = None
    named = "" if statement.schema == "graphile_worker" else f" --schema {statement.schema}"
    if code in _INVALID:
        ours = _INVALID[code](said)
    elif code == _DENIED:
        ours = errors.AccessDenied(
            f"{said}: {statement.verb} needs the access level {statement.level}. As the"
            " schema's owner,"
            f" run `gw-install grant ROLE {statement.level}{named}`, or"
            f" select {statement.schema}.grant_access('ROLE', '{statement.level}')"
        )
    elif code in _UNKNOWN_OBJECT:
        ours = errors.SchemaError(
            f"{said}: there is no graphile_worker in the schema {statement.schema}, or an older one"
            f" than this package needs. `gw-install status{named}` says which; then run `gw-install"
            f" install`, `adopt` or `upgrade`"
        )
    elif code == "55P03" and statement.verb.startswith(("delete_unused", "set_limit")):
        ours = errors.Busy(said)
    if ours is not None:
        ours.sqlstate = code
    return ours


def _database_error(error: BaseException) -> BaseException | None:
    """Return the driver's own error, which libraries wrap."""
    seen: BaseException | None = error
    for _ in range(5):
        if seen is None or isinstance(seen, psycopg.Error) or getattr(seen, "pgcode", None):
            return seen
        seen = getattr(seen, "orig", None) or seen.__cause__
    return None


def _message(error: BaseException) -> str:
    diag = getattr(error, "diag", None)
    message = getattr(diag, "message_primary", None) or str(error).splitlines()[0]
    hint = getattr(diag, "message_hint", None) or getattr(error.__cause__, "hint", None)
    return f"{message}. {hint}" if hint else str(message)
