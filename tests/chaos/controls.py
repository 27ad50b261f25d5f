"""Pauses, limits, cancellations and schedules in a bad night, and what has to hold of them."""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

G = "graphile_worker"
#: Queues that run so many jobs side by side, and how many the task "thread" runs in the whole fleet.
WIDE, THREADS = 3, 4
SCHEDULE = f"{G}.schedule('tick', 'tick', '* * * * *', catch_up => '1 hour')"

_OVER = f"""
    select 'queue', queues.queue_name, count(*) from {G}._private_jobs as jobs
    join {G}._private_job_queues as queues on queues.id = jobs.job_queue_id
    where jobs.locked_at is not null group by 2
    having count(*) > case when queues.queue_name like 'wide%%' then {WIDE} else 1 end
    union all
    select 'task', tasks.identifier, count(*) from {G}._private_jobs as jobs
    join {G}._private_tasks as tasks on tasks.id = jobs.task_id
    where jobs.locked_at is not null and tasks.identifier = 'thread' group by 2
    having count(*) > {THREADS}
"""
# A fetch that was under way when the pause was committed has begun before.
_PAUSED = f"""
    select id, queue_name, task_identifier, locked_at from {G}.jobs
    where locked_at > %(since)s and (%(all)s or queue_name = %(name)s or task_identifier = %(name)s)
"""


def prepare(conn: psycopg.Connection[Any]) -> None:
    """Set the limits and the schedule that hold all night."""
    conn.execute(f"select {G}.set_limit('queue', 'wide*', {WIDE})".encode())
    conn.execute(f"select {G}.set_limit('task', 'thread', {THREADS})".encode())
    conn.execute(
        f"select {G}.set_limit('task', 'later', rate => 20, per => '1 second', burst => 5)".encode()
    )
    conn.execute(f"select {SCHEDULE}".encode())


def watch(conn: psycopg.Connection[Any]) -> None:
    """No queue and no task has more jobs in flight than it may, ever."""
    over = conn.execute(_OVER.encode()).fetchall()
    assert over == [], "more jobs are in flight than the limit"


class Controls:
    """What people do to what may run; of each it is seen at once that it holds."""

    rng: random.Random
    managed: set[int]

    def connect(self, timeout: float = 60) -> psycopg.Connection[Any]:
        raise NotImplementedError

    def pause(self) -> None:
        """Something is paused for a while: nothing of it starts."""
        scope = self.rng.choice(["queue", "queue", "task", "all"])
        name = {"queue": self.rng.choice(["q0", "wide0"]), "task": "thread", "all": None}[scope]
        argument = "" if name is None else f"'{name}'"
        comma = "" if name is None else ", "
        with self.connect() as conn:
            conn.execute("set default_transaction_read_only = off")
            conn.execute(f"select {G}.pause_{scope}({argument}{comma}reason => 'chaos')".encode())
            ((since,),) = conn.execute("select clock_timestamp()").fetchall()
            try:
                end = time.monotonic() + self.rng.uniform(0.3, 1.5)
                while time.monotonic() < end:
                    values = {"since": since, "all": name is None, "name": name}
                    started = conn.execute(_PAUSED.encode(), values).fetchall()
                    assert started == [], f"of the paused {scope} {name} a job started"
                    time.sleep(0.05)
            finally:
                conn.execute(f"select {G}.resume_{scope}({argument})".encode())

    def cancel(self) -> None:
        """Jobs are cancelled: those that wait are gone, those that run do not run again."""
        with self.connect() as conn:
            conn.execute("set default_transaction_read_only = off")
            ids = [
                job
                for (job,) in conn.execute(
                    f"select id from {G}.jobs order by locked_at is null, random() limit 5".encode()
                )
            ]
            outcomes = conn.execute(
                f"select job_id, outcome from {G}.cancel_jobs(%s, 'chaos')".encode(), [ids]
            ).fetchall()
            cancelled = [job for job, outcome in outcomes if outcome.startswith("cancel")]
            self.managed.update(cancelled)
            again = conn.execute(
                f"select id from {G}._private_jobs where id = any (%s) and attempts < max_attempts"
                " and (locked_at is not null or run_at <= now())".encode(),
                [cancelled],
            ).fetchall()
            assert again == [], "a cancelled job will run again"

    def deploy(self) -> None:
        """An application ends its schedule and sets it again when it starts."""
        with self.connect() as conn:
            conn.execute("set default_transaction_read_only = off")
            conn.execute(f"select {G}.unschedule('tick')".encode())
            time.sleep(self.rng.random())
            conn.execute(f"select {SCHEDULE}".encode())


def schedules_are_kept(conn: psycopg.Connection[Any], runs_file: Path, managed: set[int]) -> None:
    """Each minute has one job of the schedule, and none is missing."""
    jobs: dict[datetime, set[int]] = defaultdict(set)
    for line in runs_file.read_text().splitlines():
        run = json.loads(line)
        if run[1].startswith("tick "):
            jobs[datetime.fromisoformat(run[1][5:].replace("Z", "+00:00"))].add(run[0])
    assert {at: ids for at, ids in jobs.items() if len(ids) > 1} == {}, "a tick came twice"
    minutes = sorted(jobs)
    if minutes and not managed:
        missing = [
            at
            for n in range(int((minutes[-1] - minutes[0]) / timedelta(minutes=1)))
            if (at := minutes[0] + timedelta(minutes=n)) not in jobs
        ]
        assert missing == [], "a tick was lost"
    ((late,),) = conn.execute(
        f"select coalesce(bool_or(next_runs[1] < now() - interval '1 minute'), false) from {G}.schedules".encode()
    ).fetchall()
    assert not late, "a schedule is due, and no worker adds its job"
