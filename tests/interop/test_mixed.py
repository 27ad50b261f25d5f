"""One backlog, emptied by workers of Node 0.18, Node 0.17 and ours at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.fleet import Process
from support.node import VERSIONS, NodeWorker
from support.pg import Database, wait_for
from support.ran import TABLE, left_behind, overlaps

JOBS = 4_000
#: Every other job is in one of 50 queues, each tenth has a key, each 27th fails at first.
BACKLOG = """
    select count(*) from generate_series(1, %s) as n,
    lateral graphile_worker.add_job(
        'note',
        json_build_object('n', n, 'fails_once', n %% 27 = 7, 'version', 1),
        queue_name := case when n %% 2 = 0 then 'q' || n / 2 %% 50 end,
        job_key := case when n %% 10 < 2 then 'k' || n end
    )
"""
#: Half of the keyed jobs get another payload.
REPLACED = """
    select count(*) from generate_series(1, %s) as n,
    lateral graphile_worker.add_job(
        'note',
        json_build_object('n', n, 'fails_once', n %% 27 = 7, 'version', 2),
        queue_name := case when n %% 2 = 0 then 'q' || n / 2 %% 50 end,
        job_key := 'k' || n
    )
    where n %% 10 = 1
"""


@pytest.fixture
def fleet(db: Database, tmp_path: Path) -> Iterator[Callable[[], list[Process]]]:
    """Start a Node worker of each version and two of ours."""
    with ExitStack() as stack:

        def start() -> list[Process]:
            for version in VERSIONS:
                stack.enter_context(NodeWorker(db, version, by=f"node {version}"))
            ours = [Process(db.dsn, tmp_path, seconds=0) for _ in range(2)]
            for process in ours:
                stack.callback(process.kill)
            return ours

        yield start


@pytest.mark.majors(13, 18)
def test_a_mixed_fleet_runs_each_job_once_and_one_at_a_time_of_each_queue(
    db: Database,
    fleet: Callable[[], list[Process]],
    record_property: Callable[[str, object], None],
) -> None:
    db.rows(TABLE)
    db.rows(BACKLOG, JOBS)
    db.rows(REPLACED, JOBS)
    assert left_behind(db) == (JOBS, 0, 0)
    ours = fleet()
    wait_for(lambda: left_behind(db)[0] == 0, "the backlog is drained", seconds=120)
    for process in ours:
        process.stop()
    assert left_behind(db) == (0, 0, 0)
    seconds = db.value("select extract(epoch from max(ended) - min(started)) from public.ran")
    shares = db.rows(
        "select by, count(*), count(distinct worker) from public.ran group by 1 order by 1"
    )
    record_property("shares", f"{shares} of {JOBS} jobs in {seconds:.1f} s")
    runs = """select (payload->>'n')::integer, array_agg(attempt order by started),
        array_agg(failed order by started), array_agg(distinct payload->>'version')
        from public.ran group by job_id, 1 order by 1"""
    assert db.rows(runs) == [
        (
            n,
            *(([1, 2], [True, False]) if n % 27 == 7 else ([1], [False])),
            ["2"] if n % 10 == 1 else ["1"],
        )
        for n in range(1, JOBS + 1)
    ]
    assert overlaps(db, "queue_name") == 0
    assert overlaps(db, "job_id") == 0
    assert [by for by, *_ in shares] == ["node 017", "node 018", "python"]
