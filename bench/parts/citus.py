"""What a job costs on a node of a Citus cluster, beside plain PostgreSQL of the same build.

Three nodes on this machine: they share its cores, so several nodes are no faster here than one.
What is to be seen is that none is slower. Adding to a route is measured from the coordinator, whose
call is carried to another node.
"""

from __future__ import annotations

import asyncio
import sys
import time
from functools import partial
from pathlib import Path

import psycopg
from graphile_worker.testing.embedded import Server
from graphile_worker.worker.cluster.members import ListedMembers
from graphile_worker.worker.cluster.worker import ClusterWorker
from server import Bench

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

JOBS, BATCH = 20_000, 100
FILL = """insert into graphile_worker._private_jobs (task_id)
select (select min(id) from graphile_worker._private_tasks) from generate_series(1, %s)"""
ADD = """select graphile_worker.add_job('bench', '{"to": "somebody"}')"""
ROUTED = """select graphile_worker.add_job_to_route('customer:' || %s, 'bench', '{"to": "x"}')"""
FETCH = "select id from graphile_worker.get_jobs('w', %s)"
FINISH = "select count(*) from graphile_worker.finish_jobs('w', %s)"
#: As the nodes have it.
ALIKE = {"wal_level": "logical", "max_prepared_transactions": "100"}
PLAIN = "plain PostgreSQL"


def _empty(dsn: str) -> psycopg.Connection[tuple[int]]:
    conn = psycopg.connect(dsn, autocommit=True, prepare_threshold=0)
    conn.execute("set synchronous_commit = off")
    conn.execute("select graphile_worker.add_job('bench')")
    conn.execute("truncate graphile_worker._private_jobs")
    return conn


def _adding(dsn: str, seconds: float, query: str = ADD) -> float:
    """Return the jobs a second that one client adds."""
    with _empty(dsn) as conn:
        done, start = 0, time.perf_counter()
        while time.perf_counter() < start + seconds:
            conn.execute(query, [str(done)] if "%s" in query else None)
            done += 1
        return done / (time.perf_counter() - start)


def _fetching(dsn: str) -> float:
    """Return the jobs a second that are fetched and completed."""
    with _empty(dsn) as conn:
        conn.execute(FILL, [JOBS])
        conn.execute("vacuum analyze graphile_worker._private_jobs")
        start = time.perf_counter()
        for _ in range(JOBS // BATCH):
            ids = [number for (number,) in conn.execute(FETCH, [BATCH])]
            conn.execute(FINISH, [ids])
        return JOBS / (time.perf_counter() - start)


def _draining(dsns: list[str]) -> float:
    """Return the jobs a second that one worker runs, of as many databases as there are."""
    for dsn in dsns:
        with _empty(dsn) as conn:
            conn.execute(FILL, [JOBS // len(dsns)])
            conn.execute("vacuum analyze graphile_worker._private_jobs")
    wanted, done, began = JOBS // len(dsns) * len(dsns), 0, 0.0

    async def bench(payload: object) -> None:
        nonlocal done, began
        began = began or time.perf_counter()
        done += 1
        if done == wanted:
            worker.stop()

    worker = ClusterWorker({"bench": bench}, ListedMembers(dsns), concurrency=24)
    asyncio.run(worker.run())
    return wanted / (time.perf_counter() - began)


def citus(bench: Bench) -> None:
    """Measure all of it, where there is a Citus."""
    from support.citus import BIN, cluster

    if not BIN.exists():
        print("! citus: `make .venv/citus` needs its archive, see CITUS in the Makefile")
        return
    with Server(BIN, durable=True, settings=ALIKE) as server, cluster(durable=True) as nodes:
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            conn.execute("create extension graphile_worker")
        nodes[0].rows("create extension graphile_worker")
        from graphile_worker.install import set_up_routes

        set_up_routes(nodes[0].connect())
        node, plain, seconds = nodes[1].dsn, server.dsn(), bench.sizes.seconds
        bench.compare(
            "a node of Citus: add_job, 1 client, commit off",
            {
                "ours": partial(_adding, node, seconds),
                PLAIN: partial(_adding, plain, seconds),
                "to a route, from the coordinator": partial(_adding, nodes[0].dsn, seconds, ROUTED),
            },
        )
        bench.compare(
            f"a node of Citus: fetch and finish in batches of {BATCH}",
            {"ours": partial(_fetching, node), PLAIN: partial(_fetching, plain)},
        )
        of_nodes = [each.dsn for each in nodes]
        bench.compare(
            f"one worker drains {JOBS:,} jobs of a cluster",
            {
                "ours": partial(_draining, of_nodes),
                "2 nodes": partial(_draining, of_nodes[:2]),
                "1 node": partial(_draining, of_nodes[:1]),
                PLAIN: partial(_draining, [plain]),
            },
        )
