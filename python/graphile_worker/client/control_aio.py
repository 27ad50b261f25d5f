"""Pausing, limiting, cancelling and scheduling, with connections that are awaited.

The synchronous one, in control_sync.py, is generated from this module.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from graphile_worker.client import control, verbs
from graphile_worker.client.drivers import AsyncConn
from graphile_worker.job import Limit, Pause, Schedule, TaskSpec

__all__ = ["ControlUtils"]

T = TypeVar("T")


class ControlUtils:
    """The verbs of WorkerUtils that control what runs. They need the level admin."""

    _settings: verbs.Settings

    async def _run(self, verb: verbs.Verb[T], conn: AsyncConn | None) -> T:
        raise NotImplementedError

    async def pause_queue(
        self,
        name: str,
        *,
        until: datetime | timedelta | None = None,
        reason: str | None = None,
        conn: AsyncConn | None = None,
    ) -> None:
        """Pause a queue until a time (or for a timedelta), or until it is resumed.

        A name that ends in an asterisk stands for all queues that begin so, also for later ones.
        Jobs that run go on. Pausing again replaces the time and the reason.

        >>> await utils.pause_queue("tenant-42:*", until=timedelta(hours=1), reason="migration")
        """
        await self._run(control.pause(self._settings, "queue", name, until, reason), conn)

    async def resume_queue(self, name: str, *, conn: AsyncConn | None = None) -> bool:
        """Resume a queue; return whether it was paused by this very name.

        >>> await utils.resume_queue("tenant-42:*")
        """
        return await self._run(control.resume(self._settings, "queue", name), conn)

    async def pause_task(
        self,
        name: str,
        *,
        until: datetime | timedelta | None = None,
        reason: str | None = None,
        conn: AsyncConn | None = None,
    ) -> None:
        """Pause a task, in all queues and in none; see ``pause_queue``.

        >>> await utils.pause_task("send_email", reason="the server is down")
        """
        await self._run(control.pause(self._settings, "task", name, until, reason), conn)

    async def resume_task(self, name: str, *, conn: AsyncConn | None = None) -> bool:
        """Resume a task; return whether it was paused by this very name.

        >>> await utils.resume_task("send_email")
        """
        return await self._run(control.resume(self._settings, "task", name), conn)

    async def pause_all(
        self,
        *,
        until: datetime | timedelta | None = None,
        reason: str | None = None,
        conn: AsyncConn | None = None,
    ) -> None:
        """Pause everything; see ``pause_queue``.

        >>> await utils.pause_all(until=timedelta(minutes=10), reason="maintenance")
        """
        await self._run(control.pause(self._settings, "all", None, until, reason), conn)

    async def resume_all(self, *, conn: AsyncConn | None = None) -> bool:
        """Resume what ``pause_all`` paused; return whether it was paused.

        Queues and tasks that were paused by name stay so.

        >>> await utils.resume_all()
        """
        return await self._run(control.resume(self._settings, "all", None), conn)

    async def pauses(self, *, conn: AsyncConn | None = None) -> list[Pause]:
        """Return what is paused now. Needs the level observe.

        >>> [pause.name for pause in await utils.pauses()]
        """
        return await self._run(control.pauses(self._settings), conn)

    async def set_limit(
        self,
        scope: control.Scope,
        name: str,
        *,
        max_running: int | None = None,
        rate: int | None = None,
        per: timedelta | None = None,
        burst: int | None = None,
        conn: AsyncConn | None = None,
    ) -> None:
        """Limit how many jobs of a task or queue run at once, and how many start in a time.

        ``max_running``: 1 to 100,000 at once, in the whole fleet; a queue with more than one runs
        that many side by side. ``rate`` starts in each ``per``; ``burst`` of them may come together
        after a pause (what falls due in a twentieth of a second, if None). A name that ends in an
        asterisk sets the limit of each that begins so, on its own; the longest name decides.

        Raise InvalidControl for numbers out of range, and Busy where other transactions claim or
        add jobs without a gap for some seconds.

        >>> await utils.set_limit("queue", "tenant-*", max_running=3)
        >>> await utils.set_limit("task", "call_api", rate=100, per=timedelta(minutes=1))
        """
        verb = control.set_limit(self._settings, scope, name, max_running, rate, per, burst)
        await self._run(verb, conn)

    async def remove_limit(
        self, scope: control.Scope, name: str, *, conn: AsyncConn | None = None
    ) -> bool:
        """Remove the limit that was set for this very name; return whether there was one.

        >>> await utils.remove_limit("queue", "tenant-*")
        """
        return await self._run(control.remove_limit(self._settings, scope, name), conn)

    async def limits(self, *, conn: AsyncConn | None = None) -> list[Limit]:
        """Return the limits, and how many jobs of each run now. Needs the level observe.

        >>> [(limit.name, limit.running) for limit in await utils.limits()]
        """
        return await self._run(control.limits(self._settings), conn)

    async def cancel_jobs(
        self, job_ids: Iterable[int], reason: str | None = None, *, conn: AsyncConn | None = None
    ) -> dict[int, str]:
        """Cancel jobs, and return what became of each, by id.

        ``cancelled``: it was waiting, and is deleted. ``cancelling``: it runs, and its worker is
        told to stop it; it is not retried. ``not_cancellable``: a worker runs it that cannot be
        told, as Node's. ``failed``: it had failed for good. ``missing``: there is no such job.

        >>> await utils.cancel_jobs([4, 5], "the customer is gone")
        """
        return await self._run(control.cancel_jobs(self._settings, job_ids, reason), conn)

    async def schedule(
        self,
        name: str,
        task: str,
        cron: str,
        *,
        tz: str = "UTC",
        payload: Any = None,
        queue_name: str | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        job_key: str | None = None,
        flags: Iterable[str] | None = None,
        catch_up: timedelta = timedelta(),
        overlap: control.Overlap = "allow",
        conn: AsyncConn | None = None,
    ) -> datetime | None:
        """Set a schedule in the database; return when it is due next, None: never.

        Every worker adds its jobs, each run once. Setting it again replaces it. ``payload`` is an
        object, to which ``_cron`` is added. Runs that no worker was there for are added later if
        they are not older than ``catch_up``. Where the last run's job has not ended, ``overlap``
        decides: ``allow`` adds another, ``skip`` leaves the run out, ``replace`` cancels the last
        one.

        Raise InvalidCrontab for a wrong expression, time zone or option.

        >>> await utils.schedule("nightly", "report", "30 1 * * MON-FRI", tz="Europe/London")
        """
        spec = TaskSpec(
            queue_name=queue_name, priority=priority, max_attempts=max_attempts,
            job_key=job_key, flags=flags,
        )  # fmt: skip
        verb = control.schedule(
            self._settings, name, task, cron, tz, payload, spec, catch_up, overlap
        )
        return await self._run(verb, conn)

    async def unschedule(self, name: str, *, conn: AsyncConn | None = None) -> bool:
        """End a schedule; its jobs stay. Return whether there was one.

        >>> await utils.unschedule("nightly")
        """
        ended: bool = await self._run(control.of_schedule(self._settings, "unschedule", name), conn)
        return ended

    async def pause_schedule(self, name: str, *, conn: AsyncConn | None = None) -> None:
        """Leave the runs of a schedule out until it is resumed. Raise InvalidCrontab if unknown.

        >>> await utils.pause_schedule("nightly")
        """
        await self._run(control.of_schedule(self._settings, "pause_schedule", name), conn)

    async def resume_schedule(self, name: str, *, conn: AsyncConn | None = None) -> datetime | None:
        """Resume a schedule, and return when it is due next. Raise InvalidCrontab if unknown.

        Runs that it missed are added as far back as its ``catch_up``.

        >>> await utils.resume_schedule("nightly")
        """
        verb = control.of_schedule(self._settings, "resume_schedule", name)
        due: datetime | None = await self._run(verb, conn)
        return due

    async def run_schedule_now(self, name: str, *, conn: AsyncConn | None = None) -> int | None:
        """Add the job of a schedule now, beside its runs, and return its id.

        None: the overlap is ``skip``, and the last one has not ended. Raise InvalidCrontab if there
        is no such schedule.

        >>> await utils.run_schedule_now("nightly")
        """
        verb = control.of_schedule(self._settings, "run_schedule_now", name)
        job_id: int | None = await self._run(verb, conn)
        return job_id

    async def schedules(self, *, conn: AsyncConn | None = None) -> list[Schedule]:
        """Return the schedules of the database. Needs the level observe.

        >>> [schedule.next_runs[0] for schedule in await utils.schedules()]
        """
        return await self._run(control.schedules(self._settings), conn)
