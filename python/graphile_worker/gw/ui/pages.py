"""The pages that show something. Those of actions are in actions.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from graphile_worker.client import drivers
from graphile_worker.client.records import verbs
from graphile_worker.errors import AccessDenied, GraphileWorkerError
from graphile_worker.gw import control, explain, reads, stats
from graphile_worker.gw.doctor.command import examine
from graphile_worker.gw.doctor.findings import Examination
from graphile_worker.gw.jobs import STATE, STATES
from graphile_worker.gw.queue import Queue, Row
from graphile_worker.gw.ui.security import root_of
from graphile_worker.gw.ui.site import Site, Source

#: What may be done to a job in each state; names of actions.
ACTIONS = {
    "ready": ("reschedule", "cancel", "fail", "complete"),
    "scheduled": ("run-now", "reschedule", "cancel", "fail", "complete"),
    "running": ("cancel",),
    "failed": ("retry", "discard"),
}
_JOB = f"select *, {STATE} as state from {{s}}.jobs where id = %(id)s"
_BY_KEY = "select id from {s}.jobs where key = %(key)s"
_ATTEMPTS = "select attempt_log from {s}.failed_jobs where id = %(id)s"
_ENDED = "select * from {s}.job_history where job_id = %(id)s order by finished_at desc limit 1"
_PROGRESS = "select progress::float8, message from {s}.job_progress where job_id = %(id)s"
_LOCKED = """
    select queue_name, locked_at, locked_by from {s}.queues where locked_at is not null
    order by locked_at limit 100
"""
_HELD = """
    select jobs.id, jobs.task_identifier, jobs.queue_name, jobs.locked_by, jobs.locked_at,
      progress.progress::float8 as progress, progress.message
    from {s}.jobs left join {s}.job_progress as progress on progress.job_id = jobs.id
    where jobs.locked_by is not null order by jobs.locked_at, jobs.id limit 200
"""
_ENDED_WORKERS = "select * from {s}.ended_workers order by ended_at desc limit 20"
_CRONTABS = "select * from {s}.crontabs order by identifier"
_LIMIT_STATES = "select * from {s}.limit_states order by scope, name limit 200"
_SCHEDULED_LATELY = """
    select job_id, state, started_at, finished_at, duration from {s}.job_history
    where task_identifier = %(task)s order by finished_at desc limit 10
"""

#: What only waiting, or only ended, jobs have.
_BLANK = {"locked_at": None, "locked_by": None, "finished_at": None, "duration": None}

Read = Callable[[Request, Site, Source, Queue], "dict[str, Any] | Response"]
PAGES: dict[str, Callable[[Request], Response]] = {}


def source_of(request: Request) -> Source:
    """Return the database that a request is about; raise 404 if there is none of that name."""
    site: Site = request.app.state.site
    name = request.path_params["database"]
    if name not in site.sources:
        raise HTTPException(404, f"There is no database {name!r} here.")
    return site.sources[name]


def page(path: str, template: str, title: str) -> Callable[[Read], Read]:
    """Make what reads a page's values an endpoint."""

    def make(read: Read) -> Read:
        def endpoint(request: Request) -> Response:
            site: Site = request.app.state.site
            source = source_of(request)
            with source.opened() as queue:
                found = read(request, site, source, queue)
                if isinstance(found, Response):
                    return found
                shown = {"title": title, "can_act": site.can_act(queue), "source": source, **found}
            return site.page(request, template, **shown)

        PAGES[path] = endpoint
        return read

    return make


@page("/", "overview.html", "Overview")
def overview(request: Request, site: Site, source: Source, queue: Queue) -> dict[str, Any]:
    """Read the numbers of all jobs, and what goes wrong."""
    with queue.limited(read_only=True):
        found = {
            "now": queue.now(),
            "totals": reads.totals(queue, source.cache),
            "errors": reads.errors(queue, source.cache),
            "tasks": reads.by(queue, "task_identifier"),
            "queues": reads.by(queue, "queue_name", 15),
            "waited": reads.waited(queue),
            "workers": queue.rows(stats.WORKERS, most=1000),
            "pauses": queue.utils.pauses(),
        }
    found["samples"] = json.dumps(list(request.app.state.live[source.name].samples))
    return found


def filters_of(request: Request) -> reads.Filters:
    """Read the filters of a list out of its address."""
    query = request.query_params
    given = {name: query.get(name) or None for name in ("task", "queue", "key", "worker", "error")}
    states = [state for state in query.getlist("state") if state in STATES]
    return reads.Filters(states=states, **given)


def _before(request: Request) -> int | None:
    text = request.query_params.get("before", "")
    return int(text) if text.isdecimal() and len(text) < 19 else None


@page("/jobs", "jobs.html", "Jobs")
def jobs(request: Request, site: Site, source: Source, queue: Queue) -> dict[str, Any] | Response:
    """Read a page of jobs; a number or a key that was looked for leads to its job."""
    wanted = request.query_params.get("find", "").strip()
    if wanted:
        named = wanted if wanted.isdecimal() else None
        if named is None:
            with queue.limited(read_only=True):
                rows = queue.rows(_BY_KEY, key=wanted)
            named = str(rows[0]["id"]) if rows else None
        root = root_of(request)
        if named is not None:
            return RedirectResponse(f"{root}/{source.name}/jobs/{named}", 303)
        raise GraphileWorkerError(f"no job has the key {wanted!r}")
    filters = filters_of(request)
    with queue.limited(read_only=True):
        return {
            "now": queue.now(), "filters": filters, "states": STATES,
            "count": reads.count(queue, filters, source.cache),
            "found": reads.search(queue, filters, _before(request)),
            "is_first": _before(request) is None,
        }  # fmt: skip


@page("/failed", "failed.html", "Failed jobs")
def failed(request: Request, site: Site, source: Source, queue: Queue) -> dict[str, Any]:
    """Read the failed jobs, in groups and one by one."""
    filters = reads.Filters(**{**filters_of(request).__dict__, "states": ["failed"]})
    with queue.limited(read_only=True):
        return {
            "now": queue.now(), "filters": filters,
            "groups": reads.errors(queue, source.cache, failed_only=True, most=20),
            "count": reads.count(queue, filters, source.cache),
            "found": reads.search(queue, filters, _before(request)),
            "is_first": _before(request) is None,
        }  # fmt: skip


@page("/jobs/{id:int}", "job.html", "Job")
def job(request: Request, site: Site, source: Source, queue: Queue) -> dict[str, Any]:
    """Read everything about a job, as far as the role may."""
    id_: int = request.path_params["id"]
    with queue.limited(read_only=True):
        rows = queue.rows(_JOB, id=id_) if id_ < 2**63 else []
        ended = queue.rows(_ENDED, id=id_) if not rows and id_ < 2**63 else []
        if not rows and not ended:
            raise HTTPException(
                404, f"There is no job {id_}. It may have completed (completed jobs are deleted,"
                " unless history is kept), been removed, or never existed.",
            )  # fmt: skip
        found: dict[str, Any] = {
            "now": queue.now(),
            "progress": None,
            "attempts": [],
            "reasons": [],
        }
        if rows:
            found |= _waiting(queue, rows[0])
        else:
            found |= _recorded(ended[0])
    if rows:
        found["reasons"] = explain.explain(queue, id_).reasons
    found |= _contents(site, queue, id_, found["job"])
    return {**found, "title": f"Job {id_}", "actions": ACTIONS.get(found["job"]["state"], ())}


def _waiting(queue: Queue, row: Row) -> dict[str, Any]:
    progress = queue.rows(_PROGRESS, id=row["id"])
    logs = queue.rows(_ATTEMPTS, id=row["id"]) if row["state"] == "failed" else []
    return {
        "job": {**_BLANK, **row, "error": row["last_error"], "worker_id": row["locked_by"]},
        "progress": progress[0] if progress else None,
        "attempts": (logs[0]["attempt_log"] if logs else None) or [],
    }


def _recorded(row: Row) -> dict[str, Any]:
    return {"job": {**_BLANK, **row, "id": row["job_id"]}, "attempts": row["attempt_log"] or []}


def _contents(site: Site, queue: Queue, id_: int, job: dict[str, Any]) -> dict[str, Any]:
    """Return payload, result and attempts, redacted; the level observe does not read payloads."""
    task = job["task_identifier"]
    found: dict[str, Any] = {"payload": None, "has_payload": False, "why_no_payload": ""}
    found["result"] = site.redaction.shown(task, job.get("result"))
    try:
        with queue.limited(read_only=True):
            record = drivers.run(queue.conn, verbs.find_job(queue.utils._settings, id_))
    except AccessDenied:
        return {**found, "why_no_payload": "The database role may not read payloads."}
    if record is None:  # it ended a moment ago
        return found
    if record.attempt_log:
        found["attempts"] = [asdict(attempt) for attempt in record.attempt_log]
    if record.payload is not None:
        return {
            **found, "has_payload": True, "payload": site.redaction.shown(task, record.payload)
        }  # fmt: skip
    return {**found, "why_no_payload": "The payload is not kept in history."}


@page("/queues", "queues.html", "Queues and limits")
def queues(request: Request, site: Site, source: Source, queue: Queue) -> dict[str, Any]:
    """Read queues, locks, pauses and limits."""
    with queue.limited(read_only=True):
        return {
            "now": queue.now(), "queues": reads.by(queue, "queue_name", 200),
            "locked": queue.rows(_LOCKED), "pauses": queue.utils.pauses(),
            "limits": [(limit, control.said(limit)) for limit in queue.utils.limits()],
            "states": queue.rows(_LIMIT_STATES),
        }  # fmt: skip


@page("/workers", "workers.html", "Workers")
def workers(request: Request, site: Site, source: Source, queue: Queue) -> dict[str, Any]:
    """Read who runs what, and who is silent."""
    with queue.limited(read_only=True):
        return {
            "now": queue.now(), "workers": queue.rows(stats.WORKERS, most=200),
            "others": queue.rows(stats.OTHERS, most=200), "held": queue.rows(_HELD),
            "ended": queue.rows(_ENDED_WORKERS),
        }  # fmt: skip


@page("/schedules", "schedules.html", "Schedules")
def schedules(request: Request, site: Site, source: Source, queue: Queue) -> dict[str, Any]:
    """Read the schedules of the database, and what is known of those in workers' code."""
    with queue.limited(read_only=True):
        found = queue.utils.schedules()
        runs = {each.name: queue.rows(_SCHEDULED_LATELY, task=each.task) for each in found[:50]}
        return {
            "now": queue.now(), "schedules": found, "runs": runs, "crontabs": queue.rows(_CRONTABS)
        }  # fmt: skip


@page("/doctor", "doctor.html", "Doctor")
def doctor(request: Request, site: Site, source: Source, queue: Queue) -> dict[str, Any]:
    """Make all checks of gw doctor."""
    return {"diagnosis": examine(Examination(queue))}
