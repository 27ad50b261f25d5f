"""What the errors of the database mean for a worker."""

from __future__ import annotations

import psycopg

from graphile_worker.errors import (
    AccessDenied,
    GraphileWorkerError,
    InvalidConnection,
    SchemaError,
    UntrustedOwner,
)
from graphile_worker.worker.database.connections import NotConnectedError

#: The code of get_jobs for a worker that has ended or was presumed dead.
WORKER_ENDED = "GWBWE"


def is_hopeless(error: BaseException) -> bool:
    """Whether no retry can fix the error: schema or rights are missing, the login is refused."""
    if isinstance(error, SchemaError | AccessDenied | InvalidConnection | UntrustedOwner):
        return True
    code = getattr(error, "sqlstate", None) or ""
    # A login that is refused, and a database that does not exist.
    return isinstance(error, psycopg.Error) and (code[:2] == "28" or code == "3D000")


def is_outage(error: BaseException) -> bool:
    """Whether the database is away, or busy, whatever it is told."""
    if not isinstance(error, psycopg.Error):
        return isinstance(error, OSError | SchemaError | AccessDenied | InvalidConnection)
    code = error.sqlstate
    if code is None or isinstance(error, NotConnectedError):
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    # Connection exceptions, rollbacks, lack of resources, operator intervention, a standby.
    return code[:2] in ("08", "40", "53", "57", "58") or code in ("25006", "26000", "0A000")


def is_uncertain(error: BaseException) -> bool:
    """Whether the statement may have been committed although its answer did not arrive."""
    if isinstance(error, NotConnectedError | GraphileWorkerError):
        return False
    severity = error.diag.severity_nonlocalized if isinstance(error, psycopg.Error) else None
    return severity != "ERROR"  # which undoes the statement


def is_of_jobs(error: BaseException) -> bool:
    """Whether the database refuses a statement for what it says of its jobs."""
    return not is_outage(error)
