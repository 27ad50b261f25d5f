"""The statements alone: adding one job by pgbench, adding many, taking and finishing."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
from graphile_worker.testing.embedded import wheel_bin_dir
from peers.bare import DELETE, DELETE_QUEUED, TAKE, TAKE_QUEUED
from peers.base import Peer
from peers.node import Node
from peers.ours import Ours
from peers.pgqueuer import PgQueuer
from peers.procrastinate import Procrastinate
from server import Bench

ADD = """select graphile_worker.add_job('bench', '{"to": "somebody"}')"""
INSERT = """insert into graphile_worker._private_jobs (task_id, payload)
values (1, '{"to": "somebody"}') returning *"""

KEYED = """select graphile_worker.add_job('bench', '%s',
job_key := 'k' || floor(1000 * random())::int)"""

SPECS = """create temp table given as
select array_agg(row('bench', '{{"to": "somebody"}}', null, null, null, {key}, null, null)
::graphile_worker.job_spec) as specs from generate_series(1, {rows}) as i"""
ADD_MANY = "select count(*) from given, graphile_worker.add_jobs(given.specs)"
INSERT_MANY = """insert into graphile_worker._private_jobs (task_id, payload, key)
select 1, s.payload, s.job_key from given, unnest(given.specs) as s"""

FETCH = "select * from graphile_worker.get_jobs('w', %s)"
COMPLETE = "select * from graphile_worker.finish_jobs('w', %s::bigint[])"

#: Jobs that are added at once, or in parts.
MANY = 20_000

OURS, NODE = Ours(name="ours"), Node(name="Node")
#: These have an insert into their own table, with its triggers, of the task and payload of ADD.
OTHERS: list[Peer] = [Procrastinate(name="Procrastinate"), PgQueuer(name="PgQueuer")]


@contextmanager
def fresh(bench: Bench, peer: Peer) -> Iterator[psycopg.Connection[Any]]:
    """Lend a connection to a fresh database in which the task is known, as number 1."""
    with bench.copy(peer) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("select graphile_worker.add_job('bench')")
        connection.execute("truncate graphile_worker._private_jobs")
        yield connection


def pgbench(
    bench: Bench, dbname: str, query: str, clients: int, options: str, *, rate: int = 0
) -> float:
    """Return the transactions per second of a statement, at a rate or as fast as can be."""
    with tempfile.NamedTemporaryFile("w") as script:
        script.write(query.replace("\n", " ") + ";\n")
        script.flush()
        done = subprocess.run(
            [
                wheel_bin_dir() / "pgbench", "-n", "-M", "prepared", "-h", "127.0.0.1",
                "-p", str(bench.server.port), "-U", "postgres", "-c", str(clients), "-j", "2",
                "-T", str(bench.sizes.seconds), "-f", script.name,
                *(["-R", str(rate)] if rate else []), dbname,
            ],
            env={**os.environ, "PGOPTIONS": options},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
            timeout=60,
        )  # fmt: skip
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    assert found, done.stdout
    return float(found[1])


def pgbench_fresh(bench: Bench, peer: Peer, query: str, clients: int, options: str) -> float:
    """Return the transactions per second of a statement in a fresh database."""
    with fresh(bench, peer) as connection:
        return pgbench(bench, connection.info.dbname, query, clients, options)


def _inserted(bench: Bench, peer: Peer, clients: int, options: str) -> float:
    """Return the jobs per second that another queue's own insert adds in a fresh database."""
    query = peer.insert % {"payload": """'{"to": "somebody"}'""", "count": 1}
    with bench.copy(peer) as dsn, psycopg.connect(dsn) as connection:
        return pgbench(bench, connection.info.dbname, query, clients, options)


def timed(bench: Bench, peer: Peer, key: str, rows: int, query: str) -> float:
    """Return the rows per second of statements over specs that are ready in their session."""
    calls, seconds = MANY // rows, 0.0
    with fresh(bench, peer) as connection:
        connection.execute("set synchronous_commit = off")
        connection.execute(SPECS.format(key=key, rows=rows))
        connection.execute(query.replace("given.specs", "given.specs[1:1]"))
        for _ in range(calls):
            connection.execute("delete from graphile_worker._private_jobs")
            start = time.perf_counter()
            connection.execute(query)
            seconds += time.perf_counter() - start
    return calls * rows / seconds


def one(bench: Bench) -> None:
    """``add_job`` in transactions of its own, beside a plain insert and others."""
    others = [] if bench.sizes.is_small else OTHERS
    bench.prepare([OURS, NODE, *others])
    for commit in ("off", "on"):
        for notify in ("on", "off"):
            options = f"-c synchronous_commit={commit}"
            if notify == "off":
                options += " -c graphile_worker.notify=off"
            for clients in bench.sizes.clients:
                bench.compare(
                    f"add_job, {clients} clients, commit {commit}, notify {notify}",
                    {
                        "ours": partial(pgbench_fresh, bench, OURS, ADD, clients, options),
                        "insert": partial(pgbench_fresh, bench, OURS, INSERT, clients, options),
                        "Node": partial(pgbench_fresh, bench, NODE, ADD, clients, options),
                        **{
                            peer.name: partial(_inserted, bench, peer, clients, options)
                            for peer in others
                        },
                    },
                )


def keyed(bench: Bench) -> None:
    """``add_job`` with one of 1,000 keys: the job is replaced, or its array grows."""
    bench.prepare([OURS, NODE])
    for title, payload in (("replaced", '{"to": "somebody"}'), ("arrays joined", "[1]")):
        bench.compare(
            f"add_job keyed, {title}, 1 client, commit off",
            {
                peer.name: partial(
                    pgbench_fresh, bench, peer, KEYED % payload, 1, "-c synchronous_commit=off"
                )
                for peer in (OURS, NODE)
            },
        )


def many(bench: Bench) -> None:
    """``add_jobs``, with keys and without, beside an insert of equal rows and Node's."""
    bench.prepare([OURS, NODE])
    for rows, title, key in (
        (1_000, "", "null"), (MANY, "", "null"), (MANY, " keyed", "'k' || i"),
    ):  # fmt: skip
        bench.compare(
            f"add_jobs of {rows:,}{title}",
            {
                "ours": partial(timed, bench, OURS, key, rows, ADD_MANY),
                "insert..select": partial(timed, bench, OURS, key, rows, INSERT_MANY),
                "Node": partial(timed, bench, NODE, key, rows, ADD_MANY),
            },
        )


def protocol(bench: Bench, jobs: int = 50_000, batch: int = 100, queues: int = 5_000) -> None:
    """Take and finish a backlog, by the functions and by bare SQL that checks nothing."""
    bench.prepare([OURS])

    def drain(queue: str, take: str, finish: str) -> float:
        with fresh(bench, OURS) as connection:
            connection.execute("set synchronous_commit = off")
            connection.execute(
                "insert into graphile_worker._private_job_queues (queue_name)"
                " select 'queue ' || i from generate_series(1, %s) as i",
                [queues],
            )
            connection.execute(
                "insert into graphile_worker._private_jobs (task_id, job_queue_id)"
                f" select 1, {queue} from generate_series(1, %s) as i",
                [jobs],
            )
            connection.execute("vacuum analyze")
            done = 0
            start = time.perf_counter()
            while done < jobs:
                ids = [row[0] for row in connection.execute(take, [batch])]
                connection.execute(finish, [ids])
                done += len(ids)
            return jobs / (time.perf_counter() - start)

    for title, queue, bare in (
        ("", "null", (TAKE, DELETE)),
        (f" of {queues:,} queues", f"1 + i %% {queues}", (TAKE_QUEUED, DELETE_QUEUED)),
    ):
        bench.compare(
            f"fetch and finish {jobs:,}{title} in batches of {batch}",
            {
                "ours": partial(drain, queue, FETCH, COMPLETE),
                "bare SQL": partial(drain, queue, *bare),
            },
        )
