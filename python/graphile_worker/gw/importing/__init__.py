"""gw import: the waiting jobs of other queues."""
