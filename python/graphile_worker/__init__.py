"""A job queue that a PostgreSQL database installs like any other extension."""

__version__ = "1.0.0"
__all__ = ["__version__"]
