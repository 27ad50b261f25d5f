"""How every change of the schema is made: one transaction, one lock, and retries with others."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg
from psycopg import errors as pg

from graphile_worker.errors import BusyError, InstallError, RightsError
from graphile_worker.install.citus import check_node
from graphile_worker.install.dependants import lock_holders
from graphile_worker.install.session import (
    Connection,
    acting_role,
    bare,
    fetch,
    refused,
    run_script,
    transaction,
)


@dataclass(frozen=True)
class Outcome:
    """What was done, or with ``dry_run`` would be done; no SQL means that nothing was needed."""

    message: str
    sql: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether there was anything to do."""
        return bool(self.sql)


@dataclass(frozen=True)
class LockRetries:
    """How long to stand in others' way, and how long to try.

    A lock that is not had within ``lock_timeout_seconds`` is given up, since everybody else queues
    up behind the request, and retried later until ``seconds`` have passed.
    """

    seconds: float = 60.0
    lock_timeout_seconds: float = 1.0
    #: Is told what is waited for, each time that it is tried again.
    on_wait: Callable[[str], None] = lambda why: None


class NotYetError(Exception):
    """Jobs run and someone asked to wait for them, or Node is still making its tables."""


CONTENDED = (pg.LockNotAvailable, pg.DeadlockDetected, pg.SerializationFailure, NotYetError)
# Node's graphile-worker takes none of our locks when it makes or migrates its schema beside us.
_RACED = (
    pg.DuplicateSchema, pg.DuplicateTable, pg.DuplicateObject, pg.DuplicateFunction,
    pg.UniqueViolation, pg.UndefinedTable, pg.UndefinedFunction, pg.InternalError_,
)  # fmt: skip
_RACES = 6


def change(
    conn: Connection,
    schema: str,
    decide: Callable[[], Outcome],
    *,
    dry_run: bool = False,
    lock_retries: LockRetries | None = None,
) -> Outcome:
    """Decide under the lock what to do and do it, in one transaction, again while others are busy.

    With ``dry_run`` only decide. Raise BusyError when the retries is over, and RightsError or
    InstallError for what the server refuses, or Citus on this node; nothing is changed then.
    """
    lock_retries = lock_retries or LockRetries()
    started = time.monotonic()
    deadline = started + lock_retries.seconds
    pause, raced = 0.1, 0
    while True:
        try:
            with transaction(conn):
                check_node(conn, schema)
                if dry_run:
                    planned = decide()
                    if not planned.changed:
                        return planned
                    message = f"Dry run, nothing was changed. Without it: {planned.message}"
                    return Outcome(message, planned.sql)
                # Whoever else installs or upgrades this schema waits here, and in no one's way.
                _lock_timeout(conn, lock_retries.seconds)
                fetch(
                    conn,
                    "select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(%s, 0))",
                    [f"graphile_worker {schema}"],
                )
                _lock_timeout(conn, lock_retries.lock_timeout_seconds)
                outcome = decide()
                for text in outcome.sql:
                    run_script(conn, text)
                return outcome
        except (*CONTENDED, *_RACED) as error:
            raced += isinstance(error, _RACED)
            if time.monotonic() + pause > deadline or raced > _RACES:
                raise BusyError(
                    f"the schema {schema} was busy for {time.monotonic() - started:.0f} seconds"
                    f" ({str(error).splitlines()[0]}){lock_holders(conn, schema)}:"
                    " try again, or give it longer with --timeout; nothing was changed"
                ) from error
            lock_retries.on_wait(str(error).splitlines()[0])
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, 2.0)
        except pg.InsufficientPrivilege as error:
            user = acting_role(conn)
            raise RightsError(
                f"role {user} may not do this ({error.diag.message_primary}): connect as"
                f" the schema's owner, or grant create on database {bare(conn.info.dbname)} to"
                f" {bare(user)}; nothing was changed"
            ) from error
        except (pg.UndefinedFile, pg.FeatureNotSupported, pg.InvalidParameterValue) as error:
            raise InstallError(
                f"the server refuses ({error.diag.message_primary}): put the extension's files in"
                " place with `gw-install files put`, or use --mode plain; nothing was changed"
            ) from error
        except psycopg.Error as error:
            raise refused(conn, error) from error


def _lock_timeout(conn: Connection, seconds: float) -> None:
    value = f"{max(1, int(seconds * 1000))}ms"
    fetch(conn, "select pg_catalog.set_config('lock_timeout', %s, true)", [value])


def as_owner(conn: Connection, schema: str, text: str) -> str:
    """Return plain SQL that changes the queue in the name of its owner, whoever runs it.

    What it makes anew belongs to the owner, too; a superuser would otherwise leave objects that the
    owner can neither call nor replace.
    """
    (owner, role) = fetch(
        conn,
        "select quote_ident(pg_get_userbyid(relowner)), quote_ident(current_user)"
        " from pg_catalog.pg_class where relname = '_private_jobs' and relnamespace ="
        " (select oid from pg_catalog.pg_namespace where nspname = %s)",
        [schema],
    )[0]
    if owner == role:
        return text
    return f"set local role {owner};\n{text}set local role {role};\n"


def kind(mode: str) -> str:
    """Describe an install mode in words."""
    return "an extension" if mode == "extension" else "plain objects"
