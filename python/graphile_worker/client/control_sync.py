"""Generated from control_aio.py by `make sql`: edit that.

The part of WorkerUtils that pauses, limits and cancels.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TypeVar

from graphile_worker.client import control, verbs
from graphile_worker.client.drivers import SyncConn
from graphile_worker.job import Limit, Pause

__all__ = ["ControlUtils"]

T = TypeVar("T")


class ControlUtils:
    """The verbs of WorkerUtils that control what runs; they need the level admin."""

    _settings: verbs.Settings

    def _run(self, verb: verbs.Verb[T], conn: SyncConn | None) -> T:
        raise NotImplementedError

    def pause_queue(
        self,
        name: str,
        *,
        until: datetime | timedelta | None = None,
        reason: str | None = None,
        conn: SyncConn | None = None,
    ) -> None:
        """Pause a queue until a time (or for a timedelta), or until it is resumed.

        A name that ends in an asterisk stands for all queues that begin so, also for later ones.
        Jobs that run go on. Pausing again replaces the time and the reason.

        >>> utils.pause_queue("tenant-42:*", until=timedelta(hours=1), reason="migration")
        """
        self._run(control.pause(self._settings, "queue", name, until, reason), conn)

    def resume_queue(self, name: str, *, conn: SyncConn | None = None) -> bool:
        """Resume a queue; return whether it was paused by this very name.

        >>> utils.resume_queue("tenant-42:*")
        """
        return self._run(control.resume(self._settings, "queue", name), conn)

    def pause_task(
        self,
        name: str,
        *,
        until: datetime | timedelta | None = None,
        reason: str | None = None,
        conn: SyncConn | None = None,
    ) -> None:
        """Pause a task, in all queues and in none; see ``pause_queue``.

        >>> utils.pause_task("send_email", reason="the server is down")
        """
        self._run(control.pause(self._settings, "task", name, until, reason), conn)

    def resume_task(self, name: str, *, conn: SyncConn | None = None) -> bool:
        """Resume a task; return whether it was paused by this very name.

        >>> utils.resume_task("send_email")
        """
        return self._run(control.resume(self._settings, "task", name), conn)

    def pause_all(
        self,
        *,
        until: datetime | timedelta | None = None,
        reason: str | None = None,
        conn: SyncConn | None = None,
    ) -> None:
        """Pause everything; see ``pause_queue``.

        >>> utils.pause_all(until=timedelta(minutes=10), reason="maintenance")
        """
        self._run(control.pause(self._settings, "all", None, until, reason), conn)

    def resume_all(self, *, conn: SyncConn | None = None) -> bool:
        """Resume what ``pause_all`` paused; return whether it was paused.

        Queues and tasks that were paused by name stay so.

        >>> utils.resume_all()
        """
        return self._run(control.resume(self._settings, "all", None), conn)

    def pauses(self, *, conn: SyncConn | None = None) -> list[Pause]:
        """Return what is paused now. Needs the level observe.

        >>> [pause.name for pause in utils.pauses()]
        """
        return self._run(control.pauses(self._settings), conn)

    def set_limit(
        self,
        scope: control.Scope,
        name: str,
        *,
        max_running: int | None = None,
        rate: int | None = None,
        per: timedelta | None = None,
        burst: int | None = None,
        conn: SyncConn | None = None,
    ) -> None:
        """Limit how many jobs of a task or queue run at once, and how many start in a time.

        ``max_running``: 1 to 100,000 at once, in the whole fleet; a queue with more than one runs
        that many side by side. ``rate`` starts in each ``per``; ``burst`` of them may come together
        after a pause (what falls due in a twentieth of a second, if None). A name that ends in an
        asterisk sets the limit of each that begins so, on its own; the longest name decides.

        Raise InvalidControl for numbers out of range, and psycopg's LockNotAvailable where other
        transactions claim or add jobs without a gap for some seconds: try again.

        >>> utils.set_limit("queue", "tenant-*", max_running=3)
        >>> utils.set_limit("task", "call_api", rate=100, per=timedelta(minutes=1))
        """
        verb = control.set_limit(self._settings, scope, name, max_running, rate, per, burst)
        self._run(verb, conn)

    def remove_limit(
        self, scope: control.Scope, name: str, *, conn: SyncConn | None = None
    ) -> bool:
        """Remove the limit that was set for this very name; return whether there was one.

        >>> utils.remove_limit("queue", "tenant-*")
        """
        return self._run(control.remove_limit(self._settings, scope, name), conn)

    def limits(self, *, conn: SyncConn | None = None) -> list[Limit]:
        """Return the limits, and how many jobs of each run now. Needs the level observe.

        >>> [(limit.name, limit.running) for limit in utils.limits()]
        """
        return self._run(control.limits(self._settings), conn)

    def cancel_jobs(
        self, job_ids: Iterable[int], reason: str | None = None, *, conn: SyncConn | None = None
    ) -> dict[int, str]:
        """Cancel jobs, and return what became of each, by id.

        ``cancelled``: it was waiting, and is deleted. ``cancelling``: it runs, and its worker is
        told to stop it; it is not retried. ``not_cancellable``: a worker runs it that cannot be
        told, as Node's. ``failed``: it had failed for good. ``missing``: there is no such job.

        >>> utils.cancel_jobs([4, 5], "the customer is gone")
        """
        return self._run(control.cancel_jobs(self._settings, job_ids, reason), conn)
