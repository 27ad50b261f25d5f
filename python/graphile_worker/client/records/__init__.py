"""Reading and keeping the records of jobs: history, results, dead letters."""
