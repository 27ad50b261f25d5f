"""gw doctor: check the queue and its server for problems."""
