"""The verbs that add jobs, without input and output."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from typing import Any, NamedTuple

from graphile_worker import errors
from graphile_worker.client.statements import Values, statement
from graphile_worker.client.tracing import sending
from graphile_worker.client.verbs import Settings, Verb, _flags, _named_job, _payload, logger, when
from graphile_worker.job import (
    Job,
    JobSpec,
    TaskOptions,
    TaskSpec,
    check_identifier,
    options_of,
    with_options,
)
from graphile_worker.payload import to_json, to_json_array

_DEFAULT = TaskSpec()


def _values_of(spec: TaskSpec) -> Values:
    run_at, delay = when(spec.run_at)
    return {
        "queue_name": spec.queue_name,
        "run_at": run_at,
        "delay": delay,
        "max_attempts": spec.max_attempts,
        "priority": spec.priority,
        "flags": None if spec.flags is None else list(spec.flags),
    }


def _one(settings: Settings, identifier: str, payload: Any, spec: TaskSpec) -> Values:
    return {
        "identifier": identifier,
        "payload": to_json(payload, settings.dumps, trace=settings.trace),
        "job_key": spec.job_key,
        "job_key_mode": spec.job_key_mode,
        **_values_of(spec),
    }


def add_job(
    settings: Settings, identifier: str, payload: Any, spec: TaskSpec | None, options: TaskOptions
) -> Verb[Job]:
    """Add one job."""
    check_identifier(identifier)
    spec = with_options(spec or _DEFAULT, options)
    # Where nothing but the key decides, the job may be of another task, in another queue.
    dedupes = spec.job_key_mode == "unsafe_dedupe"
    with sending(settings.trace, identifier) as sent:
        values = _one(settings, identifier, payload, spec)
        rows = yield statement("add_job_named" if dedupes else "add_job", settings.schema), values
        (row,) = rows
        if dedupes:
            job = _named_job(row, (identifier, spec.queue_name))
        else:
            id_, text, flags, *rest = row
            job = Job(id_, identifier, spec.queue_name, _payload(text), _flags(flags), *rest)
        sent(job.id)
    logger.debug("added job %s for task %s", job.id, job.task_identifier)
    return job


def add_job_to_route(
    settings: Settings, route: str, identifier: str, payload: Any, spec: TaskSpec | None,
    options: TaskOptions,
) -> Verb[int]:  # fmt: skip
    """Add one job on the node that holds the route."""
    check_identifier(identifier)
    spec = with_options(spec or _DEFAULT, options)
    with sending(settings.trace, identifier) as sent:
        values = {"route": route, **_one(settings, identifier, payload, spec)}
        ((job_id,),) = yield statement("add_job_to_route", settings.schema), values
        sent(job_id)
    logger.debug("added job %s for task %s on the node of %s", job_id, identifier, route)
    return int(job_id)


class _New(NamedTuple):
    """A job that is to be added, and its place among all of them."""

    place: int
    identifier: str
    payload: Any
    spec: TaskSpec


def _new(place: int, item: object, common: TaskSpec) -> _New:
    if isinstance(item, JobSpec):
        return _New(place, item.identifier, item.payload, item)
    if isinstance(item, tuple) and len(item) == 2:
        try:
            check_identifier(item[0])
        except errors.InvalidIdentifier as error:
            raise errors.InvalidIdentifier(f"job {place}: {error}") from error
        return _New(place, item[0], item[1], common)
    raise errors.InvalidArgument(
        f"job {place}: {item!r} is not a job spec: pass JobSpec(identifier, payload, ...) or a"
        " tuple"
        " (identifier, payload)"
    )


def _payload_of(new: _New, settings: Settings) -> str:
    try:
        return to_json(new.payload, settings.dumps, trace=settings.trace) or "{}"
    except errors.InvalidPayload as error:
        raise errors.InvalidPayload(f"job {new.place}: {error}") from error


def _are_alike(chunk: list[_New]) -> bool:
    """Whether the jobs differ in their payloads only, and no key decides what is done with them."""
    first = chunk[0]
    spec = first.spec
    if spec.job_key is not None or spec.job_key_mode is not None:
        return False
    like = options_of(spec)
    return all(
        new.identifier == first.identifier and (new.spec is spec or options_of(new.spec) == like)
        for new in chunk
    )


def _add_alike(chunk: list[_New], settings: Settings) -> Verb[list[Job]]:
    first = chunk[0]
    text = None if settings.dumps or settings.trace else to_json_array([n.payload for n in chunk])
    if text is None:  # one by one, also to say which one is wrong
        text = f"[{','.join([_payload_of(new, settings) for new in chunk])}]"
    values = {"identifier": first.identifier, "payloads": text, **_values_of(first.spec)}
    ((ids, _, *rest),) = yield statement("add_jobs_alike", settings.schema), values
    name, queue = first.identifier, first.spec.queue_name
    flags = frozenset(first.spec.flags or ())
    # What is stored is what was sent, to the letter: it need not come back.
    return [
        Job(id_, name, queue, payload, flags, *rest)
        for id_, payload in zip(ids, json.loads(text), strict=True)
    ]


_encode_options = json.JSONEncoder(separators=(",", ":")).encode


def _document(new: _New, settings: Settings) -> str:
    """Return what stands for a job in the JSON document of a chunk."""
    spec = new.spec
    parts: dict[str, Any] = {"identifier": new.identifier}
    for name in ("queue_name", "max_attempts", "job_key", "job_key_mode", "priority", "flags"):
        value = getattr(spec, name)
        if value is not None:
            parts[name] = value
    moment, delay = when(spec.run_at)
    if moment is not None:
        parts["run_at"] = moment.isoformat()
    if delay is not None:
        parts["delay"] = delay
    return f'{_encode_options(parts)[:-1]},"payload":{_payload_of(new, settings)}}}'


def _check_items(items: object) -> None:
    if isinstance(items, str | bytes | dict | JobSpec) or not isinstance(items, Iterable):
        raise errors.InvalidArgument(
            f"{items!r} is not a list of jobs: pass an iterable of JobSpec"
        )


def add_jobs_to_route(
    settings: Settings, route: str, items: Iterable[JobSpec | tuple[str, Any]],
    spec: TaskSpec | None, options: TaskOptions,
) -> Verb[list[int]]:  # fmt: skip
    """Add many jobs on the node that holds the route, in one call, which Citus carries there."""
    _check_items(items)
    common = with_options(spec or _DEFAULT, options)
    new = [_new(place, item, common) for place, item in enumerate(items)]
    named = new[0].identifier if len({one.identifier for one in new}) == 1 else None
    with sending(settings.trace, named, len(new)) as sent:
        specs = f"[{','.join([_document(one, settings) for one in new])}]"
        values = {"route": route, "specs": specs}
        ((ids,),) = yield statement("add_jobs_to_route", settings.schema), values
        sent(*ids)
    logger.debug("added %s jobs on the node of %s", len(ids), route)
    return list(ids)


def add_jobs(
    settings: Settings,
    items: Iterable[JobSpec | tuple[str, Any]],
    spec: TaskSpec | None,
    options: TaskOptions,
    chunk_size: int,
) -> Verb[list[Job]]:
    """Add many jobs, one round trip for each chunk."""
    _check_items(items)
    if not isinstance(chunk_size, int) or chunk_size < 1:
        raise errors.InvalidArgument(f"chunk_size is {chunk_size!r}: pass a number from 1")
    common = with_options(spec or _DEFAULT, options)
    jobs: list[Job] = []
    left = enumerate(items)
    while chunk := [_new(place, item, common) for place, item in islice(left, chunk_size)]:
        task = chunk[0].identifier
        named = task if all(new.identifier == task for new in chunk) else None
        with sending(settings.trace, named, len(chunk)) as sent:
            if _are_alike(chunk):
                added = yield from _add_alike(chunk, settings)
            else:
                specs = f"[{','.join([_document(new, settings) for new in chunk])}]"
                rows = yield statement("add_jobs", settings.schema), {"specs": specs}
                added = [
                    _named_job(row, (new.identifier, new.spec.queue_name))
                    for new, row in zip(chunk, rows, strict=True)
                ]
            sent(*(job.id for job in added))
        jobs += added
    logger.debug("added %s jobs", len(jobs))
    return jobs
