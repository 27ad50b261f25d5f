"""gw: the life of the queue from the command line; each sub-command is a configure and a run."""
