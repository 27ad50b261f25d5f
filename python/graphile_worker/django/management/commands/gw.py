"""manage.py gw: the command line gw on the database of the settings."""

from __future__ import annotations

import os
import sys
from typing import Any

from django.core.management.base import BaseCommand

from graphile_worker.gw.cli import main

#: What `gw run` runs without an argument.
FOUND = "graphile_worker.django.found"


class Command(BaseCommand):  # type: ignore[misc]
    """Runs gw, with the connection and the tasks of the project."""

    help = "Run a worker of the project's tasks, and operate the queue: see `manage.py gw --help`."
    requires_system_checks = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Hand the arguments to gw as they are."""
        sys.exit(self.handle(*argv[2:]))

    def handle(self, *args: str, **options: Any) -> int:
        """Run gw; return its exit code."""
        from graphile_worker.django.backend import GraphileWorkerBackend
        from graphile_worker.django.checks import dsn_of
        from graphile_worker.django.framework import backends

        handler = backends()
        ours = [one for one in (handler[alias] for alias in handler)
                if isinstance(one, GraphileWorkerBackend)]  # fmt: skip
        database = ours[0].database if ours else "default"
        os.environ.setdefault("GW_DSN", dsn_of(database))
        if ours:
            os.environ.setdefault("GW_SCHEMA", ours[0].settings.schema)
        given = list(args)
        if given[:1] == ["run"] and all(part.startswith("-") for part in given[1:2]):
            given.insert(1, FOUND)
        return main(given)
