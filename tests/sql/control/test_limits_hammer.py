"""Sessions claim, end, free and kill at random while limits change: none is ever exceeded."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest
from support.pg import Database

pytestmark = pytest.mark.majors(13, 18)

QUEUES = ("tenant-a", "tenant-b", "tenant-c", "serial", None)
TASKS = ("mail", "report")
WORKERS = 8

#: Looks, whenever jobs are claimed, at all that are claimed then: whoever claims more of the same
#: waits until this is committed, so what it sees is exact.
WATCH = """
create table public.violations (text text);
create function public.best(of_scope text, of_name text) returns integer language sql as $$
  select max_running from graphile_worker._private_limits
  where scope = of_scope and (name = of_name or right(name, 1) = '*' and of_name like left(name, -1) || '%')
  order by name = of_name desc, length(name) desc limit 1
$$;
create function public.watch() returns trigger language plpgsql security definer as $$
begin
  insert into public.violations
  select format('%s %s runs %s of %s', u.scope, u.name, u.running, u.most)
  from (
    select 'queue' as scope, q.queue_name as name, count(*) as running,
      coalesce(public.best('queue', q.queue_name), 1) as most
    from graphile_worker._private_jobs j
    join graphile_worker._private_job_queues q on q.id = j.job_queue_id
    where j.locked_at is not null and j.job_queue_id in (
      select n.job_queue_id from new_rows n join old_rows o using (id)
      where o.locked_at is null and n.locked_at is not null
    ) group by q.queue_name
    union all
    select 'task', t.identifier, count(*), public.best('task', t.identifier)
    from graphile_worker._private_jobs j
    join graphile_worker._private_tasks t on t.id = j.task_id
    where j.locked_at is not null and j.task_id in (
      select n.task_id from new_rows n join old_rows o using (id)
      where o.locked_at is null and n.locked_at is not null
    ) group by t.identifier
  ) as u where u.running > u.most;
  return null;
end $$;
create trigger watch after update on graphile_worker._private_jobs
  referencing old table as old_rows new table as new_rows
  for each statement execute function public.watch();
"""


def changes(rng: random.Random) -> str:
    """Return a change of the limits."""
    return rng.choice(
        [
            f"set_limit('queue', 'tenant-*', {rng.randint(1, 4)})",
            f"set_limit('queue', 'tenant-a', {rng.randint(1, 4)})",
            f"set_limit('task', 'mail', {rng.randint(1, 6)})",
            f"set_limit('task', '*', {rng.randint(2, 8)})",
            "remove_limit('queue', 'tenant-*')",
            "remove_limit('queue', 'tenant-a')",
            "remove_limit('task', 'mail')",
        ]
    )


class Hammer:
    def __init__(self, db: Database) -> None:
        self.db, self.stop = db, threading.Event()
        self.errors: list[BaseException] = []

    @contextlib.contextmanager
    def running(self, seconds: float) -> Iterator[None]:
        bodies = [(self.worker, f"w{n}") for n in range(WORKERS)]
        bodies += [(self.limiter, "limiter"), (self.killer, "killer")]
        threads = [
            threading.Thread(target=self.guarded, args=(body, name)) for body, name in bodies
        ]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        yield
        self.stop.set()
        for thread in threads:
            thread.join()

    def guarded(self, body: object, name: str) -> None:
        rng = random.Random(name)
        while not self.stop.is_set():
            try:
                body(name, rng)  # type: ignore[operator]
            except (psycopg.OperationalError, psycopg.Rollback):
                pass  # killed; or the locks of others took too long
            except BaseException as error:
                self.errors.append(error)
                return

    def worker(self, name: str, rng: random.Random) -> None:
        with psycopg.connect(self.db.dsn, autocommit=True) as conn:
            while not self.stop.is_set():
                with conn.transaction():
                    rows = conn.execute(
                        "select id from graphile_worker.get_jobs(%s, %s)",
                        (name, rng.choice([1, 1, 2, 5, 20])),
                    ).fetchall()
                    if rng.random() < 0.1:
                        time.sleep(rng.random() * 0.05)  # in an open transaction
                    if rng.random() < 0.1:
                        raise psycopg.Rollback()
                ids = [job for (job,) in rows]
                rng.shuffle(ids)
                if rng.random() < 0.5:
                    time.sleep(rng.random() * 0.01)
                for job in ids:
                    how = rng.random()
                    if how < 0.6:
                        conn.execute(
                            "select * from graphile_worker.finish_jobs(%s, %s)", (name, [job])
                        )
                        conn.execute(
                            "select graphile_worker.add_job(%s, queue_name := %s)",
                            (rng.choice(TASKS), rng.choice(QUEUES)),
                        )
                    elif how < 0.7:
                        conn.execute(
                            "select * from graphile_worker.return_jobs(%s, %s)", (name, [job])
                        )
                    elif how < 0.8:
                        conn.execute(
                            "select * from graphile_worker.fail_jobs(%s, json_build_array("
                            "json_build_object('id', %s::bigint, 'run_at', now())))",
                            (name, job),
                        )
                    elif how < 0.9:
                        conn.execute("select graphile_worker.force_unlock_workers(%s)", ([name],))
                    # else it is forgotten, until the worker's end

    def limiter(self, name: str, rng: random.Random) -> None:
        with psycopg.connect(self.db.dsn, autocommit=True) as conn:
            while not self.stop.wait(rng.random() * 0.3):
                change = changes(rng)
                with conn.transaction():
                    if change.startswith("remove"):
                        # A claim that is under way keeps the limit with which it began, and would
                        # be told from one that exceeds it in no other way.
                        conn.execute(
                            "lock table graphile_worker._private_jobs in share row exclusive mode"
                        )
                    conn.execute(f"select graphile_worker.{change}".encode())

    def killer(self, name: str, rng: random.Random) -> None:
        """End sessions, and free what some worker holds, as if it were dead."""
        with psycopg.connect(self.db.dsn, autocommit=True) as conn:
            while not self.stop.wait(rng.random() * 0.03):
                conn.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
                    " and pid <> pg_backend_pid() and query like '%get_jobs%' limit 1"
                )
                conn.execute(
                    "select graphile_worker.force_unlock_workers(%s)",
                    ([f"w{rng.randrange(WORKERS)}"],),
                )


@pytest.mark.parametrize(
    "seconds", [pytest.param(6, id="6s"), pytest.param(60, id="60s", marks=pytest.mark.slow)]
)
def test_no_limit_is_ever_exceeded_and_no_slot_is_lost(db: Database, seconds: int) -> None:
    db.connect().execute(WATCH)
    for queue in QUEUES:
        for task in TASKS:
            db.rows(
                "select count(*) from graphile_worker.add_jobs(array(select row(%s, null, %s, null,"
                " 30000, null, null, null)::graphile_worker.job_spec from generate_series(1, 8)))",
                task, queue,
            )  # fmt: skip
    hammer = Hammer(db)
    with hammer.running(seconds):
        pass
    assert hammer.errors == []
    assert db.column("select text from public.violations") == []
    # Every job can still run, whatever happened.
    db.rows("select graphile_worker.force_unlock_workers(%s)", [f"w{n}" for n in range(WORKERS)])
    left = db.value("select count(*) from graphile_worker.jobs")
    for _ in range(left):
        rows = db.column("select id from graphile_worker.get_jobs('last', 100)")
        assert rows or not db.value("select count(*) from graphile_worker.jobs")
        db.rows("select * from graphile_worker.finish_jobs('last', %s)", rows)
        if not db.value("select count(*) from graphile_worker.jobs"):
            break
    assert db.value("select count(*) from graphile_worker.jobs") == 0
    assert db.column("select text from public.violations") == []


def test_a_rate_holds_however_many_claim_at_once(db: Database) -> None:
    """Any calls together start no more than the burst, and what falls due meanwhile."""
    rate, burst = 40, 7
    db.rows("select graphile_worker.set_limit('task', 't', null, %s, '1 second', %s)", rate, burst)
    db.rows(
        "select count(*) from graphile_worker.add_jobs(array(select row('t', null, null, null, null,"
        " null, null, null)::graphile_worker.job_spec from generate_series(1, 1000)))"
    )
    calls: list[tuple[float, float, int]] = []
    deadline = db.value("select clock_timestamp() + interval '3 s'").timestamp()

    def claim(name: str) -> None:
        rng = random.Random(name)
        with psycopg.connect(db.dsn, autocommit=True) as conn:
            clock = "select extract(epoch from clock_timestamp())::float8"
            after = 0.0
            while after < deadline:
                ((before,),) = conn.execute(clock).fetchall()
                got = conn.execute(
                    "select id from graphile_worker.get_jobs(%s, %s)",
                    (name, rng.choice([1, 3, 50])),
                ).fetchall()
                ((after,),) = conn.execute(clock).fetchall()
                calls.append((before, after, len(got)))
                time.sleep(rng.random() * 0.02)

    threads = [threading.Thread(target=claim, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    calls = sorted(call for call in calls if call[2])
    for first in range(len(calls)):
        total, last = 0, 0.0
        for _, after, count in calls[first:]:
            total, last = total + count, max(last, after)
            assert total <= burst + rate * (last - calls[first][0]) + 1e-6
    started = sum(count for _, _, count in calls)
    assert started >= burst + rate, "some three seconds' worth"
