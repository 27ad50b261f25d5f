"""Run one job: call its task and return the outcome."""

from __future__ import annotations

import asyncio
import inspect
import json
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

from graphile_worker.client.tasks import RunOptions
from graphile_worker.errors import GraphileWorkerError, TaskCrashed
from graphile_worker.log import logger, represented, shown
from graphile_worker.retry import Discard, PauseQueue, PauseTask, RetryAfter, Snooze, TaskOutcome
from graphile_worker.worker.context import ClaimedJob, Context, Middleware
from graphile_worker.worker.executors.call import RunnableTask

#: Characters of an error's text that are kept.
LONGEST_ERROR = 10_000


class TaskTimeoutError(GraphileWorkerError, TimeoutError):
    """The task took longer than its time-out."""


class BatchFailedError(GraphileWorkerError):
    """Some elements of a batch job failed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a job whose task has ended."""

    kind: Literal["success", "failure", "snooze"]
    error: BaseException | None = None
    #: When to retry; None: as the database decides.
    when: datetime | timedelta | None = None
    #: No attempt is left.
    final: bool = False
    #: What to pause until then: the job's queue or task, and why.
    pause: Literal["queue", "task"] | None = None
    reason: str | None = None
    #: The elements of a batch that are left.
    payload: list[Any] | None = None
    #: What the task returned.
    result: Any = None


SUCCESS = Outcome("success")
_LISTS = (list, tuple)


async def execute(
    runnable: RunnableTask, context: Context, middleware: tuple[Middleware, ...]
) -> Outcome:
    """Call the task and return the outcome; raise only a cancellation."""
    job, options = context.job, runnable.options
    try:
        if options.timeout is not None:
            return await _in_time(_work(runnable, context, middleware), options.timeout, context)
        # As _work does, with a coroutine less: most jobs are called so.
        result = await _call(runnable, context, middleware)
        if result is None:
            return SUCCESS
        return await _returned(job, result, options)
    except Snooze as snooze:
        if not _is_moment(snooze.when):
            return failure(TaskCrashed(f"snoozed until {snooze.when!r}"), job, options)
        return Outcome("snooze", snooze, snooze.when)
    except (PauseQueue, PauseTask) as pause:
        return _paused(pause, job, options)
    except SystemExit as error:  # which would end the worker
        crashed = TaskCrashed(f"the task raised {represented(error)}")
        crashed.__cause__ = error
        return failure(crashed, job, options)
    except Exception as error:
        return failure(error, job, options)


def _paused(pause: PauseQueue | PauseTask, job: ClaimedJob, options: RunOptions) -> Outcome:
    """Return the outcome of a job that pauses what it belongs to."""
    if not _is_moment(pause.when):
        return failure(TaskCrashed(f"paused until {pause.when!r}"), job, options)
    if pause.scope == "queue" and job.queue_name is None:
        text = f"job {job.id} has no queue to pause: add it with a queue_name, or raise PauseTask"
        return failure(TaskCrashed(text), job, options)
    reason = None if pause.reason is None else error_text(pause)
    return Outcome("snooze", pause, pause.when, pause=pause.scope, reason=reason)


def _call(
    runnable: RunnableTask, context: Context, middleware: tuple[Middleware, ...]
) -> Awaitable[Any]:
    payload = context.job.payload
    if not middleware:
        return runnable.call(payload, context)
    call: Callable[[], Awaitable[Any]] = partial(runnable.call, payload, context)
    for outer in reversed(middleware):
        call = partial(outer, context, call)
    return call()


async def _work(
    runnable: RunnableTask, context: Context, middleware: tuple[Middleware, ...]
) -> Outcome:
    job, options = context.job, runnable.options
    return await _returned(job, await _call(runnable, context, middleware), options)


async def _returned(job: ClaimedJob, result: Any, options: RunOptions) -> Outcome:
    if isinstance(result, _LISTS) and isinstance(job.payload, list):
        return await _batch(job, result, options)
    return Outcome("success", result=result)


async def _in_time(work: Awaitable[Outcome], seconds: float, context: Context) -> Outcome:
    """Await; when the time is over, tell the task so, cancel it, and raise TaskTimeoutError."""
    text = f"task {context.job.task_identifier} was stopped after {seconds:g} seconds"
    loop, timer = asyncio.get_running_loop(), asyncio.timeout(None)

    def expire() -> None:
        context.abort.set(text)
        timer.reschedule(loop.time())

    alarm = loop.call_later(seconds, expire)
    try:
        async with timer:
            outcome = await work
            if context.abort.reason == text:
                logger.warning(
                    "job %s, task %s, went on after its time-out of %g seconds although it was"
                    " cancelled, and returned: it counts as done",
                    context.job.id, context.job.task_identifier, seconds,
                )  # fmt: skip
            return outcome
    except TimeoutError as error:
        if not timer.expired():
            raise
        raise TaskTimeoutError(text) from error
    finally:
        alarm.cancel()


def failure(error: BaseException, job: ClaimedJob, options: RunOptions) -> Outcome:
    """Return the outcome of a job whose task raised; never raise, whatever the error is like."""
    final = job.attempts >= job.max_attempts
    when: datetime | timedelta | None = None
    try:
        final = final or isinstance(error, Discard)
        if isinstance(error, RetryAfter):
            when = error.when
        elif options.retry is not None:
            when = timedelta(seconds=options.retry.delay(max(job.attempts, 1)))
        if when is not None and not _is_moment(when):
            when = None
    except BaseException as broken:  # a class or a policy of the user's
        logger.warning("job %s: when to try again cannot be told: %s", job.id, shown(broken))
    return Outcome("failure", error, when, final)


def _is_moment(when: object) -> bool:
    return isinstance(when, timedelta) or (
        isinstance(when, datetime) and when.utcoffset() is not None
    )


async def _batch(
    job: ClaimedJob, result: list[Any] | tuple[Any, ...], options: RunOptions
) -> Outcome:
    """Return the outcome of a batch: only the elements that failed are kept."""
    payload = job.payload
    if len(result) != len(payload):
        for element in result:
            if inspect.iscoroutine(element):
                element.close()
        logger.warning(
            "task %s returned %d results for the %d elements of job %s: the job is completed",
            job.task_identifier, len(result), len(payload), job.id,
        )  # fmt: skip
        return SUCCESS
    settled = await asyncio.gather(*map(_settle, result), return_exceptions=True)
    failed = [n for n, element in enumerate(settled) if isinstance(element, BaseException)]
    if not failed:
        return Outcome("success", result=settled)
    lines = [f"{n}: {shown(settled[n])}" for n in failed]
    error = BatchFailedError(
        f"{len(failed)} of {len(payload)} elements failed\n" + "\n".join(lines),
    )
    outcome = failure(error, job, options)
    left = [payload[n] for n in failed]
    return Outcome("failure", error, outcome.when, outcome.final, payload=left)


async def _settle(element: Any) -> Any:
    if isinstance(element, Awaitable):
        try:
            return await element
        except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:  # which end the worker
            raise TaskCrashed(f"it raised {represented(error)}") from error
    if isinstance(element, Exception):
        raise element
    return element


def error_text(error: BaseException) -> str:
    """Return the text of an error: its message, and the place of an unexpected one.

    NUL and halves of surrogate pairs, which PostgreSQL cannot hold, are written as escapes. Never
    raise: an exception's own methods may.
    """
    try:
        text = _error_text(error)
    except BaseException:
        text = shown(error)
    text = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    if len(text) > LONGEST_ERROR:
        cut = len(text) - LONGEST_ERROR
        text = f"{text[:LONGEST_ERROR]}\n... {cut} more characters"
    return text or type.__repr__(type(error))


def _error_text(error: BaseException) -> str:
    if isinstance(error, TaskCrashed) and error.__cause__ is not None:
        error = error.__cause__  # the task's own, such as SystemExit
    if isinstance(error, GraphileWorkerError | TaskOutcome):
        return str(error) or type(error).__name__
    try:
        frames = "".join(traceback.format_tb(error.__traceback__))
    except Exception:  # a source that cannot be read
        frames = ""
    notes: list[str] = []
    try:
        notes = [str(note) for note in getattr(error, "__notes__", ())]
    except BaseException:
        notes = ["(its notes cannot be printed)"]
    return "\n".join([shown(error), frames.rstrip(), *notes]).rstrip()


def failure_entry(job_id: int, outcome: Outcome, text: str, seconds: float) -> dict[str, Any]:
    """Return the entry for ``fail_jobs`` without its time; never raise."""
    entry: dict[str, Any] = {"id": job_id, "error": text, "seconds": seconds}
    if outcome.final:
        entry["final"] = True
    if issubclass(type(outcome.error), Discard):  # isinstance would ask the error
        entry["discarded"] = True
    if outcome.payload is not None:
        try:
            json.dumps(outcome.payload, allow_nan=False)
            entry["payload"] = outcome.payload
        except Exception:  # a number that JSON text can hold and Python cannot
            logger.warning("job %s is tried again with its whole payload", job_id)
    return entry
