"""The app: put ``graphile_worker.django`` into INSTALLED_APPS."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.core import checks


class GraphileWorkerConfig(AppConfig):  # type: ignore[misc]
    """Brings ``manage.py gw``, the checks of the database, and the jobs in the admin."""

    name = "graphile_worker.django"
    label = "graphile_worker"
    verbose_name = "Jobs"

    def ready(self) -> None:
        """Register the checks."""
        checks.register(_check_databases, checks.Tags.database)


def _check_databases(databases: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    from graphile_worker.django.backend import GraphileWorkerBackend
    from graphile_worker.django.checks import check_database
    from graphile_worker.django.framework import backends

    handler = backends()
    ours = [handler[alias] for alias in handler]
    return [
        found
        for backend in ours
        if isinstance(backend, GraphileWorkerBackend) and backend.database in (databases or ())
        for found in check_database(backend)
    ]
