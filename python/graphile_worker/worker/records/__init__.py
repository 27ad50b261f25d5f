"""What is recorded of jobs beside how they end: results, progress, and the care of the history."""
