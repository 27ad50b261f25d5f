"""The limits: SQL that takes and deletes batches with no logic, and LISTEN with no queue."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from peers import job
from peers.base import Peer
from peers.ours import Ours

if TYPE_CHECKING:
    import psycopg

TAKE = """with first as materialized (
  select id from graphile_worker._private_jobs
  where is_available and run_at <= now()
  order by priority, run_at, id limit %s for update skip locked
)
update graphile_worker._private_jobs as jobs
set attempts = attempts + 1, locked_at = now(), locked_by = 'w'
from first where jobs.id = first.id returning jobs.*"""
# The same with a row of each queue: locked, marked, and freed again.
TAKE_QUEUED = """with first as materialized (
  select id, job_queue_id from graphile_worker._private_jobs
  where is_available and run_at <= now()
  order by priority, run_at, id limit %s for update skip locked
),
free as materialized (
  select id from graphile_worker._private_job_queues as queues
  where id = any (array(select job_queue_id from first)) and is_available
  order by id for update skip locked
),
marked as (
  update graphile_worker._private_job_queues as queues
  set locked_at = now(), locked_by = 'w' from free where queues.id = free.id
)
update graphile_worker._private_jobs as jobs
set attempts = attempts + 1, locked_at = now(), locked_by = 'w'
from first join free on free.id = first.job_queue_id where jobs.id = first.id returning jobs.*"""
DELETE_QUEUED = """with gone as (
  delete from graphile_worker._private_jobs where id = any(%s::bigint[]) returning job_queue_id
)
update graphile_worker._private_job_queues as queues
set locked_at = null, locked_by = null from gone where queues.id = gone.job_queue_id"""
DELETE = "delete from graphile_worker._private_jobs where id = any(%s::bigint[])"


class BareSQL(Ours):
    """Takes a batch and deletes it, one after the other, and checks nothing."""

    def command(self, dsn: str) -> list[str]:
        return [sys.executable, "-m", "peers.bare", "drain", dsn, str(self.settings["batch"])]


class BareNotify(Peer):
    """A connection that listens."""

    template = "ours"
    jobs = "(select 1 as id where false) as jobs"
    insert = """select pg_notify('bench', %(payload)s) from generate_series(1, %(count)s)"""

    def command(self, dsn: str) -> list[str]:
        return [sys.executable, "-m", "peers.bare", "listen", dsn]

    def prepare(self, dsn: str) -> None:
        Ours(name="ours").prepare(dsn)


def drain(conn: psycopg.Connection[Any], batch: int) -> None:
    import select

    conn.execute('listen "jobs:insert"')
    while True:
        rows = conn.execute(TAKE, [batch]).fetchall()
        if rows:
            payloads = {row.payload["n"] for row in rows}
            for number in payloads:
                job.note(number)
            conn.execute(DELETE, [[row.id for row in rows]])
        else:
            select.select([conn], [], [], 1)
            conn.execute("")


def listen(conn: psycopg.Connection[Any]) -> None:
    conn.execute("listen bench")
    for notification in conn.notifies():
        job.note(json.loads(notification.payload)["n"])


def main() -> None:
    import psycopg
    from psycopg.rows import namedtuple_row

    with psycopg.connect(
        sys.argv[2], autocommit=True, row_factory=namedtuple_row, prepare_threshold=0
    ) as conn:
        if sys.argv[1] == "drain":
            drain(conn, int(sys.argv[3]))
        else:
            listen(conn)


if __name__ == "__main__":
    main()
