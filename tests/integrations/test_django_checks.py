"""What `manage.py check` finds, and what migrations install and take back."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict
from support.bouncer import NEEDS_PGBOUNCER, pgbouncer
from support.pg import Database

from integrations.project import G, Project

pytestmark = pytest.mark.majors(18)


@pytest.fixture
def project(empty_db: Database) -> Project:
    found = Project(empty_db)
    found.manage("migrate", "-v", "0")
    return found


def test_a_migration_installs_the_queue_and_takes_it_back(empty_db: Database) -> None:
    project = Project(empty_db)
    strict = ("check", "--database", "default", "--fail-level", "WARNING")
    assert "W004" in project.manage(*strict, code=1)
    project.manage("migrate", "-v", "0")
    assert empty_db.value(f"select {G}.version()")
    project.manage(*strict)
    project.python("add.enqueue(1)")
    assert "job" in project.manage("migrate", "app", "zero", code=1), "a queue with jobs is kept"
    project.work()
    project.manage("migrate", "app", "zero")
    assert empty_db.value("select to_regclass('graphile_worker.jobs')") is None


@NEEDS_PGBOUNCER
@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_pooler_without_listen_is_named_with_the_remedy(
    project: Project, empty_db: Database, tmp_path: Path, mode: str
) -> None:
    strict = ("check", "--database", "default", "--fail-level", "WARNING")
    with pgbouncer(empty_db, tmp_path, mode) as dsn:
        project.env.update(PGHOST="127.0.0.1", PGPORT=str(conninfo_to_dict(dsn)["port"]))
        if mode == "session":
            project.manage(*strict)
            return
        warned = project.manage(*strict, code=1)
        assert "W006" in warned
        assert "GW_LISTEN_DSN" in warned
        project.env["GW_LISTEN_DSN"] = empty_db.dsn
        project.manage(*strict)


def test_settings_that_do_not_fit_are_named(project: Project) -> None:
    script = """
        from django.core.checks import run_checks
        from graphile_worker.django import GraphileWorkerBackend
        for options in ({"nosuch": 1}, {"database": "nosuch"}):
            found = GraphileWorkerBackend("x", {"OPTIONS": options}).check()
            show([message.id for message in found])
    """
    assert project.python(script) == [[["graphile_worker.E001"]], [["graphile_worker.E002"]]]
    assert "send_email" not in project.manage("gw", "jobs", "--json")
