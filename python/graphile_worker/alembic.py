"""Operations of Alembic: ``op.install_graphile_worker()`` in a migration; import this in env.py.

>>> import graphile_worker.alembic  # in env.py
>>> def upgrade(): op.install_graphile_worker()
>>> def downgrade(): op.uninstall_graphile_worker()
"""

from __future__ import annotations

from typing import Any

import psycopg
from alembic.operations import MigrateOperation, Operations

from graphile_worker.errors import InvalidConnection
from graphile_worker.install import install, offline_sql, uninstall
from graphile_worker.naming import SCHEMA


@Operations.register_operation("install_graphile_worker")
class InstallGraphileWorker(MigrateOperation):
    """Install the queue, or report that it is there."""

    def __init__(self, schema: str, mode: str) -> None:
        self.schema, self.mode = schema, mode

    @classmethod
    def install_graphile_worker(
        cls, operations: Operations, schema: str = SCHEMA, mode: str = "auto"
    ) -> None:
        """Install the queue in the migration's transaction.

        Args:
            operations: given by Alembic.
            schema: where the queue is.
            mode: extension, plain or auto, as of ``gw-install``; offline, auto is plain.

        Raises:
            InvalidConnection: the driver of the URL is not psycopg 3.
            InstallError: the schema holds something else, or another version.
        """
        operations.invoke(cls(schema, mode))

    def reverse(self) -> MigrateOperation:
        """Return the way back."""
        return UninstallGraphileWorker(self.schema)


@Operations.register_operation("uninstall_graphile_worker")
class UninstallGraphileWorker(MigrateOperation):
    """Drop the queue."""

    def __init__(self, schema: str, with_jobs: bool = False) -> None:
        self.schema, self.with_jobs = schema, with_jobs

    @classmethod
    def uninstall_graphile_worker(
        cls, operations: Operations, schema: str = SCHEMA, with_jobs: bool = False
    ) -> None:
        """Drop the queue; raise InUseError if it has jobs, unless ``with_jobs``."""
        operations.invoke(cls(schema, with_jobs))

    def reverse(self) -> MigrateOperation:
        """Return the way back."""
        return InstallGraphileWorker(self.schema, "auto")


@Operations.implementation_for(InstallGraphileWorker)
def _install(operations: Operations, operation: InstallGraphileWorker) -> None:
    if operations.migration_context.as_sql:
        mode = "plain" if operation.mode == "auto" else operation.mode
        _write(operations, offline_sql("install", mode=mode, schema=operation.schema))
        return
    mode_given: Any = operation.mode
    install(_connection(operations), schema=operation.schema, mode=mode_given)


@Operations.implementation_for(UninstallGraphileWorker)
def _uninstall(operations: Operations, operation: UninstallGraphileWorker) -> None:
    if operations.migration_context.as_sql:
        _write(operations, offline_sql("uninstall", schema=operation.schema))
        return
    uninstall(_connection(operations), schema=operation.schema, with_jobs=operation.with_jobs)


def _write(operations: Operations, sql: str) -> None:
    impl = operations.migration_context.impl
    impl.static_output(sql)


def _connection(operations: Operations) -> psycopg.Connection[Any]:
    found = operations.get_bind().connection.driver_connection
    if not isinstance(found, psycopg.Connection):
        raise InvalidConnection(
            f"the migration's connection is of {type(found).__module__.partition('.')[0]}: use"
            " postgresql+psycopg:// for migrations; the application may use another driver"
        )
    return found
