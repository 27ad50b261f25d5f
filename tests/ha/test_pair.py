"""A primary and its standby: switch-over, fail-over, a split brain, and reading from the standby."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import psycopg
import pytest
from graphile_worker import web
from graphile_worker.gw.cli import main as gw_main
from graphile_worker.testing import embedded
from gw.ui.site import Site
from gw.ui.test_pages import PAGES
from psycopg.conninfo import conninfo_to_dict
from support.balancer import NEEDS_HAPROXY, haproxy
from support.bouncer import NEEDS_PGBOUNCER, bouncer_before
from support.command_line import run_main
from support.fleet import Feeder, Process
from support.pair import Pair, pair
from support.pg import Database, Server, bin_dir, wait_for
from support.ran import left_behind

pytestmark = pytest.mark.majors(18)

Note = Callable[[str, object], None]


class Fleet:
    """Two workers that find the primary by themselves, and what they have run."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self._workers = [Process(dsn, folder) for _ in range(2)]

    def runs(self) -> list[list[object]]:
        return [
            json.loads(line)
            for worker in self._workers
            for line in worker.output.read_text().splitlines()
        ]

    def ran(self) -> Counter[int]:
        return Counter(int(str(run[0])) for run in self.runs())

    def first_start(self, known: set[int]) -> float:
        """Return when the first job started that is none of these, in seconds since 1970."""
        return min(float(str(run[4])) for run in self.runs() if run[0] not in known)

    def are_busy(self) -> bool:
        """Whether a hundred jobs have run, and each worker has begun: its start needs a server."""
        return len(self.ran()) > 100 and all(one.output.read_text() for one in self._workers)

    def longest_pause(self) -> float:
        """Return the most seconds between the starts of two jobs, one after the other."""
        starts = sorted(float(str(run[4])) for run in self.runs())
        return max(after - before for before, after in pairwise(starts))

    def stop(self) -> None:
        for worker in self._workers:
            worker.stop()

    def kill(self) -> None:
        for worker in self._workers:
            worker.kill()


@contextmanager
def fleet(pair: Pair, folder: Path) -> Iterator[Fleet]:
    workers = Fleet(pair.dsn, folder)
    try:
        yield workers
    finally:
        workers.kill()


def goes_on(feeder: Feeder) -> None:
    added = len(feeder.added)
    wait_for(lambda: len(feeder.added) > added + 50, "jobs are added again")


def settled(pair: Pair, number: int, workers: Fleet) -> None:
    """Wait until no job is left, and see that nothing stays locked and the workers leave well."""
    now = pair.database(number)
    wait_for(lambda: left_behind(now) == (0, 0, 0), "all jobs are done")
    workers.stop()
    assert now.rows("select from graphile_worker.workers") == []
    now.close()


def test_a_switch_over_loses_nothing(server: Server, tmp_path: Path, record_property: Note) -> None:
    """The primary is shut down, the standby takes over, and the first server follows it."""
    with pair(server, tmp_path) as servers, fleet(servers, tmp_path) as workers:
        with Feeder(servers.dsn, "say") as feeder:
            wait_for(workers.are_busy)
            before, at = set(feeder.added), time.time()
            servers.shut_down()
            servers.promote()
            goes_on(feeder)
            servers.rejoin()
            goes_on(feeder)
        settled(servers, 1, workers)
        again = servers.database(0)
        wait_for(lambda: again.value("select count(*) from graphile_worker._private_jobs") == 0)
        assert again.value("select pg_is_in_recovery()")
        again.close()
        ran = workers.ran()
        assert set(ran) >= set(feeder.added)
        twice = sum(count > 1 for count in ran.values())
        record_property(
            "switch-over",
            f"{len(feeder.added)} jobs, 0 lost, {twice} ran twice, {workers.first_start(before) - at:.1f} s until a new job started",
        )


@pytest.mark.parametrize("synchronous", [True, False])
def test_a_fail_over_loses_only_what_the_standby_was_not_waited_for(
    server: Server, tmp_path: Path, record_property: Note, synchronous: bool
) -> None:
    with (
        pair(server, tmp_path, synchronous=synchronous) as servers,
        fleet(servers, tmp_path) as workers,
    ):
        with Feeder(servers.dsn, "say") as feeder:
            wait_for(workers.are_busy)
            sent = len(feeder.added)
            if not synchronous:
                servers.delay()
                goes_on(feeder)
            before, at = set(feeder.added), time.time()
            servers.crash()
            servers.promote()
            goes_on(feeder)
        settled(servers, 1, workers)
        ran, there = workers.ran(), servers.database(1)
        # Ten that were committed may not have been told of.
        lost = max(0, len(feeder.added) - there.value("select count(*) from public.added"))
        there.close()
        assert lost == 0 if synchronous else 0 < lost <= len(before) - sent
        twice = sum(count > 1 for count in ran.values())
        started = f", {workers.first_start(before) - at:.1f} s until a new job started"
        record_property(
            f"fail-over, {'synchronous' if synchronous else 'asynchronous'}",
            f"{len(feeder.added)} jobs, {lost} lost, {twice} ran twice{started * synchronous}",
        )


@NEEDS_HAPROXY
@NEEDS_PGBOUNCER
@pytest.mark.parametrize("pooled", [False, True], ids=["HAProxy", "pgbouncer before HAProxy"])
def test_a_fail_over_behind_proxies_loses_nothing(
    server: Server, tmp_path: Path, record_property: Note, pooled: bool
) -> None:
    """Workers and producers have one address, which leads to whichever is the primary."""
    with ExitStack() as stack:
        servers = stack.enter_context(pair(server, tmp_path, synchronous=True))
        port = stack.enter_context(haproxy(servers, tmp_path))
        dsn = f"host=127.0.0.1 port={port} user=postgres dbname=postgres connect_timeout=5"
        if pooled:
            made = bouncer_before(port, "postgres", tmp_path, mode="session", most=30)
            dsn = stack.enter_context(made)
        workers = Fleet(dsn, tmp_path)
        stack.callback(workers.kill)
        with Feeder(dsn, "say") as feeder:
            wait_for(workers.are_busy)
            servers.crash()
            servers.promote()
            goes_on(feeder)
        settled(servers, 1, workers)
        ran = workers.ran()
        assert set(ran) >= set(feeder.added)
        twice = sum(count > 1 for count in ran.values())
        record_property(
            f"fail-over behind {'pgbouncer and ' * pooled}HAProxy",
            f"{len(feeder.added)} jobs, 0 lost, {twice} ran twice, {workers.longest_pause():.1f} s without a start",
        )


def test_a_crash_that_undoes_commits_leaves_nothing_locked(
    server: Server, tmp_path: Path, record_property: Note
) -> None:
    """Without synchronous commits a completed job is locked again, by a worker that lives."""
    settings = {"max_connections": "60", "synchronous_commit": "off", "wal_writer_delay": "'10s'"}
    with embedded.Server(bin_dir(server.major), settings=settings) as fragile:
        at = conninfo_to_dict(fragile.dsn())
        db = Database(f"host=127.0.0.1 port={at['port']} user=postgres", "postgres", 18)
        db.rows("create extension graphile_worker")
        db.rows("select graphile_worker.set_recovery(interval '2 seconds')")
        workers = Fleet(fragile.dsn(), tmp_path)
        try:
            with Feeder(fragile.dsn(), "say") as feeder:
                wait_for(workers.are_busy)
                # Of what follows, little is on disk when the server crashes.
                db.rows("set synchronous_commit = on")
                db.rows("create table on_disk ()")
                goes_on(feeder)
                db.close()
                fragile.crash()
                fragile.start()
                goes_on(feeder)
            wait_for(lambda: left_behind(db) == (0, 0, 0), "all jobs are done")
            workers.stop()
            twice = sum(count > 1 for count in workers.ran().values())
            record_property("crash", f"{len(feeder.added)} jobs, {twice} ran twice")
        finally:
            workers.kill()
            db.close()


def test_a_primary_without_its_synchronous_standby_starts_no_job(
    server: Server, tmp_path: Path
) -> None:
    """A split brain: the first server lives on, cut off, while the second one has taken over."""
    with pair(server, tmp_path, synchronous=True) as servers:
        old = servers.database(0)
        for number in range(10):
            old.rows(
                "select graphile_worker.add_job('say', json_build_object('n', %s::int))", number
            )
        servers.promote()  # the first one is still there, and its standby has gone
        started = list[int]()

        def fetch() -> None:
            with (
                psycopg.connect(old.dsn, autocommit=True) as conn,
                pytest.raises(psycopg.OperationalError),
            ):
                started.extend(
                    row[0] for row in conn.execute("select id from graphile_worker.get_jobs('old')")
                )

        waiting = threading.Thread(target=fetch)
        waiting.start()
        wait_for(
            lambda: old.value("select count(*) from pg_stat_activity where wait_event = 'SyncRep'")
        )
        new = servers.database(1)
        assert len(new.rows("select id from graphile_worker.get_jobs('new', 100)")) == 10
        assert started == []
        servers.crash()
        waiting.join()
        assert started == []
        old.close()
        new.close()


READS = [
    ["stats"], ["jobs"], ["job", "1"], ["explain", "1"], ["queues"], ["pauses"], ["limits"],
    ["schedule", "list"], ["failed"], ["history"], ["export"], ["tasks", "list"],
    ["top", "--once"], ["doctor", "--check", "dead-locks", "--check", "tasks"],
]  # fmt: skip
CHANGES = [["retry", "1"], ["add", "t"], ["pause", "all"], ["schedule", "end", "s"]]


def test_gw_reads_from_a_standby_and_says_that_it_changes_nothing(
    server: Server, tmp_path: Path
) -> None:
    with pair(server, tmp_path) as servers:
        first, standby = servers.database(0), servers.database(1)
        first.rows("select graphile_worker.add_job('seen', queue_name := 'q')")
        first.rows("select graphile_worker.keep_history('seen', interval '1 day')")
        wait_for(lambda: standby.value("select count(*) from graphile_worker._private_jobs") == 1)
        for command in READS:
            out, err = run_main(gw_main, [*command, "--dsn", standby.dsn], env={})
            assert out or command == ["export"], command
            assert "read-only" not in err, command
        site = Site(web.app(standby.dsn, read_only=True))
        for page in PAGES:
            site.page(f"/queue/{page}")
        for command in CHANGES:
            _, err = run_main(gw_main, [*command, "--dsn", standby.dsn], code=1, env={})
            assert "read-only" in err, command
        first.close()
        standby.close()
