"""Our statements on someone else's connection, which keeps its factories, loaders and settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from psycopg.types.json import JsonbLoader

from graphile_worker.errors import InstallError

Connection = psycopg.Connection[Any]

# As pg_dump does: a role's time limits are for its queries, not for a change that waits its turn,
# and names must come out of the catalogue in one spelling.
_SETTINGS = {
    "search_path": "pg_catalog, pg_temp",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "quote_all_identifiers": "off",
    "standard_conforming_strings": "on",
}


def _cursor(conn: Connection) -> psycopg.Cursor[tuple[Any, ...]]:
    cursor = psycopg.Cursor(conn, row_factory=tuple_row)
    cursor.adapters.register_loader("jsonb", JsonbLoader)  # Django's connections leave it as text
    return cursor


def run_script(conn: Connection, text: str) -> None:
    """Run SQL, one statement or many, without parameters."""
    with _cursor(conn) as cursor:
        cursor.execute(text.encode(conn.info.encoding))


def fetch(conn: Connection, query: str, params: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    """Run a query and return its rows, as tuples whatever the connection's row factory."""
    with _cursor(conn) as cursor:
        return cursor.execute(query.encode(conn.info.encoding), params or None).fetchall()


def acting_role(conn: Connection) -> str:
    """Return the role in whose name the connection acts, which SET ROLE may have changed."""
    try:
        with conn.transaction():
            return str(fetch(conn, "select current_user")[0][0])
    except psycopg.Error:
        return conn.info.user


@contextmanager
def transaction(conn: Connection, *, force_rollback: bool = False) -> Iterator[None]:
    """Run the block in a transaction with our settings, which are put back at its end.

    On a connection that is not in autocommit mode it is a savepoint of the caller's transaction,
    which begins here if need be: only the caller commits that.
    """
    if not isinstance(conn, psycopg.Connection):
        raise TypeError(
            f"{type(conn).__module__}.{type(conn).__name__} is not a psycopg.Connection: pass the"
            " psycopg 3 connection underneath, or run the text of offline_sql with your driver"
        )
    if not conn.autocommit and conn.info.transaction_status == TransactionStatus.IDLE:
        run_script(conn, "select")
    with conn.transaction(force_rollback=force_rollback):
        encoding = conn.info.parameter_status("client_encoding") or "UTF8"
        _set(conn, {"client_encoding": "UTF8"})  # first: SQL_ASCII would make every text bytes
        wanted = dict(_SETTINGS)
        if conn.info.server_version >= 170000:
            wanted["transaction_timeout"] = "0"
        names = [*wanted, "lock_timeout"]  # that is set by those who wait for locks
        query = "select " + ", ".join(["pg_catalog.current_setting(%s)"] * len(names))
        before = dict(zip(names, fetch(conn, query, names)[0], strict=True))
        _set(conn, wanted)
        yield
        _set(conn, {**before, "client_encoding": encoding})


def _set(conn: Connection, settings: dict[str, str]) -> None:
    query = "select " + ", ".join(["pg_catalog.set_config(%s, %s, true)"] * len(settings))
    fetch(conn, query, [part for setting in settings.items() for part in setting])


@contextmanager
def message(conn: Connection) -> Iterator[None]:
    """Raise what the server refuses in the block as an InstallError."""
    try:
        yield
    except psycopg.Error as error:
        raise refused(conn, error) from error


def bare(name: str) -> str:
    """Return a role's or database's name as SQL in a message has it: quoted only where it must."""
    quoted = '"' + name.replace('"', '""') + '"'
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else quoted


def refused(conn: Connection, error: psycopg.Error) -> InstallError:
    """Return what the server's refusal means here, in one paragraph with the remedy."""
    said = " ".join((error.diag.message_primary or str(error)).split())
    if isinstance(error, pg.ReadOnlySqlTransaction):
        return InstallError(
            f"the server takes no changes from this session ({said}): connect to the primary, or,"
            " where only default_transaction_read_only is on, set it off, for instance with"
            " PGOPTIONS='-c default_transaction_read_only=off'; nothing was changed"
        )
    if isinstance(error, pg.ReservedName):
        return InstallError(
            f"the server keeps such names for itself ({said}): choose another with --schema;"
            " nothing was changed"
        )
    if conn.broken or conn.closed:
        return InstallError(
            f"the connection was lost ({said}): what was not committed is undone; see with"
            " `gw-install status` and run this again"
        )
    if error.sqlstate == "GWBIN":  # our script, which says what to do
        return InstallError(f"{said}. {error.diag.message_hint} Nothing was changed")
    return InstallError(f"the server refuses ({said}); nothing was changed")
