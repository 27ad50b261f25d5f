"""Add jobs and look after the queue: what ``graphile_worker`` and ``graphile_worker.aio`` offer."""
