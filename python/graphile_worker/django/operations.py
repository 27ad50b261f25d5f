"""Install the queue in a migration of Django."""

from __future__ import annotations

from typing import Any

import psycopg
from django.db.migrations.operations.base import Operation, OperationCategory

from graphile_worker.errors import InvalidConnection
from graphile_worker.install import install, uninstall
from graphile_worker.naming import SCHEMA


class InstallGraphileWorker(Operation):  # type: ignore[misc]
    """Install the queue, or report that it is there; backwards, drop it if it has no jobs.

    ``schema`` is where it is, and ``mode`` is extension, plain or auto, as of ``gw-install``.
    """

    category = OperationCategory.SQL
    reduces_to_sql = False
    reversible = True

    def __init__(self, schema: str = SCHEMA, mode: str = "auto") -> None:
        self.schema, self.mode = schema, mode

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Change nothing: the queue has no models."""

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Install the queue."""
        connection = _connection(schema_editor)
        if connection is not None:
            install(connection, schema=self.schema, mode=self.mode)  # type: ignore[arg-type]

    def database_backwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Drop the queue; raise InUseError if it has jobs."""
        connection = _connection(schema_editor)
        if connection is not None:
            uninstall(connection, schema=self.schema)

    def describe(self) -> str:
        """Return what migrate prints."""
        return f"Install graphile_worker in the schema {self.schema}"


def _connection(schema_editor: Any) -> psycopg.Connection[Any] | None:
    """Return psycopg's connection; None for a database that is not PostgreSQL, as of tests."""
    if schema_editor.connection.vendor != "postgresql":
        return None
    schema_editor.connection.ensure_connection()
    found = schema_editor.connection.connection
    if not isinstance(found, psycopg.Connection):
        raise InvalidConnection(
            f"Django uses {type(found).__module__.partition('.')[0]}: install psycopg 3, which"
            " Django prefers, to install the queue in a migration"
        )
    return found
