"""get_jobs beside a model in plain Python: which jobs a call may return, and which it must.

The model knows rows, and what other workers hold locked in transactions that are open. Hypothesis
draws tables and calls; each call goes by whichever strategy the table and the session lead it to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.pg import Database

pytestmark = pytest.mark.majors(13, 18)

TASKS, QUEUES, FLAGS = ("t0", "t1", "t2"), ("q0", "q1", "q2"), ("f0", "f1")


@dataclass(frozen=True)
class Row:
    """A job: ``due`` is seconds from now, ``count`` how many equal jobs there are."""

    priority: int
    due: int
    task: str
    queue: str | None
    flag: str | None
    key: bool
    state: str
    count: int


@dataclass(frozen=True)
class Call:
    """A call of get_jobs, and which share of the rows another transaction has locked."""

    wanted: int
    tasks: list[str] | None
    forbidden: list[str] | None
    held: int
    cursors: str


rows = st.lists(
    st.builds(
        Row,
        priority=st.integers(-1, 2),
        due=st.sampled_from((-3, -2, -1, 3600)),
        task=st.sampled_from(TASKS),
        queue=st.sampled_from((None, None, *QUEUES)),
        flag=st.sampled_from((None, None, *FLAGS)),
        key=st.booleans(),
        state=st.sampled_from(("ready", "ready", "ready", "locked", "failed")),
        count=st.sampled_from((1, 1, 2, 40, 400)),
    ),
    min_size=1, max_size=12,
)  # fmt: skip
calls = st.lists(
    st.builds(
        Call,
        wanted=st.sampled_from((1, 2, 5, 20, 300)),
        tasks=st.sampled_from((None, ["t0"], ["t1", "t2"], ["unknown"])),
        forbidden=st.sampled_from((None, None, ["f0"], ["f0", "f1"])),
        held=st.sampled_from((0, 0, 3, 7)),
        cursors=st.sampled_from(("", "null")),
    ),
    min_size=1, max_size=6,
)  # fmt: skip

CLEAR = """truncate graphile_worker._private_jobs, graphile_worker._private_job_queues;
reset graphile_worker.cursors"""
NAMES = """with tasks as (
  insert into graphile_worker._private_tasks (identifier) select unnest(%s::text[])
  on conflict do nothing
)
insert into graphile_worker._private_job_queues (queue_name, locked_at, locked_by)
select name, case when name = 'q2' then now() end, case when name = 'q2' then 'other' end
from unnest(%s::text[]) as name"""
ADD = """insert into graphile_worker._private_jobs
  (priority, run_at, task_id, job_queue_id, flags, key, locked_at, locked_by, attempts, max_attempts)
select %(priority)s, now() + %(due)s * interval '1 second',
  (select id from graphile_worker._private_tasks where identifier = %(task)s),
  (select id from graphile_worker._private_job_queues where queue_name = %(queue)s),
  case when %(flag)s::text is not null then jsonb_build_object(%(flag)s::text, true) end,
  case when %(key)s then gen_random_uuid()::text end,
  case when %(state)s = 'locked' then now() end,
  case when %(state)s = 'locked' then 'other' end,
  case when %(state)s = 'failed' then 3 else 0 end, 3
from generate_series(1, %(count)s)"""
READ = """select jobs.id, jobs.priority, jobs.run_at, tasks.identifier, queues.queue_name,
  array(select jsonb_object_keys(jobs.flags)), jobs.run_at <= now() and jobs.is_available
from graphile_worker._private_jobs as jobs
join graphile_worker._private_tasks as tasks on tasks.id = jobs.task_id
left join graphile_worker._private_job_queues as queues on queues.id = jobs.job_queue_id
order by jobs.priority, jobs.run_at, jobs.id"""


def candidates(table: list[tuple[Any, ...]], call: Call, busy: set[str]) -> list[tuple[Any, ...]]:
    """Return the jobs that the call may return, in order: not more than one of a queue counts."""
    return [
        row
        for row in table
        if row[6]
        and (call.tasks is None or row[3] in call.tasks)
        and not set(row[5]) & set(call.forbidden or ())
        and row[4] not in busy
    ]


def first_of_each_queue(jobs: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    seen: set[str] = set()
    found = []
    for job in jobs:
        if job[4] is None or job[4] not in seen:
            found.append(job)
            seen |= {job[4]} - {None}
    return found


def test_a_call_returns_what_the_model_says(db: Database) -> None:
    @settings(
        max_examples=60, deadline=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(rows=rows, calls=calls)
    def play(rows: list[Row], calls: list[Call]) -> None:
        conn = db._main()
        conn.execute(CLEAR)
        db.rows(NAMES, [*TASKS], [*QUEUES])
        for row in rows:
            conn.execute(ADD, vars(row))
        held_by, busy = db.connect(autocommit=False), {"q2"}
        try:
            for call in calls:
                table = db.rows(READ)
                held = {row[0] for n, row in enumerate(table) if call.held and n % call.held == 0}
                held_by.execute(
                    "select from graphile_worker._private_jobs where id = any (%s) for update",
                    [[*held]],
                )
                may = candidates(table, call, busy)
                must = first_of_each_queue(may)[: call.wanted]
                db.rows("select set_config('graphile_worker.cursors', %s, false)", call.cursors)
                got = db.rows(
                    "select id, queue_name from graphile_worker.get_jobs('w', %s, %s, %s)",
                    call.wanted, call.tasks, call.forbidden,
                )  # fmt: skip
                more = db.value("select current_setting('graphile_worker.more', true)") == "true"
                ids = [job for job, _ in got]
                held_by.rollback()

                assert len(ids) == len(set(ids)) <= call.wanted
                assert set(ids) <= {row[0] for row in may} - held, "none that it may not return"
                queues = [queue for _, queue in got if queue]
                assert len(queues) == len(set(queues)), "one job of a queue"
                places = {row[0]: n for n, row in enumerate(table)}
                assert [places[job] for job in ids] == sorted(places[job] for job in ids)
                if not held:
                    assert ids == [row[0] for row in must], "the first ones, in order"
                elif not ids or (len(ids) < call.wanted and not more):
                    # No more to say: whatever is left is held, or behind one that is.
                    left = {row[0] for row in first_of_each_queue(may)} - set(ids) - held
                    assert left == set()
                busy |= set(queues)
                db.rows(
                    "update graphile_worker._private_jobs set attempts = 0 where attempts = 1"
                    " and locked_at is null"
                )
        finally:
            held_by.close()

    play()
