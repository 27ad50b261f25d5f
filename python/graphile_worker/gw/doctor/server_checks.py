"""The checks of gw doctor that read the server's statistics, and the way to it."""

from __future__ import annotations

import threading
from typing import Any

import psycopg

from graphile_worker.gw.doctor.findings import Examination, Finding, SkippedError
from graphile_worker.gw.values import plain, short, span

_TABLES = """
    select stats.relname::text as name, stats.n_live_tup as live, stats.n_dead_tup as dead,
      relations.reltuples::bigint as counted,
      extract(epoch from pg_catalog.now()
        - greatest(stats.last_vacuum, stats.last_autovacuum))::float8 as vacuumed,
      pg_catalog.pg_relation_size(stats.relid) as size,
      pg_catalog.pg_indexes_size(stats.relid) as indexes,
      coalesce((
        select option.option_value::boolean
        from pg_catalog.pg_options_to_table(relations.reloptions) as option
        where option.option_name = 'autovacuum_enabled'
      ), true) as autovacuum
    from pg_catalog.pg_stat_user_tables as stats
    join pg_catalog.pg_class as relations on relations.oid = stats.relid
    where stats.schemaname = %(schema)s
    and stats.relname in ('_private_jobs', '_private_job_queues', '_private_heartbeats')
    order by stats.relname
"""
_TRANSACTIONS = """
    select pid, usename::text as "user", state, pg_catalog.age(backend_xmin) as age,
      extract(epoch from pg_catalog.clock_timestamp() - xact_start)::float8 as seconds, query
    from pg_catalog.pg_stat_activity
    where backend_xmin is not null and pid <> pg_catalog.pg_backend_pid()
    and backend_type = 'client backend'
    order by age desc, xact_start
"""
_PREPARED = """
    select gid, owner::text as "user", pg_catalog.age(transaction) as age,
      extract(epoch from pg_catalog.clock_timestamp() - prepared)::float8 as seconds
    from pg_catalog.pg_prepared_xacts
    where database = pg_catalog.current_database()
    order by prepared
"""
_SLOTS = """
    select slot_name::text as name, active, pg_catalog.age(xmin) as age
    from pg_catalog.pg_replication_slots where xmin is not null order by age desc
"""
_SEQUENCES = """
    select sequencename::text as name, last_value, max_value
    from pg_catalog.pg_sequences
    where schemaname = %(schema)s
    and sequencename in ('tasks_id_seq', 'job_queues_id_seq', 'jobs_id_seq1')
    order by sequencename
"""
_READS_COUNTERS = """
    select pg_catalog.bool_and(
      pg_catalog.has_sequence_privilege(relations.oid, 'select, usage')
    ) as it
    from pg_catalog.pg_class as relations
    join pg_catalog.pg_namespace as schemas on schemas.oid = relations.relnamespace
    where relations.relkind = 'S' and schemas.nspname = %(schema)s
"""
_PID = "select pg_catalog.pg_backend_pid() as pid"


def vacuum(exam: Examination) -> list[Finding]:
    """Find dead rows, tables and indexes that are mostly free room, and vacuuming switched off."""
    found = []
    limits = exam.limits
    if exam.queue.row("select current_setting('autovacuum') as it")["it"] != "on":
        found.append(
            Finding(
                "vacuum", "problem", "autovacuum is off for the whole server",
                "a queue makes a dead row of each job, and reading it becomes slower and slower",
                "`alter system set autovacuum = on; select pg_reload_conf();`",
            )
        )  # fmt: skip
    for row in exam.queue.rows(_TABLES, schema=exam.queue.schema):
        table = f"{exam.queue.schema}.{row['name']}"
        if not row["autovacuum"]:
            found.append(
                Finding(
                    "vacuum", "problem", f"autovacuum is off for the table {table}",
                    "its dead rows stay, and reading it becomes slower and slower",
                    f"`alter table {table} reset (autovacuum_enabled)`",
                )
            )  # fmt: skip
        if row["dead"] > max(limits.dead_rows, row["live"]):
            last = f"{span(row['vacuumed'])} ago" if row["vacuumed"] is not None else "never"
            found.append(
                Finding(
                    "vacuum", "warning",
                    f"the table {table} has {row['dead']} dead rows beside {row['live']} live ones",
                    f"it was last vacuumed: {last}; whoever reads the queue steps over them",
                    f"`vacuum (analyze) {table}`; if that does not help, look for old transactions",
                )
            )  # fmt: skip
        rows = max(row["live"] + row["dead"], row["counted"])  # the first is lost in a crash
        for what, size, most, cure in (  # a row of a table takes two kilobytes at most
            ("table", row["size"], 2500, f"`vacuum full {table}` at a quiet time, or pg_repack"),
            ("indexes", row["indexes"], 1000, f"`reindex table concurrently {table}`"),
        ):
            if size > max(limits.size, rows * most):
                found.append(
                    Finding(
                        "bloat", "warning",
                        f"the {what} of {table} take {size / 2**20:.0f} MB for {rows} rows"
                        if what == "indexes" else
                        f"the table {table} takes {size / 2**20:.0f} MB for {rows} rows",
                        "most of it is free room, left from when there were more; scans read it",
                        cure,
                    )
                )  # fmt: skip
    return found


def old_transactions(exam: Examination) -> list[Finding]:
    """Find what keeps vacuum from removing dead rows: transactions, prepared ones, and slots."""
    limit = exam.limits.transaction
    found = []
    why = "dead rows that are younger than that cannot be removed, and the queue becomes slower"
    for row in exam.queue.rows(_TRANSACTIONS):
        if row["seconds"] is not None and row["seconds"] > limit:
            found.append(
                Finding(
                    "old-transactions", "warning",
                    f"pid {row['pid']} ({plain(row['user'])}, {row['state']}) has been in a"
                    f" transaction for {span(row['seconds'])}: {plain(short(row['query']))}",
                    f"it is {row['age']} transactions old; {why}",
                    f"end it, or `select pg_terminate_backend({row['pid']})`;"
                    " idle_in_transaction_session_timeout prevents idle ones",
                )
            )  # fmt: skip
    for row in exam.queue.rows(_PREPARED):
        if row["seconds"] > limit:
            gid = row["gid"].replace("'", "''")
            found.append(
                Finding(
                    "old-transactions", "warning",
                    f"the prepared transaction {plain(row['gid'])} of {plain(row['user'])} has been"
                    f" waiting for {span(row['seconds'])}",
                    f"it is {row['age']} transactions old; {why}",
                    f"`commit prepared '{plain(gid)}'` or `rollback prepared '{plain(gid)}'`",
                )
            )  # fmt: skip
    for row in exam.queue.rows(_SLOTS):
        if row["age"] > exam.limits.slot_transactions or not row["active"]:
            found.append(
                Finding(
                    "old-transactions", "warning",
                    f"the replication slot {plain(row['name'])}"
                    f" ({'active' if row['active'] else 'no client reads it'}) holds back"
                    f" {row['age']} transactions",
                    why,
                    f"`select pg_drop_replication_slot('{plain(row['name'])}')` if not needed",
                )
            )  # fmt: skip
    if not found and _sees_little(exam):
        raise SkippedError(
            f"role {exam.queue.conn.info.user} does not see the transactions of others:"
            " grant it pg_read_all_stats"
        )
    return found


def _sees_little(exam: Examination) -> bool:
    row = exam.queue.row(
        "select pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'usage') as sees"
    )
    return not row["sees"]


def sequences(exam: Examination) -> list[Finding]:
    """Find sequences that are almost used up."""
    rows = exam.queue.rows(_SEQUENCES, schema=exam.queue.schema)
    found = [
        Finding(
            "sequences", "problem",
            f"the counter {row['name']} has used {row['last_value'] / row['max_value']:.0%} of"
            " its numbers",
            f"after {row['max_value']} nothing new can be added; names of tasks and queues that"
            " come and go use it up, known names do not",
            "use names that last, and once `gw cleanup queues tasks` has freed the low numbers:"
            f" `alter sequence {exam.queue.schema}.{row['name']} restart with 1`",
        )
        for row in rows
        if row["last_value"] is not None
        and row["last_value"] / row["max_value"] > exam.limits.sequence_share
    ]  # fmt: skip
    if (
        not found
        and not exam.queue.row(
            _READS_COUNTERS,
            schema=exam.queue.schema,
        )["it"]
    ):
        raise SkippedError(f"role {exam.queue.conn.info.user} may not read the counters")
    return found


def notifications(exam: Examination) -> list[Finding]:
    """Find a listener that does not read what is kept for it."""
    found = []
    used = exam.queue.row("select pg_catalog.pg_notification_queue_usage() as used")["used"]
    if used > exam.limits.notify_share:
        found.append(
            Finding(
                "notifications", "problem",
                f"the server's queue of notifications is {used:.1%} full",
                "once it is full, whoever adds a job fails; a session that listens and stays in one"
                " transaction keeps it from being emptied",
                "end the longest transaction that the server's log names, or the sessions in"
                " pg_stat_activity that are idle in transaction and listen",
            )
        )  # fmt: skip
    return found


def clock(exam: Examination) -> list[Finding]:
    """Find a difference between the clocks of this machine and the server."""
    before = exam.clock()
    row = exam.queue.row(
        "select extract(epoch from pg_catalog.clock_timestamp())::float8 as server"
    )
    after = exam.clock()
    ahead = (before + after) / 2 - row["server"]
    if abs(ahead) - (after - before) / 2 <= exam.limits.clock_skew:
        return []
    return [
        Finding(
            "clock", "warning",
            f"this machine's clock is {span(abs(ahead))}"
            f" {'ahead of' if ahead > 0 else 'behind'} the server's",
            "jobs run by the server's clock; a time that is reckoned here is that much off, and so"
            " are recurring jobs",
            "let NTP set both clocks; say `run_at` as a duration, which the server reckons",
        )
    ]  # fmt: skip


def pooler(exam: Examination) -> list[Finding]:
    """Find a pooler between that gives each transaction another session of the server."""
    conn = exam.queue.conn
    if exam.queue.row(_PID)["pid"] == conn.info.backend_pid:
        return []  # it is the server itself that said so when the connection was made
    if not _shares_sessions(exam):
        return []
    return [
        Finding(
            "pooler", "warning",
            "this connection goes through a pooler that gives each transaction another session",
            "LISTEN does not work through it, so that workers only poll, nor do settings of a"
            " session, such as graphile_worker.notify; old ones break prepared statements",
            "give workers a direct way, `gw run --listen-dsn DSN`, or `--no-listen`; with pgbouncer"
            " before 1.21 also `prepare=False`",
        )
    ]  # fmt: skip


def _shares_sessions(exam: Examination) -> bool:
    """Whether two clients were served by one session, or one client by two."""
    ours, theirs = set[int](), set[int]()
    trouble: list[BaseException] = []

    def alternate() -> None:
        try:
            with _again(exam) as other:
                for _ in range(4):
                    theirs.add(_pid(other))
                    ours.add(_pid(exam.queue.conn))
        except BaseException as error:
            trouble.append(error)

    # Where the pooler has no second session to give, the other client waits and waits.
    looking = threading.Thread(target=alternate, daemon=True)
    looking.start()
    looking.join(5)
    if looking.is_alive() or trouble:
        why = trouble[0] if trouble else "it did not answer a second client"
        raise SkippedError(f"there is a pooler, and its mode cannot be told: {why}")
    return bool(ours & theirs) or len(ours) > 1 or len(theirs) > 1


def _again(exam: Examination) -> psycopg.Connection[Any]:
    info = exam.queue.conn.info
    parameters = info.get_parameters() | {"connect_timeout": "5"}
    if info.password:
        parameters["password"] = info.password
    return psycopg.connect(**parameters, autocommit=True, prepare_threshold=None)  # type: ignore[arg-type]


def _pid(conn: psycopg.Connection[Any]) -> int:
    return int(conn.execute(_PID).fetchall()[0][0])
