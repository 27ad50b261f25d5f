"""What the worker asks of the database: connections, statements, notifications, backoff."""
