"""A server that crashed knows what runs, what is limited and what is paused."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from graphile_worker.testing import embedded
from support.pg import Server, bin_dir

pytestmark = pytest.mark.majors(18)

TAKE = "select id from graphile_worker.get_jobs('w', 10)"


def names(conn: psycopg.Connection[Any], query: str) -> list[Any]:
    return [value for (value,) in conn.execute(query.encode())]


def test_no_limit_is_bypassed_and_no_slot_taken_for_ever_after_a_crash(server: Server) -> None:
    private = embedded.Server(bin_dir(server.major), settings={"max_connections": "20"})
    with private:

        def connect() -> psycopg.Connection[Any]:
            return psycopg.connect(private.dsn(), autocommit=True)

        with connect() as conn:
            conn.execute("create extension graphile_worker")
            conn.execute("select graphile_worker.set_limit('task', 't', 2)")
            conn.execute("select graphile_worker.pause_task('u')")
            conn.execute("select graphile_worker.add_job('t') from generate_series(1, 5)")
            conn.execute("select graphile_worker.add_job('u')")
            held = [job for (job,) in conn.execute(TAKE)]
            assert len(held) == 2
            conn.execute("select graphile_worker.finish_jobs('w', %s)", [held[:1]])
            unfinished = connect()
            unfinished.execute("begin")
            assert unfinished.execute(TAKE).rowcount == 1
        private.crash()
        unfinished.close()
        private.start()
        with connect() as conn:
            running = names(conn, "select running from graphile_worker.limits")
            assert running == [1], "what was not committed is undone"
            assert conn.execute(TAKE).rowcount == 1
            assert conn.execute(TAKE).rowcount == 0
            assert names(conn, "select name from graphile_worker.pauses") == ["u"]
            conn.execute("select graphile_worker.force_unlock_workers('{w}')")
            assert conn.execute(TAKE).rowcount == 2
