"""A day of churn in some minutes: what stays behind in the table, and what that costs.

24 hours of `churn_seconds` / 24 each. All the time 25,000 jobs wait, 20,000 of them for the next
day, while others are added, fetched and completed as fast as one connection can. Autovacuum looks
every second instead of every minute. From 8 to 16 o'clock, one contestant holds a snapshot, as a
forgotten transaction does; another lets autovacuum work harder.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
from peers.ours import Ours
from server import Bench

OURS = Ours(name="ours")
#: Hours of the day at whose end the table is measured; the thirds end with the last three.
HOURS = (1, 4, 8, 12, 16, 20, 24)
HELD = range(8, 16)
THIRDS = ("0-8", "8-16", "16-24")
FETCH = "day: fetch of 100, 95th percentile, {}"
#: The first is what the others are compared with.
NAMES = ("ours", "eager autovacuum", "snapshot held, 8-16")

ADD = """select count(*) from graphile_worker.add_jobs(array(
  select row('task-' || 1 + n % 20, '{{"to": "somebody"}}',
    case when n % 10 = 0 then 'queue-' || n end, {run_at}, null, null, null, null)
    ::graphile_worker.job_spec
  from generate_series(1, {count}) as n))"""
EAGER = """alter table graphile_worker._private_jobs set (autovacuum_vacuum_cost_delay = 0,
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000)"""
LEFT = """select
  pg_total_relation_size('graphile_worker._private_jobs') / 2^20,
  pg_stat_get_dead_tuples('graphile_worker._private_jobs'::regclass)"""
VACUUMED = """select total_autovacuum_time / 1000 from pg_stat_user_tables
where relname = '_private_jobs'"""


def title(figure: str, hour: int) -> str:
    """Return the title of a figure at the end of an hour."""
    return f"day: {figure} at {hour} o'clock"


def _titles() -> dict[str, str]:
    return {
        **{title("table and indexes", hour): " MB" for hour in HOURS},
        **{title("dead rows", hour): "" for hour in HOURS},
        **{FETCH.format(third): " ms" for third in THIRDS},
        "day: jobs done": "/s",
        "day: autovacuum's share of the time": "",
    }


@contextmanager
def _compressed(bench: Bench) -> Iterator[None]:
    """Let autovacuum look every second."""
    with bench.database("postgres") as conn:
        conn.execute("alter system set autovacuum_naptime = '1s'")
        conn.execute("select pg_reload_conf()")
        try:
            yield
        finally:
            conn.execute("alter system reset autovacuum_naptime")
            conn.execute("select pg_reload_conf()")


def _hour(conn: psycopg.Connection[Any], seconds: float) -> tuple[int, list[float]]:
    """Add, fetch and complete; return how many jobs, and the seconds of each fetch."""
    done, fetches, end = 0, list[float](), time.monotonic() + seconds
    while time.monotonic() < end:
        conn.execute(ADD.format(run_at="null", count=1_000))
        for _ in range(10):
            began = time.perf_counter()
            rows = conn.execute("select id from graphile_worker.get_jobs('w', 100)").fetchall()
            fetches.append(time.perf_counter() - began)
            ids = [number for (number,) in rows]
            conn.execute("select count(*) from graphile_worker.finish_jobs('w', %s)", [ids])
            done += len(ids)
    return done, fetches


def _day(bench: Bench, name: str) -> dict[str, float]:
    figures: dict[str, float] = {}
    hour_seconds = bench.sizes.churn_seconds / 24
    with (
        _compressed(bench),
        bench.copy(OURS) as dsn,
        psycopg.connect(dsn, autocommit=True) as conn,
        psycopg.connect(dsn) as holder,
    ):
        conn.execute("set synchronous_commit = off")
        if name == NAMES[1]:
            conn.execute(EAGER)
        conn.execute(ADD.format(run_at="now() + interval '1 day'", count=20_000))
        conn.execute(ADD.format(run_at="null", count=5_000))
        holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        done, fetches, start = 0, defaultdict[int, list[float]](list), time.monotonic()
        for hour in range(24):
            if name == NAMES[2] and hour == HELD.start:
                holder.execute("select count(*) from graphile_worker._private_tasks")
            if hour == HELD.stop:
                holder.rollback()
            count, times = _hour(conn, hour_seconds)
            done += count
            fetches[hour // 8] += times
            if hour + 1 in HOURS:
                size, dead = conn.execute(LEFT).fetchone() or (0, 0)
                figures[title("table and indexes", hour + 1)] = size
                figures[title("dead rows", hour + 1)] = dead
        passed = time.monotonic() - start
        for number, third in enumerate(THIRDS):
            p95 = statistics.quantiles(fetches[number], n=20, method="inclusive")[18]
            figures[FETCH.format(third)] = p95 * 1000
        figures["day: jobs done"] = done / passed
        (spent,) = conn.execute(VACUUMED).fetchone() or (0,)
        figures["day: autovacuum's share of the time"] = spent / passed
    return figures


def day(bench: Bench) -> None:
    """Measure a day of each."""
    bench.prepare([OURS])
    bench.compare_all(_titles(), {name: partial(_day, bench, name) for name in NAMES})
