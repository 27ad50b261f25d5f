"""One worker for several databases."""
