"""The jobs in Django's admin: read only, but for retrying and cancelling them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import admin, messages
from django.db.models import F, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from graphile_worker.client import control, drivers, verbs
from graphile_worker.django.models import Job
from graphile_worker.gw.jobs import state_of

STATES = {
    "ready": Q(locked_at=None, attempts__lt=F("max_attempts")),
    "scheduled": Q(locked_at=None, attempts__lt=F("max_attempts")),
    "running": Q(locked_at__isnull=False),
    "failed": Q(locked_at=None, attempts__gte=F("max_attempts")),
}


class _State(admin.SimpleListFilter):  # type: ignore[misc]
    title = parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the states."""
        return [(name, name) for name in STATES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the jobs in the state."""
        value = self.value()
        if value not in STATES:
            return queryset
        found = queryset.filter(STATES[value])
        if value == "ready":
            return found.filter(run_at__lte=timezone.now())
        return found.filter(run_at__gt=timezone.now()) if value == "scheduled" else found


@admin.register(Job)
class JobAdmin(admin.ModelAdmin):  # type: ignore[misc]
    """Lists the jobs, the latest first; changes go through the functions of the level admin."""

    list_display = ("id", "task_identifier", "state", "attempts", "run_at", "error")
    list_filter = (_State,)
    search_fields = ("task_identifier", "last_error", "key")
    ordering = ("-id",)
    actions = ("retry", "cancel")
    show_full_result_count = False

    @admin.display
    def state(self, job: Any) -> str:
        """Return the state of a job."""
        return state_of(job, timezone.now())

    @admin.display
    def error(self, job: Any) -> str:
        """Return the first line of the last error."""
        return str(job.last_error or "").partition("\n")[0][:100]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: jobs are added by enqueue."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: a job's row is not to be written."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: cancel jobs instead."""
        return False

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Return whether a user may act: those with the right to change jobs."""
        allowed: bool = request.user.has_perm("graphile_worker.change_job")
        return allowed

    @admin.action(description="Retry now, with all attempts", permissions=["retry"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Let jobs run now."""
        ids = list(queryset.values_list("id", flat=True))
        verb = verbs.reschedule_jobs(verbs.Settings(), ids, timedelta(), None, 0, None)
        done = drivers.run(queryset.db, verb)
        self._said(request, len(done), len(ids), "will run now")

    @admin.action(description="Cancel", permissions=["retry"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Cancel jobs; the workers of running ones are told."""
        ids = list(queryset.values_list("id", flat=True))
        found = drivers.run(queryset.db, control.cancel_jobs(verbs.Settings(), ids, None))
        done = [outcome for outcome in found.values() if outcome in ("cancelled", "cancelling")]
        self._said(request, len(done), len(ids), "cancelled")

    def _said(self, request: HttpRequest, done: int, wanted: int, what: str) -> None:
        level = messages.SUCCESS if done == wanted else messages.WARNING
        left = f"; {wanted - done} were left alone" if done < wanted else ""
        self.message_user(request, f"{done} of {wanted} jobs: {what}{left}.", level)
