"""What a worker uses: memory, CPU, statements when it is idle, and a job's WAL.

Memory is what is resident, CPU the process's own (user and system). Statements are counted by
pg_stat_statements; WAL is the server's, from before the jobs are added until none is left, and its
records are counted by pg_walinspect: one for each row version and for each entry of an index (but
what is copied shares records). A HOT update needs no entries.
"""

from __future__ import annotations

import time
from functools import partial

from peers.base import Peer
from server import Bench
from workers import Run, running

from parts.drain import AWA, NODE, NODE_BATCHED, OURS, PGQUEUER, PROCRASTINATE

PEERS: list[Peer] = [OURS, NODE, NODE_BATCHED, PROCRASTINATE, PGQUEUER, AWA]

FIGURES = {
    "memory, idle": " MiB",
    "memory, after a drain": " MiB",
    "CPU, idle": " s a minute",
    "CPU of a job": " µs a job",
    "statements, idle": " a minute",
    "WAL of a job, added": " bytes",
    "WAL of a job, its whole life": " bytes",
    "row versions of a job": "",
    "HOT updates of a job": "",
    "index entries of a job": "",
}

CALLS = """select coalesce(sum(calls), 0) from pg_stat_statements
where dbid = (select oid from pg_database where datname = current_database())
and query !~ 'pg_stat_statements'"""

RECORDS = """select coalesce(sum(count) filter (
  where "resource_manager/record_type" ~ '^Heap/(INSERT|UPDATE|HOT_UPDATE)'), 0)::float8,
coalesce(sum(count) filter (where "resource_manager/record_type" ~ '^Heap/HOT_UPDATE'), 0)::float8,
coalesce(sum(count) filter (where "resource_manager/record_type" ~ '^Btree/INSERT'), 0)::float8
from pg_get_wal_stats('0/0'::pg_lsn + %s, '0/0'::pg_lsn + %s, true)"""


def _one(run: Run, query: str) -> float:
    row = run.conn.execute(query).fetchone()
    assert row
    return float(row[0])


def _use(bench: Bench, peer: Peer) -> dict[str, float]:
    sizes = bench.sizes
    with running(bench, peer) as run:
        for extension in ("pg_stat_statements", "pg_walinspect"):
            run.conn.execute(f"create extension {extension}")
        time.sleep(sizes.idle_seconds / 2)  # until it sleeps as long as it ever does
        calls, busy, start = _one(run, CALLS), run.busy(), time.monotonic()
        time.sleep(sizes.idle_seconds)
        minutes = (time.monotonic() - start) / 60
        figures = {
            "memory, idle": run.resident(),
            "CPU, idle": (run.busy() - busy) / minutes,
            "statements, idle": (_one(run, CALLS) - calls) / minutes,
        }
        count = int(min(sizes.jobs, max(1000.0, run.pace * sizes.most_seconds)))
        lsn, busy = _one(run, "select pg_current_wal_insert_lsn() - '0/0'"), run.busy()
        with run.conn.transaction():
            run.peer.load(run.conn, count, {"n": 0, "wait": 0})
            last = _one(run, f"select coalesce(max(id), 0) from {peer.jobs}")
            added = _one(run, "select pg_current_wal_insert_lsn() - '0/0'")
        run.until_empty(int(last), 5 * sizes.most_seconds + 30)
        done = _one(run, "select pg_current_wal_insert_lsn() - '0/0'")
        records = run.conn.execute(RECORDS, [int(lsn), int(done)]).fetchone() or ()
        names = ("row versions of a job", "HOT updates of a job", "index entries of a job")
        return {
            **figures,
            **{name: each / count for name, each in zip(names, records, strict=True)},
            "memory, after a drain": run.resident(),
            "CPU of a job": (run.busy() - busy) / count * 1e6,
            "WAL of a job, added": (added - lsn) / count,
            "WAL of a job, its whole life": (done - lsn) / count,
        }


def memory(bench: Bench) -> None:
    """Measure all of it."""
    peers = PEERS[:3] if bench.sizes.is_small else PEERS
    bench.prepare(peers)
    with bench.database("postgres") as connection:
        connection.execute("alter system set pg_stat_statements.track = 'top'")
        connection.execute("select pg_reload_conf()")
    try:
        bench.compare_all(
            FIGURES,
            {peer.name: partial(_use, bench, peer) for peer in peers},
            rounds=min(bench.sizes.rounds, 3),
        )
    finally:
        with bench.database("postgres") as connection:
            connection.execute("alter system reset pg_stat_statements.track")
            connection.execute("select pg_reload_conf()")
