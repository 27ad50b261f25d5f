"""The checks of gw doctor that read the queue itself."""

from __future__ import annotations

from graphile_worker.errors import InstallError
from graphile_worker.gw.doctor.findings import Examination, Finding, SkippedError
from graphile_worker.gw.locks import unlock_dead, unlock_queues
from graphile_worker.gw.queue import Queue, Row
from graphile_worker.gw.values import many, plain, span
from graphile_worker.install.verification import verify

# Node's workers have no row among the workers: theirs count as dead after four hours.
_DEAD = """
    select holders.locked_by as worker_id, pg_catalog.sum(holders.jobs)::bigint as jobs,
      pg_catalog.sum(holders.queues)::bigint as queues,
      extract(epoch from pg_catalog.now() - greatest(coalesce(
        pg_catalog.min(workers.heartbeat_at), pg_catalog.min(ended.ended_at),
        pg_catalog.min(holders.locked_at)
      ), timestamptz '0001-01-01 00:00+00'))::float8 as silent,
      pg_catalog.count(*) filter (
        where workers.worker_id is not null or ended.worker_id is not null
      ) > 0 as has_beaten
    from (
      select locked_by, locked_at, 1 as jobs, 0 as queues from {s}.jobs where locked_at is not null
      union all
      select locked_by, locked_at, 0, 1 from {s}.queues where locked_at is not null
    ) as holders
    left join {s}.workers on workers.worker_id = holders.locked_by
    left join {s}.ended_workers as ended on ended.worker_id = holders.locked_by
    where workers.is_alive is false
    or (workers.worker_id is null and ended.worker_id is not null)
    or (workers.worker_id is null and holders.locked_at < pg_catalog.now() - interval '4 hours')
    group by holders.locked_by
    order by holders.locked_by
"""
_STUCK = """
    select queues.queue_name, queues.locked_by,
      extract(epoch from pg_catalog.now() - least(
        pg_catalog.now(), greatest(queues.locked_at, timestamptz '0001-01-01 00:00+00')
      ))::float8 as seconds,
      (select pg_catalog.count(*) from {s}.jobs
        where jobs.queue_name = queues.queue_name and jobs.attempts < jobs.max_attempts) as waiting
    from {s}.queues
    where queues.locked_at is not null
    and not exists (
      select from {s}.jobs
      where jobs.queue_name = queues.queue_name and jobs.locked_at is not null
    )
    order by queues.queue_name
"""
_FAILED = """
    select pg_catalog.count(*) as total,
      pg_catalog.count(*) filter (where locked_at is null and attempts >= max_attempts) as failed
    from {s}.jobs
"""
_FAILED_TASKS = """
    select task_identifier, pg_catalog.count(*) as failed
    from {s}.jobs where locked_at is null and attempts >= max_attempts
    group by task_identifier order by failed desc, task_identifier limit 3
"""
# Due for a while, and not because of a queue or of jobs of its queue that come first.
_OVERDUE = """
    select jobs.task_identifier, pg_catalog.count(*) as jobs,
      extract(epoch from pg_catalog.now()
        - greatest(pg_catalog.min(jobs.run_at), timestamptz '0001-01-01 00:00+00')
      )::float8 as seconds
    from {s}.jobs left join {s}.queues on queues.queue_name = jobs.queue_name
    where jobs.locked_at is null and jobs.attempts < jobs.max_attempts
    and jobs.run_at < pg_catalog.now() - %(seconds)s * interval '1 second'
    and queues.locked_at is null
    group by jobs.task_identifier order by jobs desc, jobs.task_identifier
"""
_ALIVE = """
    select workers.task_identifiers from {s}.workers where is_alive
"""
UNSEEN = """
    select exists (
      select from {s}.jobs
      where locked_by is not null
      and not exists (select from {s}.workers where workers.worker_id = jobs.locked_by)
    ) as found
"""


def dead_locks(exam: Examination) -> list[Finding]:
    """Find what dead workers hold."""

    def repair(queue: Queue) -> str:
        done = unlock_dead(queue)
        freed = [(w["jobs"], w["queues"], f"of {plain(w['worker_id'])}") for w in done["workers"]]
        freed.append((done["stale_jobs"], done["stale_queues"], "locked for four hours"))
        parts = [
            f"{many(jobs, 'job')} and {many(queues, 'queue')} {whose}"
            for jobs, queues, whose in freed
            if jobs or queues
        ]
        return f"freed {', '.join(parts)}" if parts else ""

    return [
        Finding(
            "dead-locks", "problem",
            f"worker {plain(row['worker_id'])} is dead and holds {many(row['jobs'], 'job')} and"
            f" {many(row['queues'], 'queue')}",
            (
                f"its last heartbeat came {span(row['silent'])} ago, and no live Python worker"
                " freed what it held"
                if row["has_beaten"] else
                f"it sends no heartbeats, and has held them for {span(row['silent'])}"
            ),
            "`gw unlock --dead` unlocks them; a running worker does so by itself",
            repair,
        )
        for row in exam.queue.rows(_DEAD)
    ]  # fmt: skip


def stuck_queues(exam: Examination) -> list[Finding]:
    """Find queues that are locked although none of their jobs runs."""
    found = exam.queue.rows(_STUCK)

    def finding(row: Row) -> Finding:
        name = row["queue_name"]

        def repair(queue: Queue) -> str:
            freed = unlock_queues(queue, [name])
            return f"unlocked queue {plain(name)}" if freed else ""

        return Finding(
            "stuck-queues", "problem",
            f"queue {plain(name)} is locked, by {plain(row['locked_by'])} for"
            f" {span(row['seconds'])}, although none of its jobs runs",
            f"waiting in it: {many(row['waiting'], 'job')}; someone changed the rows by hand",
            "`gw unlock --queues` frees such queues", repair,
        )  # fmt: skip

    return [finding(row) for row in found]


def failed_jobs(exam: Examination) -> list[Finding]:
    """Find many permanently failed jobs."""
    row, limits = exam.queue.row(_FAILED), exam.limits
    failed, total = row["failed"], row["total"]
    share = failed / total if total else 0.0
    if failed <= limits.failed_jobs and (
        failed < limits.failed_least or share <= limits.failed_share
    ):
        return []
    tasks = ", ".join(
        f"{plain(row['task_identifier'])} ({row['failed']})"
        for row in exam.queue.rows(_FAILED_TASKS)
    )
    return [
        Finding(
            "failed-jobs", "warning",
            f"{failed} jobs permanently failed, {share:.0%} of all",
            f"they will not run again, and counting jobs reads them; most are of {tasks}",
            "see `gw jobs --state failed`; then `gw retry --all-failed`, or"
            " `gw cleanup failed-jobs --older-than 30d`",
        )
    ]  # fmt: skip


def unknown_tasks(exam: Examination) -> list[Finding]:
    """Find due jobs of tasks that no live worker knows."""
    overdue = exam.queue.rows(_OVERDUE, seconds=exam.limits.overdue)
    alive = [row["task_identifiers"] for row in exam.queue.rows(_ALIVE)]
    if not overdue or None in alive:  # one that does not list its tasks may know any
        return []
    if not alive:
        if exam.queue.row(UNSEEN)["found"]:
            return []  # Node's workers do, and do not say which tasks they know
        jobs = sum(row["jobs"] for row in overdue)
        longest = span(max(row["seconds"] for row in overdue))
        return [
            Finding(
                "tasks", "problem",
                f"{many(jobs, 'due job')}, the oldest for {longest} and no worker runs",
                "no Python worker is alive, and no worker without heartbeats, such as Node's,"
                " holds a job",
                "start a worker, for instance with `gw run`",
            )
        ]  # fmt: skip
    known = {task for tasks in alive for task in tasks}
    return [
        Finding(
            "tasks", "warning",
            f"{many(row['jobs'], 'job')} of the task {plain(row['task_identifier'])}, due for"
            f" {span(row['seconds'])} by now, and no live Python worker knows it",
            f"{many(len(alive), 'worker')} alive; Node's do not say which tasks they know",
            "start a worker with this task, or correct the name; `gw complete --task` deletes"
            " the jobs",
        )
        for row in overdue
        if row["task_identifier"] not in known
    ]  # fmt: skip


def many_queues(exam: Examination) -> list[Finding]:
    """Find many unused queue names."""
    most = exam.limits.queue_names
    names = exam.queue.row("select pg_catalog.count(*) as names from {s}.queues")["names"]
    if names <= most:
        return []
    return [
        Finding(
            "queue-names", "warning", f"there are {names} names of queues",
            "each keeps a row until it is deleted, which slows down lookups",
            "`gw cleanup queues` removes those that no job needs, now and then at a quiet time",
        )
    ]  # fmt: skip


def drift(exam: Examination) -> list[Finding]:
    """Find missing or invalid indexes, and other differences from the installed version."""
    try:
        lock_timeout = f"{max(1, round(exam.queue.timeout * 1000))}ms"
        exam.queue.conn.execute("select set_config('lock_timeout', %s, true)", [lock_timeout])
        found = verify(exam.queue.conn, schema=exam.queue.schema, scripts=exam.scripts)
    except InstallError as error:
        raise SkippedError(str(error)) from error
    named = "" if exam.queue.schema == "graphile_worker" else f" --schema {exam.queue.schema}"
    return [
        Finding(
            "roles" if one.what.startswith("grant to ") else
            "indexes" if one.what.startswith("index ") else "schema",
            "problem", f"{plain(one.what)}: {plain(one.problem)}",
            "the schema is not what its version installs",
            f"`gw-install verify --fix{named}`" if one.fix else str(one.remedy),
        )
        for one in found
    ]  # fmt: skip
