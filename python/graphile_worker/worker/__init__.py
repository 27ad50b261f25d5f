"""Run jobs: the Python worker."""
