"""The check of gw doctor that reads the server's settings."""

from __future__ import annotations

from dataclasses import dataclass

from graphile_worker.gw.doctor.findings import Examination, Finding, Severity

# As they are for sessions that set nothing themselves.
_SETTINGS = (
    "select name, reset_val as value from pg_catalog.pg_settings where name = any (%(names)s)"
)
#: How a setting says that it is off, or no limit.
_OFF = ("off", "false", "no", "0", "-1")


@dataclass(frozen=True)
class _Rule:
    """Settings of which one should be on, and the finding where all are off."""

    names: tuple[str, ...]
    severity: Severity
    why: str
    fix: str
    #: Whether they are limits, and off means that there is none.
    is_limit: bool = False


_RULES = (
    _Rule(
        ("fsync",), "problem",
        "a crash of the machine may destroy the database, and with it all jobs",
        "`alter system set fsync = on; select pg_reload_conf();`",
    ),
    _Rule(
        ("full_page_writes",), "problem",
        "a crash of the machine may leave half-written pages, and with them broken jobs",
        "`alter system set full_page_writes = on; select pg_reload_conf();`",
    ),
    _Rule(
        ("track_counts",), "problem",
        "autovacuum counts nothing and so does nothing: the queue becomes slower and slower",
        "`alter system set track_counts = on; select pg_reload_conf();`",
    ),
    _Rule(
        ("synchronous_commit",), "warning",
        "a crash of the server loses the jobs that were added in the last half second, although"
        " their transactions were told that they had committed",
        "leave it on, and set it to off only in transactions whose jobs may be lost",
    ),
    _Rule(
        ("idle_in_transaction_session_timeout", "transaction_timeout"), "advice",
        "a transaction that a program forgot to end keeps dead rows from being removed, and the"
        " queue becomes slower until somebody ends it",
        "`alter database {database} set idle_in_transaction_session_timeout = '10min'`",
        is_limit=True,
    ),
)  # fmt: skip


def settings(exam: Examination) -> list[Finding]:
    """Find settings of the server that lose jobs, or let the queue become slow."""
    names = [name for rule in _RULES for name in rule.names]
    rows = exam.queue.rows(_SETTINGS, names=names)
    values = {row["name"]: str(row["value"]) for row in rows}
    database = exam.queue.row("select pg_catalog.quote_ident(current_database()) as it")["it"]
    found = []
    for rule in _RULES:
        known = [name for name in rule.names if name in values]
        if all(values[name].lower() in _OFF for name in known):
            state = ("is" if len(known) == 1 else "are") + (" not set" if rule.is_limit else " off")
            what, fix = f"{' and '.join(known)} {state}", rule.fix.format(database=database)
            found.append(Finding("settings", rule.severity, what, rule.why, fix))
    return found
