"""What has to hold after any night."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import psycopg
from graphile_worker.gw.explain import explain
from graphile_worker.gw.queue import Queue
from support.pg import wait_for

from chaos.processes import Gw

if TYPE_CHECKING:
    from chaos.night import Night

G = "graphile_worker"


def jobs_end(night: Night, conn: psycopg.Connection[Any]) -> None:
    """Every due job runs, and explain knows why each other one waits."""
    due = (
        f"select id from {G}.jobs where attempts < max_attempts"
        " and run_at < now() + interval '1 minute' limit 5"
    )
    try:
        wait_for(lambda: conn.execute(due).fetchall() == [], "due jobs do not end", 60)
    except AssertionError as error:
        for what in ("jobs", "queues", "workers", "ended_workers"):
            rows = conn.execute(f"select t::text from {G}.{what} as t limit 20".encode())
            error.add_note(f"{what}: {rows.fetchall()}")
        for worker in night.workers:
            error.add_note(worker.log.read_text()[-1500:])
        raise
    queue = Queue(conn)
    for (job,) in conn.execute(f"select id from {G}.jobs order by id").fetchall():
        found = explain(queue, job)
        assert found.verdict in ("failed", "not_due", "never_due"), found


def locks_end(conn: psycopg.Connection[Any]) -> None:
    """No lock is held in the name of anybody but a live worker."""
    orphans = f"""
        select locked_by from (
          select locked_by from {G}.jobs union all select locked_by from {G}.queues
        ) as held where locked_by is not null
        and locked_by not in (select worker_id from {G}.workers where is_alive)
    """
    wait_for(lambda: conn.execute(orphans).fetchall() == [], "locks have no living owner", 60)


def effects_are_there(night: Night) -> None:
    """No job is gone that never ran, and none ran twice whose worker was never in doubt."""
    runs: dict[int, list[list[Any]]] = defaultdict(list)
    for line in night.runs_file.read_text().splitlines():
        run = json.loads(line)
        runs[run[0]].append(run)
    with night.connect() as conn:
        left = {job for (job,) in conn.execute(f"select id from {G}.jobs")}
    lost = [job for job in night.added - left - night.managed if job not in runs]
    assert lost == [], "jobs are gone that never ran"
    doubtful = {worker.process.pid for worker in night.started if _was_doubted(worker)}
    twice = {
        job: done
        for job, each in runs.items()
        if len(done := [run for run in each if run[1] == "done"]) > 1
        and job in night.added - night.managed
        and not doubtful & {run[4] for run in each}
    }
    assert twice == {}, "jobs ran twice although nobody was presumed dead"


def _was_doubted(worker: Gw) -> bool:
    return worker.killed or "presumed dead" in worker.log.read_text()
