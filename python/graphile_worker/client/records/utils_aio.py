"""Records of jobs, with connections that are awaited.

The synchronous one, in utils_sync.py, is generated from this module.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Literal, TypeVar

from graphile_worker.client.drivers import AsyncConn
from graphile_worker.client.records import verbs, waiting
from graphile_worker.client.records.model import EndState, History, JobRecord, PayloadSchema
from graphile_worker.client.verbs import Settings, Verb
from graphile_worker.job import Job

__all__ = ["JobHandle", "RecordUtils"]

T = TypeVar("T")


class JobHandle:
    """A job to be followed, from ``WorkerUtils.handle``.

    >>> handle = utils.handle(await utils.add_job("sum", {"numbers": [1, 2]}))
    >>> await handle.result(timeout=10)
    """

    def __init__(self, utils: RecordUtils, job_id: int) -> None:
        self._utils = utils
        self.id = job_id

    def __repr__(self) -> str:
        return f"<handle of job {self.id}>"

    async def result(self, timeout: float | None = None) -> Any:
        """Wait until the job has ended, and return what its task returned.

        ``timeout`` is in seconds; None waits for good. A job that fails is waited for until it
        fails for good. It takes a commit: wait after the transaction that added the job has ended.

        Raise JobFailed with the error and traceback of the last attempt, JobCancelled,
        ResultTimeout, and ResultUnavailable where the result is not kept: by the task's setting
        of ``keep_history``, for its size, because it is no JSON, or since a Node worker
        completed the job.

        >>> await utils.handle(7).result(timeout=10)
        """
        source, schema = self._utils._source, self._utils._settings.schema
        return await waiting.awaited(source, schema, self.id, timeout)

    async def record(self) -> JobRecord | None:
        """Return all that is known of the job now; see ``find_job``. Needs the level admin.

        >>> (await utils.handle(7).record()).progress
        """
        return await self._utils.find_job(self.id)


class RecordUtils:
    """The verbs of WorkerUtils about records of jobs."""

    _source: Any
    _settings: Settings

    async def _run(self, verb: Verb[T], conn: AsyncConn | None) -> T:
        raise NotImplementedError

    def handle(self, job: Job | int) -> JobHandle:
        """Return a handle of a job, or of its id, to wait for its result. Nothing connects yet.

        All handles of a process wait on one connection. Needs the level enqueue.

        >>> utils.handle(7)
        """
        return JobHandle(self, job if isinstance(job, int) else job.id)

    async def find_job(self, job_id: int, *, conn: AsyncConn | None = None) -> JobRecord | None:
        """Return what is known of a job, waiting, running, failed or ended; None: nothing is.

        >>> (await utils.find_job(7)).state
        """
        return await self._run(verbs.find_job(self._settings, job_id), conn)

    async def job_history(
        self,
        *,
        tasks: Iterable[str] | None = None,
        states: Iterable[EndState] | None = None,
        before: JobRecord | None = None,
        limit: int = 100,
        conn: AsyncConn | None = None,
    ) -> list[JobRecord]:
        """Return the jobs that ended last, at most ``limit`` (1 to 10000), without payloads.

        Only those whose history is kept. Each filter that is given must hold. Pass the last record
        of a page as ``before`` to get the next one. Needs the level observe.

        >>> await utils.job_history(tasks=["send_email"], states=["failed"])
        """
        verb = verbs.job_history(self._settings, tasks, states, before, limit)
        return await self._run(verb, conn)

    async def keep_history(
        self,
        task: str | None = None,
        *,
        keep: timedelta = timedelta(days=30),
        results: bool = True,
        payloads: bool = False,
        max_bytes: int = 65536,
        conn: AsyncConn | None = None,
    ) -> None:
        """Record the jobs of a task when they end, or (None) of all without their own setting.

        Records are kept for ``keep``: the attempts and their errors; the result, if ``results``;
        the payload, if ``payloads``. A result of more than ``max_bytes`` is left out, an error
        cut. Whoever may add jobs may read their results. Needs the level admin.

        Raise InvalidHistory for a value out of range.

        >>> await utils.keep_history("resize", keep=timedelta(days=7))
        """
        verb = verbs.keep_history(self._settings, task, keep, results, payloads, max_bytes)
        await self._run(verb, conn)

    async def stop_history(self, task: str | None = None, *, conn: AsyncConn | None = None) -> bool:
        """Record no more jobs of a task, or none at all; return whether any were recorded.

        What is recorded stays for its time. Needs the level admin.

        >>> await utils.stop_history("noisy")
        """
        return await self._run(verbs.stop_history(self._settings, task), conn)

    async def histories(self, *, conn: AsyncConn | None = None) -> list[History]:
        """Return of which tasks history is kept. Needs the level observe.

        >>> [history.task for history in await utils.histories() if history.is_kept]
        """
        return await self._run(verbs.histories(self._settings), conn)

    async def keep_failed_jobs(
        self, keep: timedelta | None, *, conn: AsyncConn | None = None
    ) -> timedelta | None:
        """Let workers delete jobs that failed for good after this time; None: never.

        Return what was set before. Needs the level admin.

        >>> await utils.keep_failed_jobs(timedelta(days=90))
        """
        return await self._run(verbs.keep_failed_jobs(self._settings, keep), conn)

    async def on_dead_letter(
        self,
        task: str | None,
        failed_task: str | None = None,
        *,
        conn: AsyncConn | None = None,
    ) -> str | None:
        """Let a job of ``task`` be added when one of ``failed_task`` (None: any) fails for good.

        Its payload describes the dead job: job_id, task, payload, error and more. None ends it.
        Return the task that was set before. Needs the level admin.

        >>> await utils.on_dead_letter("notify_ops")
        """
        return await self._run(verbs.on_dead_letter(self._settings, task, failed_task), conn)

    async def set_payload_schema(
        self,
        task: str,
        schema: dict[str, Any] | bool | None,
        *,
        on_invalid: Literal["reject", "warn"] = "reject",
        conn: AsyncConn | None = None,
    ) -> Any:
        """Let ``add_job`` refuse (or warn of) payloads that do not fit a JSON Schema 2020-12.

        From every language; jobs in the queue are left alone. None ends it. Return what was set
        before. ``gw tasks publish`` derives schemas from the tasks' annotations. Needs the level
        admin. Raise InvalidSchema for a keyword that is not checked, and for what is no schema.

        >>> await utils.set_payload_schema("send_email", {"required": ["to"]})
        """
        verb = verbs.set_payload_schema(self._settings, task, schema, on_invalid)
        return await self._run(verb, conn)

    async def payload_schemas(self, *, conn: AsyncConn | None = None) -> list[PayloadSchema]:
        """Return the schemas that payloads have to fit. Needs the level observe.

        >>> [each.task for each in await utils.payload_schemas()]
        """
        return await self._run(verbs.payload_schemas(self._settings), conn)

    async def find_unfit_jobs(
        self,
        task: str,
        schema: dict[str, Any] | bool | None = None,
        *,
        after: int | None = None,
        limit: int = 100,
        conn: AsyncConn | None = None,
    ) -> list[tuple[int, str]]:
        """Return the ids of waiting jobs whose payloads do not fit, and why, at most ``limit``.

        ``schema``: None is that of the task. Pass the last id as ``after`` for the next ones.
        Needs the level admin.

        >>> await utils.find_unfit_jobs("send_email", {"required": ["to", "subject"]})
        """
        verb = verbs.find_unfit_jobs(self._settings, task, schema, after, limit)
        return await self._run(verb, conn)

    async def discard_jobs(
        self, job_ids: Iterable[int], reason: str | None = None, *, conn: AsyncConn | None = None
    ) -> list[Job]:
        """Delete jobs that have failed for good, and return them. Others are left out.

        They are recorded as discarded where their history is kept. Needs the level admin.

        >>> await utils.discard_jobs([4, 5], "the customer is gone")
        """
        return await self._run(verbs.discard_jobs(self._settings, job_ids, reason), conn)
