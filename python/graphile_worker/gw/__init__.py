"""gw: the queue from the command line."""
