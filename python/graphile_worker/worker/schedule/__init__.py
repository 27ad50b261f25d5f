"""Recurring jobs: those of crontabs, and those that the database keeps."""
