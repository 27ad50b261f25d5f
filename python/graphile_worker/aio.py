"""Add jobs and look after the queue, with connections that are awaited.

The names, arguments and results are those of ``graphile_worker`` itself.
"""

from graphile_worker.client.aio import Tasks, WorkerUtils, add_job, add_job_adhoc, add_jobs

__all__ = ["Tasks", "WorkerUtils", "add_job", "add_job_adhoc", "add_jobs"]
