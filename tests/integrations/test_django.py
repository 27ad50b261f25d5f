"""Django's tasks on the queue: a project, its commands, and a worker, each a process."""

from __future__ import annotations

import re
import subprocess
import textwrap
from pathlib import Path

import pytest
from support.pg import Database, wait_for

from integrations.project import PYTHON, SHOP, G, Project

pytestmark = pytest.mark.majors(18)


@pytest.fixture
def project(empty_db: Database) -> Project:
    found = Project(empty_db)
    found.manage("migrate", "-v", "0")
    return found


def test_a_task_is_enqueued_with_the_transaction_of_the_caller(
    project: Project, empty_db: Database
) -> None:
    found = project.python(
        """
        try:
            with transaction.atomic():
                add.enqueue(1, b=2)
                raise ValueError
        except ValueError:
            pass
        with transaction.atomic():
            result = add.using(priority=5, queue_name="slow").enqueue(1, b=2)
            show(result.id, str(result.status), result.args, result.kwargs, result.enqueued_at is not None)
            with connection.cursor() as cursor:
                cursor.execute("select count(*) from graphile_worker.jobs")
                show(cursor.fetchone()[0], connection.in_atomic_block)
        """
    )
    assert found[0][1:] == ["READY", [1], {"b": 2}, True]
    assert found[1] == [1, True]
    rows = empty_db.rows(
        f"select id::text, task_identifier, queue_name, priority, flags, max_attempts from {G}.jobs"
    )
    assert rows == [(found[0][0], "app.tasks.add", None, -5, {"queue:slow": True}, 3)]


def test_options_of_a_job_and_bad_ones(project: Project, empty_db: Database) -> None:
    found = project.python(
        """
        from datetime import datetime, timedelta
        later = timezone.now() + timedelta(hours=1)
        one = add.using(job_key="k", max_attempts=1, serial="line", run_after=later)
        show(one.enqueue(1).id == one.enqueue(2).id)
        for bad in (dict(max_attempts=0), dict(job_key=""), dict(queue_name="nosuch"),
                    dict(priority=101), dict(run_after=datetime(2030, 1, 1))):
            try:
                add.using(**bad).enqueue(1)
            except Exception as error:
                show(type(error).__name__.removesuffix("Error"))
        try:
            add.enqueue({1})
        except TypeError as error:
            show("TypeError")
        """
    )
    assert found == [[True], *[["InvalidTask"]] * 5, ["TypeError"]]
    assert empty_db.rows(f"select queue_name, key, max_attempts, run_at > now() from {G}.jobs") == [
        ("line", "k", 1, True)
    ]


def test_tasks_run_with_retries_results_and_signals(project: Project, empty_db: Database) -> None:
    empty_db.rows(f"select {G}.keep_history(payloads := true)")
    ids = project.python(
        """
        import asyncio
        show(add.enqueue(1, b=2).id, add_async.enqueue(3, 4).id, flaky.enqueue(2).id,
             flaky.enqueue(9).id, returns_a_set.enqueue().id,
             asyncio.run(add.aenqueue(5)).id)
        """
    )[0]
    project.work()
    states = empty_db.rows(
        f"select id, attempts from {G}.jobs where attempts < max_attempts order by id"
    )
    assert [attempts for _, attempts in states] == [1, 1, 1], "they wait to be tried again"
    for _ in range(2):
        empty_db.rows(f"update {G}._private_jobs set run_at = now() where attempts < max_attempts")
        project.work()
    found = project.python(
        f"""
        for id in {ids!r}:
            result = backend.get_result(id)
            show(str(result.status), result.return_value if result.status == "SUCCESSFUL" else None,
                 result.attempts, [error.exception_class_path for error in result.errors],
                 result.args, result.started_at is not None, result.finished_at is not None)
        result = backend.get_result({ids[3]!r})
        show(result.errors[0].exception_class is PaymentError, result.errors[0].traceback)
        fresh = flaky.get_result({ids[2]!r})
        fresh.refresh()
        show(fresh.return_value)
        for wrong in ("0", "x", "999999", "9" * 30):
            try:
                backend.get_result(wrong)
            except exceptions.TaskResultDoesNotExist:
                show("none")
        try:
            add.get_result({ids[2]!r})
        except exceptions.TaskResultMismatch:
            show("another")
        """
    )
    path = "app.tasks.PaymentError"
    assert found == [
        ["SUCCESSFUL", 3, 1, [], [1], True, True],
        ["SUCCESSFUL", 7, 1, [], [3, 4], True, True],
        ["SUCCESSFUL", 2, 2, [path], [2], True, True],
        ["FAILED", None, 3, [path] * 3, [9], True, True],
        ["FAILED", None, 3, ["builtins.TypeError"] * 3, [], True, True],
        ["SUCCESSFUL", 5, 1, [], [5], True, True],
        [True, found[6][1]],
        [2], ["none"], ["none"], ["none"], ["none"], ["another"],
    ]  # fmt: skip
    first, *_, last = found[6][1].splitlines()
    assert first == "Traceback (most recent call last):"
    assert last.startswith("PaymentError: attempt 1")


def test_a_task_runs_by_itself_at_certain_times(project: Project, empty_db: Database) -> None:
    empty_db.rows(f"select {G}.keep_history()")
    empty_db.rows(f"select {G}.register_crontabs(array['app.tasks.every_minute'])")
    empty_db.rows(f"update {G}._private_known_crontabs set known_since = now() - interval '1 hour'")
    worker = subprocess.Popen(
        [PYTHON, "manage.py", "gw", "run"], cwd=SHOP, env=project.env
    )  # fmt: skip
    try:
        ended = f"select state, result, priority from {G}.job_history limit 1"
        wait_for(lambda: empty_db.rows(ended), "a missed run is made up for", 90)
    finally:
        worker.terminate()
        assert worker.wait(60) == 0
    assert empty_db.rows(ended) == [("completed", 20, -7)]


def test_queues_route_and_do_not_serialise(project: Project, empty_db: Database) -> None:
    project.python('add.using(queue_name="slow").enqueue(1); add.enqueue(2)')
    project.manage("gw", "run", "--once", "--forbidden-flags", "queue:slow")
    assert empty_db.column(f"select flags ? 'queue:slow' from {G}.jobs") == [True]
    assert empty_db.column(f"select queue_name from {G}.jobs") == [None]


def test_the_admin_shows_jobs_retries_and_cancels_and_changes_nothing_else(
    project: Project, empty_db: Database
) -> None:
    project.python(
        """
        flaky.using(max_attempts=1).enqueue(9)
        from django.contrib.auth.models import User
        User.objects.create_superuser("ann", password="x")
        """
    )
    project.work()
    found = project.python(
        """
        from django.test import Client
        client = Client()
        client.login(username="ann", password="x")
        for state in ("", "?state=failed", "?state=ready", "?state=scheduled", "?state=running"):
            page = client.get("/admin/graphile_worker/job/" + state)
            show(page.status_code, "app.tasks.flaky" in page.content.decode(), "PaymentError" in page.content.decode())
        with connection.cursor() as cursor:
            cursor.execute("select id from graphile_worker.jobs")
            job = cursor.fetchone()[0]
        show(client.get(f"/admin/graphile_worker/job/{job}/change/").status_code,
             client.get("/admin/graphile_worker/job/add/").status_code,
             client.post(f"/admin/graphile_worker/job/{job}/delete/", {"post": "yes"}).status_code)
        done = client.post("/admin/graphile_worker/job/", {"action": "retry", "_selected_action": job}, follow=True)
        show("1 of 1 jobs: will run now" in done.content.decode())
        """
    )
    assert found == [
        [200, True, True], [200, True, True], [200, False, False], [200, False, False],
        [200, False, False], [200, 403, 403], [True],
    ]  # fmt: skip
    assert empty_db.column(f"select attempts from {G}.jobs") == [0]
    project.python(
        """
        from django.test import Client
        client = Client()
        client.login(username="ann", password="x")
        with connection.cursor() as cursor:
            cursor.execute("select id from graphile_worker.jobs")
            job = cursor.fetchone()[0]
        client.post("/admin/graphile_worker/job/", {"action": "cancel", "_selected_action": job})
        """
    )
    assert empty_db.column(f"select id from {G}.jobs") == []


def test_signals_tell_of_each_step(project: Project, tmp_path: Path) -> None:
    log = tmp_path / "signals"
    (tmp_path / "listening.py").write_text(
        textwrap.dedent(f"""
        import os
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
        import django
        django.setup()
        from graphile_worker.django.framework import signals
        def note(name):
            def receive(sender, task_result, **kwargs):
                with open({str(log)!r}, "a") as out:
                    out.write(f"{{name}} {{task_result.id}} {{task_result.status}}\\n")
            return receive
        kept = [note(n) for n in ("started", "finished")]
        signals.task_started.connect(kept[0], weak=False)
        signals.task_finished.connect(kept[1], weak=False)
        from graphile_worker.django.found import tasks
        """)
    )
    ids = project.python("show(add.enqueue(1).id, flaky.using(max_attempts=1).enqueue(3).id)")[0]
    subprocess.run(
        [PYTHON, "-m", "graphile_worker.gw.cli", "run", "listening", "--once"],
        cwd=tmp_path, env={**project.env, "PYTHONPATH": f"{SHOP}:{tmp_path}"}, check=True,
    )  # fmt: skip
    assert sorted(log.read_text().splitlines()) == sorted(
        [f"started {ids[0]} RUNNING", f"finished {ids[0]} SUCCESSFUL",
         f"started {ids[1]} RUNNING", f"finished {ids[1]} FAILED"]
    )  # fmt: skip


def test_the_project_of_the_page_in_the_docs_works(empty_db: Database, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "django.md").read_text()
    blocks = dict(re.findall(r"(?ms)^```python\n# ([^\n]+)\n(.*?)^```$", page))
    assert list(blocks) == [
        "settings.py", "shop/migrations/0001_queue.py", "shop/tasks.py", "in a view"
    ]  # fmt: skip
    base = (SHOP / "settings.py").read_text().replace('"app"', '"shop"')
    own = blocks["settings.py"].replace("[...,", "[*INSTALLED_APPS,").replace(
        '"graphile_worker.django"', ""
    )  # fmt: skip
    files = {
        **blocks, "settings.py": base + own, "manage.py": (SHOP / "manage.py").read_text(),
        "urls.py": (SHOP / "urls.py").read_text(), "shop/__init__.py": "",
        "shop/migrations/__init__.py": "",
        "view.py": "from types import SimpleNamespace\nfrom shop.tasks import send_receipt\n"
        "order = SimpleNamespace(id=7)\n" + blocks["in a view"],
    }  # fmt: skip
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with_backport = "try:\n    from django.tasks import task\nexcept ImportError:\n    from django_tasks import task"
        path.write_text(text.replace("from django.tasks import task", with_backport))
    project = Project(empty_db, tmp_path)
    project.manage("migrate", "-v", "0")
    project.manage("shell", "-c", "import view")
    assert empty_db.rows(f"select task_identifier, key, max_attempts from {G}.jobs") == [
        ("shop.tasks.send_receipt", "receipt 7", 3)
    ]
    project.work()
    assert empty_db.column(f"select id from {G}.jobs") == []
