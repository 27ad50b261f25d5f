"""A pair that Patroni keeps: the primary's machine dies, and HAProxy leads to the new one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from graphile_worker.install import install
from support.balancer import NEEDS_HAPROXY, balancer
from support.fleet import Feeder
from support.patroni import NEEDS_PATRONI, patroni
from support.pg import Database, wait_for
from support.ran import left_behind

from ha.test_pair import Fleet, goes_on

pytestmark = [pytest.mark.majors(18), pytest.mark.slow, NEEDS_HAPROXY, NEEDS_PATRONI]


def test_the_standby_goes_on_when_the_machine_of_the_primary_dies(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with ExitStack() as stack:
        members = stack.enter_context(patroni(tmp_path))
        checks = [(member.port, member.rest) for member in members]
        port = stack.enter_context(balancer(checks, tmp_path))
        dsn = f"host=127.0.0.1 port={port} user=postgres dbname=postgres connect_timeout=5"
        with psycopg.connect(dsn, autocommit=True) as conn:
            install(conn, mode="plain")
            conn.execute("select graphile_worker.set_recovery(interval '5 seconds')")
        workers = Fleet(dsn, tmp_path)
        stack.callback(workers.kill)
        with Feeder(dsn, "say") as feeder:
            wait_for(workers.are_busy)
            members[0].kill()
            wait_for(lambda: members[1].is_("primary"), "Patroni promotes the standby")
            goes_on(feeder)
            members[0].start()
            wait_for(lambda: members[0].is_("replica"), "the old primary follows the new one")
            goes_on(feeder)
        db = Database(f"host=127.0.0.1 port={members[1].port} user=postgres", "postgres", 15)
        wait_for(lambda: left_behind(db) == (0, 0, 0), "all jobs are done")
        workers.stop()
        db.close()
        ran = workers.ran()
        assert set(ran) >= set(feeder.added)
        twice = sum(count > 1 for count in ran.values())
        record_property(
            "fail-over by Patroni",
            f"{len(feeder.added)} jobs, 0 lost, {twice} ran twice, {workers.longest_pause():.1f} s without a start",
        )
