"""Connection strings as users give them to a command line."""

from __future__ import annotations

import re


def without_driver(dsn: str) -> str:
    """Return a URL as libpq reads it, where it names a driver as SQLAlchemy's do."""
    return re.sub(r"^(postgres(ql)?)\+\w+://", r"\1://", dsn)
