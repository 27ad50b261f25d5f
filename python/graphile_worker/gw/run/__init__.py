"""gw run: the worker as a program."""
