"""One worker for several databases: fair, and none keeps another from anything."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from graphile_worker import __version__
from graphile_worker.errors import InvalidArgument, SchemaMissing
from graphile_worker.install import cli as install_cli
from graphile_worker.testing.embedded import free_port
from graphile_worker.worker.cluster.members import ListedMembers, place_of
from graphile_worker.worker.cluster.worker import ClusterWorker
from support.command_line import run_main
from support.live import work_dsn
from support.pg import Database, Server, wait_for

pytestmark = pytest.mark.majors(18)

ADD = "select count(graphile_worker.add_job('note', json_build_object('n', n)))"
LEFT = "select count(*) from graphile_worker._private_jobs"


class Changing:
    """Databases that come and go."""

    poll_every: float | None = 0.05

    def __init__(self, dsns: Sequence[str]) -> None:
        self.dsns: Sequence[str] | None = dsns

    async def current(self) -> Sequence[str]:
        if self.dsns is None:
            raise psycopg.OperationalError("the coordinator is away")
        return self.dsns


@contextmanager
def serving(tasks: Any, members: Any, **options: Any) -> Iterator[ClusterWorker]:
    """Run a worker of several databases in a thread; raise what it raised."""
    worker, errors = ClusterWorker(tasks, members, **options), list[BaseException]()
    loop = asyncio.new_event_loop()

    def body() -> None:
        try:
            loop.run_until_complete(worker.run())
        except BaseException as error:
            errors.append(error)
        finally:
            loop.close()

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    try:
        yield worker
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(worker.stop)
        thread.join(60)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def listed(dbs: Sequence[Database]) -> ListedMembers:
    return ListedMembers([work_dsn(db) for db in dbs])


def fill(db: Database, jobs: int) -> None:
    db.rows(f"{ADD} from generate_series(1, {jobs}) as n")


def test_jobs_of_all_databases_run_and_never_more_at_once_than_allowed(dbs: list[Database]) -> None:
    ran, now, most = list[int](), 0, 0

    async def note(payload: dict[str, int]) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        ran.append(payload["n"])

    for db in dbs:
        fill(db, 300)
    with serving({"note": note}, listed(dbs), concurrency=5):
        wait_for(lambda: len(ran) == 900, "all ran")
    assert sorted(ran) == sorted([*range(1, 301)] * 3)
    assert most == 5
    assert [db.value(LEFT) for db in dbs] == [0, 0, 0]


def test_one_job_does_not_wait_for_the_backlog_of_another_database(dbs: list[Database]) -> None:
    """Of 5,000 jobs few have ended when the single one runs, however slow the machine is."""
    order = list[int]()

    async def note(payload: dict[str, int]) -> None:
        await asyncio.sleep(0.001)
        order.append(payload["n"])

    fill(dbs[0], 5000)
    with serving({"note": note}, listed(dbs), concurrency=4):
        wait_for(lambda: len(order) > 50, "the backlog is being worked on")
        before = len(order)
        dbs[1].rows("select graphile_worker.add_job('note', '{\"n\": 0}')")
        wait_for(lambda: 0 in order, "the single job ran")
        assert order.index(0) - before < 4000
        assert dbs[0].value(LEFT) > 0


def test_a_database_that_is_away_keeps_the_others_from_nothing(
    server: Server, dbs: list[Database]
) -> None:
    ran = list[int]()
    away, here, _ = dbs
    with server.admin() as admin:

        def shut(is_shut: bool) -> None:
            admin.execute(f"alter database {away.name} allow_connections {not is_shut}")
            if is_shut:
                admin.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s",
                    [away.name],
                )

        fill(away, 3)
        away.close()
        shut(True)
        with serving({"note": lambda payload: ran.append(payload["n"])}, listed(dbs)) as worker:
            for _ in range(2):
                fill(here, 10)
                wait_for(lambda: here.value(LEFT) == 0, "the others' jobs run")
                health = worker.health()
                assert health.ok
                place = place_of(away.dsn)
                wait_for(lambda: any(place in text for text in worker.health().problems))  # noqa: B023
                shut(False)
                wait_for(lambda: away.value(LEFT) == 0, "it is used again")
                wait_for(lambda: not worker.health().problems, "nothing is wrong any more")
                fill(away, 3)
                wait_for(lambda: away.value(LEFT) == 0, "and woken")
                away.close()
                shut(True)
            shut(False)


def test_databases_come_and_go(dbs: list[Database], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    ran = list[int]()
    members = Changing([work_dsn(dbs[0])])
    going, came, _ = dbs
    gate = asyncio.Event()

    async def note(payload: dict[str, int]) -> None:
        if payload["n"] == 7:
            await gate.wait()
        ran.append(payload["n"])

    with serving({"note": note}, members, concurrency=2):
        fill(going, 1)
        wait_for(lambda: ran == [1])
        members.dsns = [work_dsn(going), work_dsn(came)]
        fill(came, 2)
        wait_for(lambda: sorted(ran) == [1, 1, 2], "the new one is served")
        # What runs may end, although the database has gone; what waits is left.
        going.rows("select graphile_worker.add_job('note', '{\"n\": 7}')")
        wait_for(
            lambda: going.value(
                "select count(*) from graphile_worker.jobs where locked_at is not null"
            )
        )
        members.dsns = [work_dsn(came)]
        wait_for(lambda: "has gone" in caplog.text)
        fill(going, 1)
        members.dsns = None  # the list cannot be read: all stays as it is
        wait_for(lambda: "cannot be read" in caplog.text)
        fill(came, 1)
        wait_for(lambda: sorted(ran) == [1, 1, 1, 2])
        gate._loop.call_soon_threadsafe(gate.set)  # type: ignore[attr-defined]
        wait_for(lambda: 7 in ran)
        wait_for(
            lambda: (
                going.column("select payload ->> 'n' from graphile_worker._private_jobs") == ["1"]
            )
        )
        members.dsns = [work_dsn(came), work_dsn(going)]
        wait_for(lambda: going.value(LEFT) == 0, "it has come back")
    assert going.value("select count(*) from graphile_worker.workers") == 0


def test_once_runs_what_jobs_of_one_database_add_to_another(dbs: list[Database]) -> None:
    ran = list[str]()

    async def there(payload: dict[str, int]) -> None:
        ran.append("there")
        with psycopg.connect(dbs[0].dsn) as conn:
            conn.execute("select graphile_worker.add_job('back')")

    async def back(payload: object) -> None:
        ran.append("back")

    dbs[2].rows("select graphile_worker.add_job('there')")
    members = listed(dbs)
    asyncio.run(ClusterWorker({"there": there, "back": back}, members, once=True).run())
    assert ran == ["there", "back"]


def test_recurring_jobs_are_added_to_the_first_database(dbs: list[Database]) -> None:
    known = "select count(*) from graphile_worker.crontabs"
    with serving({"t": print}, listed(dbs), crontab="* * * * * t ?id=each"):
        wait_for(lambda: dbs[0].value(known) == 1)
        wait_for(
            lambda: all(db.value("select count(*) from graphile_worker.workers") for db in dbs)
        )
    assert [db.value(known) for db in dbs] == [1, 0, 0]


def test_what_cannot_work_is_told_at_the_start(dbs: list[Database], empty_db: Database) -> None:
    with pytest.raises(InvalidArgument, match="twice"):
        ListedMembers([dbs[0].dsn, dbs[1].dsn, dbs[0].dsn])
    with pytest.raises(InvalidArgument, match="listen_dsn"):
        ClusterWorker({"t": print}, listed(dbs), listen_dsn=dbs[0].dsn)
    members = ListedMembers([dbs[0].dsn, empty_db.dsn])
    with pytest.raises(SchemaMissing), serving({"t": print}, members) as worker:
        wait_for(lambda: worker.is_stopping)


def test_gw_run_takes_several_databases(dbs: list[Database], tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("async def note(payload): pass\ntasks = {'note': note}\n")
    port = free_port()
    given = [part for db in dbs[:2] for part in ("--dsn", work_dsn(db))]
    command = [sys.executable, "-m", "graphile_worker.gw.cli", "run", *given]
    process = subprocess.Popen(
        [*command, "--metrics-port", str(port)], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    try:
        for db in dbs[:2]:
            fill(db, 5)
        for db in dbs[:2]:
            wait_for(lambda: db.value(LEFT) == 0, "its jobs ran")  # noqa: B023
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as response:
            health = json.load(response)
        places = [place_of(work_dsn(db)) for db in dbs[:2]]
        assert [health["nodes"][place]["ok"] for place in places] == [True, True]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
            metrics = response.read().decode()
        for place in places:
            assert f'graphile_worker_node_ok{{node="{place}"}} 1.0' in metrics
        process.terminate()
        _, log = process.communicate(timeout=60)
        assert process.returncode == 0, log
    finally:
        process.kill()
        print(process.communicate()[1])


def test_databases_are_upgraded_one_after_the_other_while_their_jobs_run(server: Server) -> None:
    added, ran, ended = [0], Counter[int](), threading.Event()

    async def note(payload: Any) -> None:
        ran[payload["n"]] += 1

    with ExitStack() as stack:
        dbs = [stack.enter_context(server.database()) for _ in range(2)]
        for db in dbs:
            db.rows("create extension graphile_worker version '1.0.0'")

        def produce() -> None:
            with ExitStack() as opened:
                conns = [
                    opened.enter_context(psycopg.connect(db.dsn, autocommit=True)) for db in dbs
                ]
                while not ended.wait(0.005):
                    sql = "select graphile_worker.add_job('note', json_build_object('n', %s::int))"
                    conns[added[0] % 2].execute(sql, [added[0]])
                    added[0] += 1

        producer = threading.Thread(target=produce)
        members = ListedMembers([f"{db.dsn} user=postgres" for db in dbs])
        with serving({"note": note}, members, poll_interval=1):
            producer.start()
            try:
                for db in dbs:
                    run_main(install_cli.main, ["upgrade", "--dsn", db.dsn], env={})
                    assert db.value("select graphile_worker.version()") == __version__
                    before = added[0]
                    wait_for(lambda: added[0] > before + 50, "jobs are added")  # noqa: B023
            finally:
                ended.set()
                producer.join()
            for db in dbs:
                wait_for(lambda: db.value(LEFT) == 0, "its jobs ran")  # noqa: B023
    assert ran == dict.fromkeys(range(added[0]), 1)
