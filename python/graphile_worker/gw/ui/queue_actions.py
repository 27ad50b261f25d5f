"""What can be done to queues, tasks, workers and schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from graphile_worker.errors import GraphileWorkerError, InvalidArgument
from graphile_worker.gw.doctor.command import examine
from graphile_worker.gw.doctor.findings import Examination
from graphile_worker.gw.locks import unlock_dead
from graphile_worker.gw.queue import Queue
from graphile_worker.gw.ui.action import Action, Field, Says, Values, read, says, text
from graphile_worker.gw.values import duration, many, moment, whole


def _named(values: Values) -> str:
    scope, name = values.get("scope", ""), values.get("name", "")
    if scope not in ("all", "queue", "task") or (scope == "all") != (not name):
        raise InvalidArgument(
            f"scope {scope!r} and name {name!r} do not fit: use all without a name, or queue or"
            " task with one; nothing was changed"
        )
    return "Everything" if scope == "all" else f"{scope.title()} {name}"


def _pause(queue: Queue, values: Values) -> str:
    named, scope, utils = _named(values), values["scope"], queue.utils
    until, reason = read(values, "until", moment), text(values, "reason")
    if scope == "all":
        utils.pause_all(until=until, reason=reason)
    else:
        verb = utils.pause_queue if scope == "queue" else utils.pause_task
        verb(values["name"], until=until, reason=reason)
    return f"{named} is paused."


def _resume(queue: Queue, values: Values) -> str:
    named, scope, utils = _named(values), values["scope"], queue.utils
    if scope == "all":
        found = utils.resume_all()
    else:
        found = (utils.resume_queue if scope == "queue" else utils.resume_task)(values["name"])
    if not found:
        raise GraphileWorkerError(f"{named} was not paused under this name")
    return f"{named} is resumed."


def _limit(queue: Queue, values: Values) -> str:
    named, scope = _named(values), values["scope"]
    queue.utils.set_limit(
        "task" if scope == "task" else "queue", values["name"],
        max_running=read(values, "max_running", whole(1, 100_000)),
        rate=read(values, "rate", whole(1, 1_000_000)), per=read(values, "per", duration),
        burst=read(values, "burst", whole(1, 1_000_000)),
    )  # fmt: skip
    return f"{named} is limited."


def _unlimit(queue: Queue, values: Values) -> str:
    named = _named(values)
    scope: Literal["task", "queue"] = "task" if values["scope"] == "task" else "queue"
    if not queue.utils.remove_limit(scope, values["name"]):
        raise GraphileWorkerError(f"{named} has no limit of its own")
    return f"{named} has no limit of its own any more."


def _unlock_worker(queue: Queue, values: Values) -> str:
    worker = text(values, "worker")
    if worker is None:
        raise InvalidArgument("say which worker; nothing was changed")
    queue.utils.force_unlock_workers([worker])
    return f"What worker {worker} held is unlocked."


def _unlock_dead(queue: Queue, values: Values) -> str:
    done = unlock_dead(queue)
    jobs = sum(worker["jobs"] for worker in done["workers"]) + done["stale_jobs"]
    return f"Unlocked {many(jobs, 'job')} of dead workers."


def _schedule(verb: Callable[[Queue, str], str]) -> Callable[[Queue, Values], str]:
    def do(queue: Queue, values: Values) -> str:
        name = text(values, "schedule")
        if name is None:
            raise InvalidArgument("say which schedule; nothing was changed")
        return verb(queue, name)

    return do


def _run_schedule(queue: Queue, name: str) -> str:
    job = queue.utils.run_schedule_now(name)
    if job is None:
        raise GraphileWorkerError(
            f"nothing was added: the job of the last run of {name} has not ended"
        )
    return f"Added job {job} of schedule {name}."


def _pause_schedule(queue: Queue, name: str) -> str:
    queue.utils.pause_schedule(name)
    return f"Schedule {name} is paused."


def _resume_schedule(queue: Queue, name: str) -> str:
    queue.utils.resume_schedule(name)
    return f"Schedule {name} is resumed."


def _end_schedule(queue: Queue, name: str) -> str:
    if not queue.utils.unschedule(name):
        raise GraphileWorkerError(f"there is no schedule {name}")
    return f"Schedule {name} is ended."


def _fix(queue: Queue, values: Values) -> str:
    fixed: list[str] = []
    for finding in examine(Examination(queue), only=["dead-locks", "stuck-queues"]).findings:
        if finding.repair:
            fixed.append(finding.repair(queue))
    return f"Fixed: {'; '.join(filter(None, fixed)) or 'nothing was left to fix'}."


def _about(text: str) -> Says:
    return lambda queue, values: f"{_named(values)} {text}"


def _of(text: str) -> Says:
    return lambda queue, values: f"Schedule {values.get('schedule', '')} {text}"


_REASON = Field("reason", "Reason", "for people")
_UNTIL = Field("until", "Until", "30m from now, or 2030-01-31T08:00:00Z; empty: until resumed")
_SCOPED = (
    Field("scope", "What", "queue or task", True), Field("name", "Name", "may end in *", True),
)  # fmt: skip

QUEUE_ACTIONS: dict[str, Action] = {
    "pause": Action(
        "Pause", "Pause", ("scope", "name"),
        _about("will start no more jobs; jobs that run go on."), _pause, (_UNTIL, _REASON),
    ),
    "resume": Action(
        "Resume", "Resume", ("scope", "name"), _about("will start jobs again."), _resume
    ),
    "limit": Action(
        "Set a limit", "Set limit", (), says("A limit holds for the whole fleet of workers."),
        _limit,
        (
            *_SCOPED, Field("max_running", "At once", "how many may run"),
            Field("rate", "Rate", "how many may start in a time"),
            Field("per", "Per", "the time for the rate: 1s, 1m or 1h"), Field("burst", "Burst"),
        ),
    ),
    "unlimit": Action(
        "Remove a limit", "Remove limit", ("scope", "name"), _about("will have no limit."), _unlimit
    ),
    "unlock-worker": Action(
        "Unlock what a worker holds", "Unlock", ("worker",),
        says(
            "Its jobs and queues will be free for others. Do this only if the worker is dead: if"
            " it lives, its jobs run twice."
        ),
        _unlock_worker, (), True,
    ),
    "unlock-dead": Action(
        "Unlock what dead workers hold", "Unlock", (),
        says("Jobs and queues of workers that are presumed dead will be free."), _unlock_dead,
    ),
    "run-schedule": Action(
        "Run a schedule now", "Run now", ("schedule",), _of("will add a job now."),
        _schedule(_run_schedule),
    ),
    "pause-schedule": Action(
        "Pause a schedule", "Pause", ("schedule",), _of("will add no job until it is resumed."),
        _schedule(_pause_schedule),
    ),
    "resume-schedule": Action(
        "Resume a schedule", "Resume", ("schedule",), _of("will add jobs again."),
        _schedule(_resume_schedule),
    ),
    "end-schedule": Action(
        "End a schedule", "End", ("schedule",),
        _of("will be deleted; the jobs that it has added stay."), _schedule(_end_schedule),
        is_danger=True,
    ),
    "fix": Action(
        "Fix what doctor can fix", "Fix", (),
        says("What dead workers hold, and queues of which no job runs, will be unlocked."), _fix,
    ),
}  # fmt: skip
