"""Jobs of a queue are claimed in their order, however many workers claim them at once."""

from __future__ import annotations

import random
import threading

import psycopg
from support.pg import Database, wait_for

NOTE = """
    create table public.claims (id bigint generated always as identity, job bigint);
    create function public.note() returns trigger language plpgsql as $$ begin
      insert into public.claims (job) values (new.id); return null; end $$;
    create trigger note after update on graphile_worker._private_jobs for each row
      when (old.locked_by is null and new.locked_by is not null) execute function public.note();
"""
LEFT = "select count(*) from graphile_worker._private_jobs"


def test_no_job_of_a_queue_overtakes_another(db: Database) -> None:
    """A queue that becomes free while a call looks at later jobs keeps its first job first."""
    db.rows(NOTE)
    ended = threading.Event()

    def work(worker: str) -> None:
        rng = random.Random(worker)
        with psycopg.connect(f"{db.dsn} user=postgres", autocommit=True) as conn:
            while not ended.is_set():
                claim = "select id from graphile_worker.get_jobs(%s, %s, array['t'])"
                for (job,) in conn.execute(claim, [worker, rng.choice([1, 4, 8])]).fetchall():
                    sql = "select graphile_worker.finish_jobs(%s, array[%s::bigint])"
                    conn.execute(sql, [worker, job])

    workers = [threading.Thread(target=work, args=[f"w{number}"]) for number in range(6)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(6):
            db.rows(
                "select graphile_worker.add_job('t', queue_name := 'q' || mod(n, 2))"
                " from generate_series(1, 80) as n"
            )
            wait_for(lambda: db.value(LEFT) == 0, "all jobs are done")
    finally:
        ended.set()
        for worker in workers:
            worker.join()
    for parity in (0, 1):
        claimed = db.column(
            "select job from public.claims where mod(job, 2) = %s order by id", parity
        )
        assert len(claimed) == 240
        assert claimed == sorted(claimed)
