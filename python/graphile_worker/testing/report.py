"""What became of the jobs that a test ran."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graphile_worker.errors import GraphileWorkerError

if TYPE_CHECKING:
    from graphile_worker.worker.context import ClaimedJob
    from graphile_worker.worker.events import Event


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that raised."""

    job: ClaimedJob
    error: BaseException
    #: Whether no attempts are left.
    for_good: bool


@dataclass(slots=True)
class RunReport:
    """How the jobs ended, in the order in which they did."""

    succeeded: list[ClaimedJob] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    snoozed: list[ClaimedJob] = field(default_factory=list)

    def __len__(self) -> int:
        """Return how many runs there were."""
        return len(self.succeeded) + len(self.failed) + len(self.snoozed)

    def _note(self, event: Event) -> None:
        job = event.job
        if job is None:
            return
        if event.name == "job:success":
            self.succeeded.append(job)
        elif event.name == "job:snoozed":
            self.snoozed.append(job)
        else:
            error = event.error or GraphileWorkerError("the worker did not say what went wrong")
            error.add_note(f"in job {job.id} of {job.task_identifier!r}, attempt {job.attempts}")
            self.failed.append(Failure(job, error, event.name == "job:failed"))
