"""Real Node workers are woken at once, also while every Python worker reports that it is busy."""

from __future__ import annotations

from functools import partial

import pytest
from support.node import VERSIONS, NodeWorker
from support.pg import Database, wait_for

pytestmark = pytest.mark.majors(13, 18)

ADD = "select graphile_worker.add_job('note', '{}')"
BUSY = "select graphile_worker.heartbeat('busy', null, null, true)"
NOTED = "select count(*) from graphile_worker._private_unreported_claims"
LISTENS = """select count(*) from pg_stat_activity
where datname = current_database() and query ilike 'listen%'"""
RAN = "select count(*) from public.ran where ended is not null"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_node_worker_beside_a_busy_python_worker_is_woken(db: Database, version: str) -> None:
    """It polls when it starts, and after that every two minutes."""
    db.rows(BUSY)
    with NodeWorker(db, version, pollInterval=120_000):
        wait_for(lambda: db.value(NOTED), "its first poll was noted")
        wait_for(lambda: db.value(LISTENS), "it listens")
        for count in range(1, 11):
            db.rows(BUSY)
            db.rows(ADD)
            wait_for(partial(ran, db, count), "Node ran it", 30)


def ran(db: Database, count: int) -> bool:
    return bool(db.value(RAN) == count)
