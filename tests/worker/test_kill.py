"""SIGKILL for worker processes under load: what they held runs again soon, and nothing is lost."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import pytest
from support.fleet import Feeder, Process
from support.pg import Database, wait_for
from support.ran import TABLE, left_behind, overlaps

pytestmark = pytest.mark.majors(13, 18)

DEAD_AFTER = 2
TABLES = """
    create table public.kills (pid integer, at timestamptz);
    create table public.held (job_id bigint, at timestamptz);
    create function public.pid_of(worker text) returns integer language sql immutable as $$
        select substring(worker from '-([0-9]+)-[0-9a-f]+$')::integer
    $$;
"""
#: The first run after the kill of each job that the killed worker held; some were done just then.
AGAIN = """
    select extract(epoch from min(ran.started) - held.at)::float8
    from public.held join public.ran on ran.job_id = held.job_id and ran.started > held.at
    group by held.job_id, held.at
"""
#: Kills of which jobs wait to run again.
WAITING = """
    select count(distinct held.at) from public.held join graphile_worker._private_jobs as jobs
    on jobs.id = held.job_id where not exists
    (select from public.ran where ran.job_id = held.job_id and ran.started > held.at)
"""
#: Runs after which the job ran again, although their worker had not been killed by then.
UNJUSTIFIED = """
    with runs as (
        select worker, lead(started) over (partition by job_id order by started) as next_started
        from public.ran
    )
    select worker, next_started from runs where next_started is not null and not exists (
        select from public.kills where pid = pid_of(worker) and at < next_started
    )
"""


@pytest.fixture
def start(db: Database, tmp_path: Path) -> Iterator[Callable[[], Process]]:
    """Start a worker process; those that are left are killed in the end."""
    started: list[Process] = []

    def one() -> Process:
        started.append(Process(db.dsn, tmp_path))
        return started[-1]

    yield one
    for process in started:
        process.kill()


def kill(db: Database, victim: Process) -> None:
    """Kill it while it runs jobs; note which it held."""
    runs = "select from public.ran where ended is null and pid_of(worker) = %s"
    victim.wait_for(lambda: len(db.rows(runs, victim.pid)) >= 2, "it runs two jobs")
    victim.kill()
    db.rows(
        "with kill as (insert into public.kills values (%s, now()) returning *)"
        " insert into public.held select jobs.id, kill.at"
        " from kill join graphile_worker.jobs on pid_of(jobs.locked_by) = kill.pid",
        victim.pid,
    )


@pytest.mark.parametrize(
    "rounds", [pytest.param(5, id="5"), pytest.param(50, id="50", marks=pytest.mark.slow)]
)
def test_whatever_a_killed_worker_held_runs_again_soon_and_nothing_runs_on_two(
    db: Database,
    start: Callable[[], Process],
    rounds: int,
    record_property: Callable[[str, object], None],
) -> None:
    db.rows(TABLE)
    db.rows(TABLES)
    db.rows("select graphile_worker.set_recovery(make_interval(secs => %s), 1000)", DEAD_AFTER)
    workers = [start() for _ in range(3)]
    with Feeder(db.dsn, "note") as feeder:
        for _ in range(rounds):
            # The next one comes before all is recovered from the last.
            wait_for(lambda: db.value(WAITING) < 2, "jobs of the killed run again")
            place = random.randrange(3)
            kill(db, workers[place])
            workers[place] = start()
    wait_for(lambda: left_behind(db)[0] == 0, "all jobs are done")
    alive = "select count(*) = 3 and bool_and(is_alive) from graphile_worker.workers"
    wait_for(lambda: db.value(alive), "the dead are forgotten")
    for worker in workers:
        worker.stop()
    again = sorted(seconds for (seconds,) in db.rows(AGAIN))
    record_property(
        "kill to re-run",
        f"p50 {median(again):.2f} s, max {again[-1]:.2f} s: {len(again)} jobs, {rounds} kills,"
        f" {len(feeder.added)} jobs added, dead after {DEAD_AFTER} s",
    )
    assert left_behind(db) == (0, 0, 0)
    assert not any("presumed dead" in worker.log.read_text() for worker in workers)
    # What was cut short ended with its worker.
    db.rows(
        "update public.ran set ended = greatest(kills.at, started) from public.kills"
        " where ended is null and kills.pid = pid_of(worker)"
    )
    assert set(db.column("select job_id from public.ran")) == set(feeder.added)
    assert db.rows(UNJUSTIFIED) == []
    assert overlaps(db, "job_id") == 0
    assert overlaps(db, "queue_name") == 0
    assert db.column("select distinct attempt from public.ran") == [1], "attempts are given back"
    assert len(again) >= rounds
