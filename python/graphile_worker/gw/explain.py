"""gw explain: why a job is not running, as far as the database can tell."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from graphile_worker.cli import flags
from graphile_worker.gw.jobs import absent, names_one, one_of
from graphile_worker.gw.queue import Queue, Row, covers, opened
from graphile_worker.gw.values import many, plain, short, since

#: After so long any worker frees a lock.
STALE = timedelta(hours=4)
#: Others that come first are counted up to here.
MANY = 1000
#: So many milliseconds may counting them take.
COUNT_MS = 300

_JOB = """
    select *, pg_catalog.now() as now from {s}.jobs
    where id = %(id)s or key = %(key)s
"""
_WORKERS = "select * from {s}.workers order by worker_id"
_ENDED = "select ended_at from {s}.ended_workers where worker_id = %(id)s"
_IN_QUEUE = """
    select queues.locked_at, queues.locked_by,
      (select pg_catalog.min(jobs.id) from {s}.jobs
        where jobs.queue_name = queues.queue_name and jobs.locked_at is not null) as running_job
    from {s}.queues where queues.queue_name = %(queue_name)s
"""
# Due jobs that are claimed before this one.
_AHEAD = """
    select pg_catalog.count(*) as ahead from (
      select from {s}.jobs
      where locked_at is null and attempts < max_attempts and run_at <= pg_catalog.now()
      and (priority, run_at, id) < (%(priority)s, %(run_at)s, %(id)s)
      and (%(queue_name)s::text is null or queue_name = %(queue_name)s)
      limit %(most)s
    ) as first
"""
_PAUSES = f"""
    select * from {{s}}.pauses where case scope
      when 'task' then {covers("pauses.name", "%(task)s::text")}
      when 'queue' then {covers("pauses.name", "%(queue)s::text")}
      else true
    end
    order by scope, name
"""
_STATES = """
    select * from {s}.limit_states
    where (scope = 'task' and name = %(task)s) or (scope = 'queue' and name = %(queue)s)
    order by scope
"""
# How many jobs of its queue may run side by side.
_QUEUE_LIMIT = f"""
    select coalesce((
      select max_running from {{s}}.limits
      where scope = 'queue' and {covers("limits.name", "%(queue)s::text")}
      order by name = %(queue)s desc, pg_catalog.length(name) desc
      limit 1
    ), 1) as most
"""
_HELD = "select pg_catalog.count(*) as jobs from {s}.jobs where locked_by = any (%(ids)s)"


@dataclass(frozen=True)
class Reason:
    """A fact that holds now and concerns the job; the code is for programs.

    ``stops`` tells reasons for which it does not run from remarks.
    """

    code: str
    text: str
    stops: bool = True


@dataclass(frozen=True)
class Explanation:
    """All reasons, and as verdict the code of the first one that stops the job."""

    id: int
    verdict: str
    reasons: list[Reason]


class _Facts:
    """What was read about one job, in one snapshot as far as it matters."""

    def __init__(self, queue: Queue, job: Row) -> None:
        self.job = job
        self.now: datetime = job["now"]
        self.workers = queue.rows(_WORKERS)
        self.lock: Row | None = None
        self.pauses: list[Row]
        self.states: list[Row]
        self.ahead_in_queue = 0
        name = job["queue_name"]
        where = {key: job[key] for key in ("priority", "run_at", "id")}
        if name is not None:
            found = queue.rows(_IN_QUEUE, queue_name=name)
            self.lock = found[0] if found else None
            self.ahead_in_queue = _count_before(queue, where, name)
        names = {"task": job["task_identifier"], "queue": name}
        self.pauses, self.states, self.side_by_side = [], [], 1
        if queue.has_controls:
            self.pauses = queue.rows(_PAUSES, **names)
            self.states = queue.rows(_STATES, **names)
            self.side_by_side = queue.row(_QUEUE_LIMIT, queue=name)["most"]
        self.ahead = _count_before(queue, where, None)
        self.alive = [worker for worker in self.workers if worker["is_alive"]]
        task = job["task_identifier"]
        self.knowing = [
            worker for worker in self.alive
            if worker["task_identifiers"] is None or task in worker["task_identifiers"]
        ]  # fmt: skip
        ids = [worker["worker_id"] for worker in self.knowing]
        self.held: int = queue.row(_HELD, ids=ids)["jobs"]
        held_by = [job["locked_by"], None if self.lock is None else self.lock["locked_by"]]
        holders: set[str] = {str(each) for each in held_by if each is not None}
        self.ended: dict[str, datetime] = {
            each: row["ended_at"] for each in holders for row in queue.rows(_ENDED, id=each)
        }

    def holder(self, worker_id: str | None, locked_at: datetime) -> tuple[str, str]:
        """Describe the holder of a lock: a word for programs, and a text."""
        named = f"worker {plain(worker_id)}"
        found = [worker for worker in self.workers if worker["worker_id"] == worker_id]
        if found and found[0]["is_alive"]:
            return (
                "alive",
                f"{named}, alive (heartbeat {since(found[0]['heartbeat_at'], self.now)})",
            )
        if found:
            heartbeat = since(found[0]["heartbeat_at"], self.now)
            return "dead", (
                f"{named}, presumed dead (last heartbeat {heartbeat}): any Python worker frees"
                " it, and"
                " so does `gw unlock --dead`"
            )
        if worker_id in self.ended:
            ended = since(self.ended[worker_id], self.now)
            return "dead", (
                f"{named}, which ended {ended}: any Python worker frees it, and so does"
                " `gw unlock --dead`"
            )
        stale = locked_at < self.now - STALE
        more = "; locked for more than four hours, so that any worker frees it" if stale else (
            "; if it is dead, `gw unlock` with its id frees it, or any worker after four hours"
        )  # fmt: skip
        return "unknown", f"{named}, which sends no heartbeats (Node's, or a worker in SQL){more}"


def _count_before(queue: Queue, where: Row, queue_name: str | None) -> int:
    """Count the due jobs before this one; 0 if that takes long, since few are among millions."""
    row = queue.row_within(COUNT_MS, _AHEAD, **where, queue_name=queue_name, most=MANY)
    return 0 if row is None else int(row["ahead"])


def explain(queue: Queue, job: int | str) -> Explanation:
    """Explain why the job with this id or key does not run; raise if there is none."""
    name = {"id": None, "key": None, "key" if isinstance(job, str) else "id": job}
    with queue.limited(snapshot=True):
        found = queue.rows(_JOB, **name)
        if not found:
            raise absent(job)
        facts = _Facts(queue, found[0])
    reasons = list(_reasons(facts))
    stopping = [reason.code for reason in reasons if reason.stops]
    return Explanation(found[0]["id"], stopping[0] if stopping else "nothing", reasons)


def _reasons(facts: _Facts) -> Iterator[Reason]:
    job, now = facts.job, facts.now
    if job["locked_at"] is not None:
        kind, text = facts.holder(job["locked_by"], job["locked_at"])
        code = {"alive": "running", "dead": "worker_dead", "unknown": "running_unseen"}[kind]
        yield Reason(code, f"it has been running since {_time(job['locked_at'], now)}, by {text}")
        return
    failed = job["attempts"] >= job["max_attempts"]
    if failed:
        yield Reason(
            "failed",
            f"it permanently failed after {job['attempts']} attempts (of"
            f" {job['max_attempts']}), last"
            f" error: {plain(short(job['last_error'], 200)) or 'none'}; `gw retry {job['id']}`"
            " gives it new ones",
        )
    if job["run_at"] > now:
        why = ""
        if job["attempts"] and job["last_error"] and not failed:
            why = (
                f"; it waits after attempt {job['attempts']} of {job['max_attempts']}, which"
                f" failed: {plain(short(job['last_error'], 200))}"
            )
        if job["run_at"].year == datetime.max.year:
            yield Reason(
                "never_due",
                f"its run_at is infinity, or beyond the year 9999: `gw reschedule {job['id']}` sets"
                " another one",
            )
        else:
            yield Reason("not_due", f"it is not due: {_time(job['run_at'], now)}{why}")
    yield from _pauses(facts)
    yield from _limits(facts)
    yield from _queue(facts)
    yield from _workers(facts)
    if job["flags"]:
        names = ", ".join(sorted(map(plain, job["flags"])))
        yield Reason(
            "flags", f"it carries the flags {names}, which workers may be told to leave alone",
            stops=False,
        )  # fmt: skip
    if facts.ahead:
        yield Reason(
            "jobs_ahead", f"before it, by priority and time: {_number(facts.ahead)}",
            stops=False,
        )  # fmt: skip


def _pauses(facts: _Facts) -> Iterator[Reason]:
    for pause in facts.pauses:
        scope, name = pause["scope"], plain(pause["name"])
        what = "everything is" if scope == "all" else f"its {scope} is"
        by = "" if scope == "all" or not name.endswith("*") else f" (by the name {name})"
        why = f": {plain(pause['reason'])}" if pause["reason"] else ""
        until = pause["until"]
        named = "all" if scope == "all" else f"{scope} '{name}'"
        end = f"it ends {since(until, facts.now)}"
        if until is None:
            end = f"`gw resume {named}` resumes it"
        yield Reason(
            f"{scope}_paused",
            f"{what} paused{by} since {_time(pause['paused_at'], facts.now)}, by"
            f" {plain(pause['paused_by'])}{why}; {end}",
        )


def _limits(facts: _Facts) -> Iterator[Reason]:
    for state in facts.states:
        if state["slots"] > 0 or state["limit_name"] is None:
            continue
        scope, name, limit = state["scope"], plain(state["name"]), plain(state["limit_name"])
        by = f"the limit of the {scope} {limit}"
        most = state["max_running"]
        if most is not None and state["running"] >= most:
            yield Reason(
                f"{scope}_limit",
                f"{many(state['running'], 'job')} of its {scope} {name}"
                f" run{'s' if state['running'] == 1 else ''}, as many as {by} allows: it waits for"
                " the end of one",
            )
        if state["next_start_at"] > facts.now:
            yield Reason(
                f"{scope}_rate",
                f"{by} allows the next start of its {scope} {name}"
                f" {since(state['next_start_at'], facts.now)}",
            )


def _queue(facts: _Facts) -> Iterator[Reason]:
    job, lock = facts.job, facts.lock
    name = plain(job["queue_name"])
    is_serial = facts.side_by_side == 1
    if lock is not None and lock["locked_at"] is not None and is_serial:
        kind, text = facts.holder(lock["locked_by"], lock["locked_at"])
        since_when = _time(lock["locked_at"], facts.now)
        if lock["running_job"] is None:
            yield Reason(
                "queue_stuck",
                f"its queue {name} has been locked since {since_when} although none of its jobs"
                f" runs, by {text}; `gw unlock --queues` frees it",
            )
        else:
            yield Reason(
                "queue_worker_dead" if kind == "dead" else "queue_locked",
                f"its queue {name} has been locked since {since_when}, running job"
                f" {lock['running_job']}, by {text}",
            )
    if facts.ahead_in_queue:
        number = _number(facts.ahead_in_queue)
        yield Reason("queue_behind", f"before it in its queue {name}: {number}", stops=is_serial)


def _workers(facts: _Facts) -> Iterator[Reason]:
    task = plain(facts.job["task_identifier"])
    node = "Node's workers do not say that they run, nor which tasks they know"
    if not facts.alive:
        yield Reason("no_worker", f"no Python worker is alive; {node}")
    elif not facts.knowing:
        yield Reason(
            "task_unknown",
            f"none of {many(len(facts.alive), 'live Python worker')} knows the task {task}; {node}",
        )
    else:
        yield Reason(
            "workers",
            f"the task {task} is known to {many(len(facts.knowing), 'live Python worker')}, holding"
            f" {many(facts.held, 'job')} now",
            stops=False,
        )


def _number(count: int) -> str:
    return f"{MANY} due jobs or more" if count >= MANY else many(count, "due job")


def _time(moment: datetime, now: datetime) -> str:
    return f"{moment.isoformat(' ', 'seconds')} ({since(moment, now)})"


configure = names_one


def run(options: argparse.Namespace) -> int:
    """Print every reason that holds now."""
    name = one_of(options)
    with opened(options) as queue:
        found = explain(queue, name)
    answer: dict[str, Any] = asdict(found)
    flags.out(options, answer, as_text(found))
    return 0


def as_text(found: Explanation) -> str:
    """Return an explanation for people."""
    lines = [
        f"Job {found.id} ({found.verdict}):",
        *(f"  {'-' if reason.stops else ' '} {reason.text}" for reason in found.reasons),
    ]
    if found.verdict == "nothing":
        lines.append("  nothing stands in its way: it runs when a worker has room")
    return "\n".join(lines)
