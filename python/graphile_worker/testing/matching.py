"""Which jobs a test is looking for, and how those that there are differ from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypedDict

from graphile_worker import payload as payloads
from graphile_worker.job import Job, JobState, check_run_at

_SHOWN = 10
_WITHIN = timedelta(seconds=10)


class Expected(TypedDict, total=False):
    """What a job has to be like; what is left out may be anything."""

    queue_name: str | None
    job_key: str | None
    priority: int
    max_attempts: int
    flags: Iterable[str]
    #: A time, or a timedelta from the database's now.
    run_at: datetime | timedelta
    #: How far off run_at may be, 10 seconds if left out.
    within: timedelta
    #: ready, scheduled, running or failed (for good); if left out, any but failed.
    state: JobState
    #: Whether the payload has no other members than the given ones.
    exact: bool


@dataclass(frozen=True)
class Wanted:
    """The jobs that are looked for."""

    task: str | None
    #: None: any.
    payload: Any
    expected: Expected
    #: The database's, and how far the queue has travelled.
    now: datetime
    travelled: timedelta

    def __post_init__(self) -> None:
        if "run_at" in self.expected:
            check_run_at(self.expected["run_at"])

    def differences(self, job: Job) -> list[str]:
        """Return in what a job is another, nothing for one that is looked for."""
        found = []
        if self.task is not None and job.task_identifier != self.task:
            found.append(f"task is {job.task_identifier!r}: wanted {self.task!r}")
        if self.payload is not None:
            exact = self.expected.get("exact", False)
            actual = job.payload
            if exact and isinstance(actual, dict) and not _asks_for_trace(self.payload):
                actual = {name: part for name, part in actual.items() if name != "_trace"}
            found += _differences(plain(self.payload), actual, "payload", exact)
        for option, attribute in _ATTRIBUTES.items():
            if option in self.expected:
                wanted, actual = self.expected[option], getattr(job, attribute)  # type: ignore[literal-required]
                wanted = frozenset(wanted) if option == "flags" else wanted
                if actual != wanted:
                    found.append(f"{option} is {_shown(actual)}: wanted {_shown(wanted)}")
        return found + list(self._lateness(job))

    def _lateness(self, job: Job) -> Iterator[str]:
        if "run_at" not in self.expected:
            return
        run_at, within = self.expected["run_at"], self.expected.get("within", _WITHIN)
        if isinstance(run_at, timedelta):
            run_at += self.now
        else:
            run_at -= self.travelled
        if abs(job.run_at - run_at) > within:
            word = "later" if job.run_at > run_at else "earlier"
            off = abs(job.run_at - run_at)
            yield f"run_at is {off} {word} than wanted, more than {within}"

    def __str__(self) -> str:
        said = f"job of {self.task!r}" if self.task is not None else "job"
        if self.payload is not None:
            word = "exactly " if self.expected.get("exact") else ""
            said += f" with {word}{plain(self.payload)!r}"
        options = {
            name: value for name, value in self.expected.items() if name not in ("exact", "within")
        }
        return said + "".join(f", {name} {_shown(value)}" for name, value in options.items())


_ATTRIBUTES = {
    "queue_name": "queue_name",
    "job_key": "key",
    "priority": "priority",
    "max_attempts": "max_attempts",
    "flags": "flags",
}


def plain(value: Any) -> Any:
    """Return a value as JSON brings it back; what has an equality of its own stays as it is."""
    if isinstance(value, dict):
        return {
            name if isinstance(name, str) else str(name): plain(part)
            for name, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if value is None or type(value) in (str, int, float, bool):
        return value
    try:
        return plain(payloads._plain(value))
    except (TypeError, ValueError):  # such as mock.ANY
        return value


def _asks_for_trace(payload: Any) -> bool:
    return isinstance(payload, dict) and "_trace" in payload


def _differences(wanted: Any, actual: Any, path: str, exact: bool) -> list[str]:
    found = []
    if isinstance(wanted, dict) and isinstance(actual, dict):
        for name, part in wanted.items():
            if name not in actual:
                found.append(f"{path}.{name} is missing: wanted {part!r}")
            else:
                found += _differences(part, actual[name], f"{path}.{name}", exact)
        if exact:
            others = [name for name in actual if name not in wanted]
            found += [f"{path}.{name} is {actual[name]!r}: wanted none" for name in others]
        return found
    if isinstance(wanted, list) and isinstance(actual, list) and len(wanted) == len(actual):
        for place, (one, other) in enumerate(zip(wanted, actual, strict=True)):
            found += _differences(one, other, f"{path}[{place}]", exact)
        return found
    # True == 1 in Python, but not in JSON.
    numbers = isinstance(wanted, int) and isinstance(actual, int)
    alike = wanted == actual and not (numbers and type(wanted) is not type(actual))
    return [] if alike else [f"{path} is {actual!r}: wanted {wanted!r}"]


def _shown(value: Any) -> str:
    if isinstance(value, datetime | timedelta):
        return str(value)
    return repr(sorted(value)) if isinstance(value, frozenset) else repr(value)


def missing(wanted: Wanted, jobs: Sequence[Job]) -> str:
    """Return what to tell where no job is the wanted one: the nearest, and all that there are."""
    lines = [f"there is no {wanted}"]
    if jobs:
        near = min(jobs, key=lambda job: _distance(wanted, job))
        lines.append(f"nearest is job {near.id} of {near.task_identifier!r}:")
        lines += [f"  {line}" for line in wanted.differences(near)]
    return "\n".join([*lines, listed(jobs, wanted.now)])


def _distance(wanted: Wanted, job: Job) -> tuple[bool, int]:
    return job.task_identifier != wanted.task, len(wanted.differences(job))


def listed(jobs: Sequence[Job], now: datetime) -> str:
    """Return a line for each job, for the first of them."""
    if not jobs:
        return "the queue is empty"
    lines = [f"in the queue: {len(jobs)}"]
    for job in jobs[:_SHOWN]:
        more = f", queue {job.queue_name!r}" if job.queue_name is not None else ""
        more += f", key {job.key!r}" if job.key is not None else ""
        shown = repr(job.payload)
        shown = shown if len(shown) <= 200 else f"{shown[:197]}..."
        lines.append(f"  job {job.id} {job.task_identifier} {shown}{more}, {_state(job, now)}")
    if len(jobs) > _SHOWN:
        lines.append(f"  and {len(jobs) - _SHOWN} more")
    return "\n".join(lines)


def _state(job: Job, now: datetime) -> str:
    if job.locked_at is not None:
        return f"running, attempt {job.attempts}"
    error = (job.last_error or "").partition("\n")[0]
    if not job.is_available:
        return f"failed: {error}"
    wait = timedelta(seconds=round((job.run_at - now).total_seconds()))
    due = f"in {wait}" if job.run_at > now else "ready"
    return f"{due}, after {error!r}" if error else due
