"""The view jobs as a model, which the admin shows; nothing is written through it."""

from __future__ import annotations

from django.db import models


class Job(models.Model):  # type: ignore[misc]
    """A job that waits, runs or has failed."""

    id = models.BigIntegerField(primary_key=True)
    task_identifier = models.TextField("task")
    queue_name = models.TextField("queue", null=True)
    priority = models.SmallIntegerField()
    run_at = models.DateTimeField()
    attempts = models.SmallIntegerField()
    max_attempts = models.SmallIntegerField()
    last_error = models.TextField(null=True)
    created_at = models.DateTimeField()
    key = models.TextField(null=True)
    locked_at = models.DateTimeField(null=True)
    locked_by = models.TextField("worker", null=True)

    class Meta:
        """Where the view is."""

        managed = False
        db_table = 'graphile_worker"."jobs'

    def __str__(self) -> str:
        return f"{self.task_identifier} {self.id}"
