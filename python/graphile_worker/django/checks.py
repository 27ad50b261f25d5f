"""The checks of the database: that the queue is there, may be used, and wakes its workers."""

from __future__ import annotations

import os
from collections.abc import Iterable

import psycopg
from django.core import checks
from django.db import connections, transaction
from psycopg.conninfo import make_conninfo

from graphile_worker.client import drivers, verbs
from graphile_worker.django.backend import GraphileWorkerBackend
from graphile_worker.errors import GraphileWorkerError, InvalidConnection, SchemaError
from graphile_worker.gw.doctor.findings import Examination, SkippedError
from graphile_worker.gw.doctor.server_checks import pooler
from graphile_worker.gw.queue import Queue

_MAY_ADD = """
    select pg_catalog.bool_or(pg_catalog.has_function_privilege(functions.oid, 'execute')),
      current_user::text
    from pg_catalog.pg_proc as functions
    join pg_catalog.pg_namespace as schemas on schemas.oid = functions.pronamespace
    where schemas.nspname = %s and functions.proname = 'add_job'
"""


def check_database(backend: GraphileWorkerBackend) -> Iterable[checks.CheckMessage]:
    """Check that the queue is there, and that the role of the connection may add jobs.

    Warnings, since errors would keep ``migrate`` from installing it.
    """
    connection = connections[backend.database]
    try:
        with transaction.atomic(using=backend.database):
            drivers.run(backend.database, verbs.check(backend.settings.schema))
            with connection.cursor() as cursor:
                cursor.execute(_MAY_ADD, [backend.settings.schema])
                found = cursor.fetchone()
    except (SchemaError, InvalidConnection) as error:
        yield checks.Warning(
            f"the queue of TASKS[{backend.alias!r}] cannot be used: {error}",
            hint="Put InstallGraphileWorker() into a migration, or run `gw-install install`.",
            id="graphile_worker.W004",
        )  # fmt: skip
        return
    except GraphileWorkerError as error:
        yield checks.Warning(f"TASKS[{backend.alias!r}]: {error}", id="graphile_worker.W005")
        return
    if found is not None and not found[0]:
        yield checks.Warning(
            f"the database role {found[1]} may not add jobs",
            hint=f"As the queue's owner, run `gw-install grant {found[1]} enqueue`, or admin to"
            " read results as well.",
            id="graphile_worker.W005",
        )  # fmt: skip
    yield from _check_pooler(backend)


def _check_pooler(backend: GraphileWorkerBackend) -> Iterable[checks.CheckMessage]:
    if os.environ.get("GW_LISTEN_DSN"):  # of the workers, which have a direct way then
        return
    try:
        with psycopg.connect(dsn_of(backend.database), autocommit=True) as conn:
            found = pooler(Examination(Queue(conn, backend.settings.schema)))
    except (SkippedError, psycopg.Error):  # it cannot be told, or not without Django's own ways
        return
    for each in found:
        yield checks.Warning(
            f"DATABASES[{backend.database!r}]: {each.what}, so that LISTEN does not work",
            hint="Give workers a direct way, `manage.py gw run --listen-dsn DSN` or the variable"
            " GW_LISTEN_DSN, or let them only poll, `--no-listen`.",
            id="graphile_worker.W006",
        )


def dsn_of(alias: str) -> str:
    """Return the connection string of a database of the settings."""
    params = dict(connections[alias].get_connection_params())
    names = {
        "dbname", "user", "password", "host", "port", "service", "passfile", "options", "sslmode",
        "sslcert", "sslkey", "sslrootcert", "connect_timeout", "target_session_attrs",
    }  # fmt: skip
    return make_conninfo(**{name: value for name, value in params.items() if name in names})
