"""However a worker dies, each effect of a task with transaction=True comes once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from graphile_worker.worker import run_once
from support.live import once, work_dsn, work_role
from support.pg import Database, wait_for
from support.proxy import proxy

from worker.records import payer

pytestmark = pytest.mark.majors(13, 18)

#: Jobs whose effects do not fit to whether they are still there.
WRONG = """
    select ids.id, jobs.id is null as is_gone, count(effects.job)
    from public.ids
    left join graphile_worker._private_jobs as jobs on jobs.id = ids.id
    left join public.effects on effects.job = ids.id
    group by ids.id, jobs.id
    having count(effects.job) <> case when jobs.id is null then 2 else 0 end
"""


@pytest.fixture
def db(db: Database) -> Iterator[Database]:
    db.rows("create table public.effects (job bigint, what text)")
    db.rows("create table public.ids (id bigint)")
    db.rows(f"grant all on public.effects to {work_role(db)}")
    db.rows("select graphile_worker.keep_history()")
    # Killed workers are ended at once here; no job is given up for having lost many.
    db.rows("select graphile_worker.set_recovery('1 hour', 1000)")
    yield db
    db.rows("drop table public.effects, public.ids")


def add(db: Database, count: int = 1) -> None:
    db.rows(
        "insert into public.ids select job.id from generate_series(1, %s) as n,"
        " lateral graphile_worker.add_job(case when n %% 2 = 0 then 'pay' else 'pay_in_thread' end,"
        "  queue_name => case when n %% 3 = 0 then 'q' end) as job",
        count,
    )


def all_effects_came_once(db: Database) -> None:
    assert db.rows(WRONG) == []
    assert db.value("select count(*) from graphile_worker.jobs") == 0
    assert (
        db.rows("select job_id from graphile_worker.job_history group by 1 having count(*) <> 1")
        == []
    )
    paid = "select count(*) from graphile_worker.job_history where result::text = '\"paid\"'"
    assert db.value(paid) == db.value("select count(*) from public.ids")


@pytest.mark.parametrize(
    "kills", [pytest.param(25, id="25"), pytest.param(1000, id="1000", marks=pytest.mark.slow)]
)
def test_killed_anywhere_both_hold_or_neither(db: Database, kills: int) -> None:
    gone = (
        "select count(*) = 0 from pg_stat_activity where datname = current_database()"
        " and usename = %s"
    )
    master = subprocess.Popen(
        [sys.executable, payer.__file__, work_dsn(db)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert master.stdin is not None
    assert master.stdout is not None
    whole = 0.5
    try:
        for n in range(kills):
            add(db, 4)
            master.stdin.write("go\n")
            master.stdin.flush()
            started = time.monotonic()
            pid = int(master.stdout.readline())
            if n < 3:  # to see how long it takes
                wait_for(lambda: db.value("select count(*) = 0 from graphile_worker._private_jobs"))
                whole = time.monotonic() - started
            else:
                time.sleep(random.uniform(0.2, 1.1) * whole)
            os.kill(pid, signal.SIGKILL)
            assert master.stdout.readline() == "gone\n"
            wait_for(lambda: db.value(gone, work_role(db)), "its sessions have ended")
            assert db.rows(WRONG) == [], n
            db.rows("select graphile_worker.end_worker(worker_id) from graphile_worker.workers")
    finally:
        master.stdin.close()
        master.wait(30)
        master.stdout.close()
    once(db, payer.tasks)
    all_effects_came_once(db)


CUTS = [
    ("BEGIN", "before"), ("insert into public.effects", "before"),
    ("finish_jobs_with_results", "before"), ("COMMIT", "before"), ("COMMIT", "after"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "when"), CUTS)
@pytest.mark.parametrize("task", ["pay", "pay_in_thread"])
def test_cut_off_at_any_statement_both_hold_or_neither(
    db: Database, statement: str, when: Any, task: str
) -> None:
    db.rows("insert into public.ids select id from graphile_worker.add_job(%s)", task)
    with proxy(work_dsn(db)) as between:
        between.cut(statement, when)
        working = run_once(payer.tasks, dsn=between.dsn, prepare=False, fail_delay=0.0)
        asyncio.run(asyncio.wait_for(working, 60))
        assert db.rows(WRONG) == []
        assert between.cuts == 1
    db.rows(
        "select graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs), now())"
    )
    once(db, payer.tasks)
    all_effects_came_once(db)
