"""Functions that an application had RQ run."""

from __future__ import annotations

import os
from pathlib import Path


def send_email(to: str, subject: str = "Hello") -> None:
    with Path(os.environ["NOTES"]).open("a") as notes:
        print("sent", to, subject, file=notes)


def unsent() -> None: ...
