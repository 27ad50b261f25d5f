"""Test jobs: fixtures for pytest."""
