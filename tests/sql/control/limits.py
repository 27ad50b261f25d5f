"""Set limits and end jobs through SQL."""

from __future__ import annotations

from typing import Any

from support.pg import Database


def limit(db: Database, scope: str, name: str, **options: Any) -> None:
    names = "".join(f", {each} => %s" for each in options)
    db.rows(f"select graphile_worker.set_limit(%s, %s{names})", scope, name, *options.values())


def finish(db: Database, *jobs: int, worker: str = "w") -> list[bool]:
    return db.column("select done from graphile_worker.finish_jobs(%s, %s)", worker, list(jobs))


def more(db: Database) -> str:
    return str(db.value("select current_setting('graphile_worker.more', true)"))
