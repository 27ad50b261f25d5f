"""gw top."""
