"""The systems on the stage, and how their jobs are counted."""

from __future__ import annotations

#: The query that counts all jobs which have not ended, waiting or not.
SYSTEMS = {
    "graphile_worker": "select count(*) from graphile_worker.jobs",
    "awa": "select (select count(*) from awa.ready_entries)"
    " - (select coalesce(sum(completed_count), 0) from awa.receipt_completion_batches)"
    " - (select count(*) from awa.done_entries)",
    "procrastinate": "select count(*) from procrastinate_jobs",
}
