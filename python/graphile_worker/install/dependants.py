"""What blocks a change: objects that depend on the schema, and sessions that hold locks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphile_worker.install.catalogue import reference
from graphile_worker.install.inspect import detect
from graphile_worker.install.packaging.scripts import Scripts
from graphile_worker.install.session import Connection, fetch, message, transaction
from graphile_worker.naming import SCHEMA

_DEPENDANTS = """
    with named_relations as (
      select oid from pg_class where relnamespace = %(ns)s::regnamespace and relname = any (%(names)s)
    ),
    relations as (
      select oid from named_relations
      union select inhrelid from pg_inherits join pg_class on pg_class.oid = inhrelid
      where inhparent in (select oid from named_relations) and relispartition
    ),
    row_types as (select oid from pg_type where typrelid in (select oid from relations)),
    ours (classid, objid) as (
      select 'pg_class'::regclass::oid, oid from relations
      union select 'pg_class'::regclass, indexrelid from pg_index where indrelid in (select oid from relations)
      union select 'pg_proc'::regclass, oid from pg_proc
      where pronamespace = %(ns)s::regnamespace and proname = any (%(names)s)
      union select 'pg_trigger'::regclass, oid from pg_trigger
      where tgrelid in (select oid from relations) and tgname = any (%(names)s)
      union select 'pg_type'::regclass, oid from row_types
      union select 'pg_type'::regclass, typarray from pg_type where oid in (select oid from row_types)
    ),
    users (classid, objid) as (
      select d.classid, d.objid from pg_depend d join ours o
        on d.refclassid = o.classid and d.refobjid = o.objid
      where d.deptype in ('n', 'a') and (d.classid, d.objid) not in (select * from ours)
    ),
    named as (
      select
        case when u.classid = 'pg_rewrite'::regclass then 'pg_class'::regclass else u.classid::regclass end as classid,
        case when u.classid = 'pg_rewrite'::regclass then r.ev_class else u.objid end as objid
      from users u left join pg_rewrite r on u.classid = 'pg_rewrite'::regclass and r.oid = u.objid
    ),
    loose as (
      select distinct classid, objid from named where (classid::oid, objid) not in (select * from ours)
      and classid not in ('pg_attrdef'::regclass, 'pg_constraint'::regclass)
      union
      select 'pg_constraint'::regclass, c.oid from pg_constraint c
      where c.confrelid in (select objid from ours) and c.conrelid not in (select objid from ours)
    )
    select pg_describe_object(classid, objid, 0) from loose
    where classid <> 'pg_trigger'::regclass or not (select tgisinternal from pg_trigger where oid = objid)
    order by 1
"""

_MENTIONS = """
    select 'function ' || p.oid::regprocedure::text || ' (its text names the schema)' from pg_proc p
    where pronamespace not in (%(ns)s::regnamespace, 'pg_catalog'::regnamespace)
    and position(%(ns)s || '.' in prosrc) > 0
    order by 1
"""

_HOLDERS = """
    select l.pid, c.relname::text, l.mode, a.usename::text, a.application_name, a.state,
      extract(epoch from clock_timestamp() - a.xact_start)::float, left(a.query, 80)
    from pg_locks l join pg_class c on c.oid = l.relation
    left join pg_stat_activity a on a.pid = l.pid
    where c.relnamespace = %(ns)s::regnamespace and c.relkind = 'r' and l.granted
    and l.database = (select oid from pg_database where datname = current_database())
    and l.pid <> pg_backend_pid()
    order by a.xact_start
"""


@dataclass(frozen=True)
class Holder:
    """A session that holds a lock on one of the tables now."""

    pid: int
    table: str
    mode: str
    user: str | None
    application: str | None
    state: str | None
    seconds: float | None
    query: str | None


@dataclass(frozen=True)
class Plan:
    """What an upgrade would do, what would block it, and what it would affect."""

    installed: str
    target: str
    steps: list[str]
    changes: list[str]
    locks: list[str]
    holders: list[Holder]
    dependants: list[str]
    mentions: list[str]


def dependants(conn: Connection, schema: str, names: set[str]) -> list[str]:
    """Name the objects that PostgreSQL knows to depend on ours, which have these names."""
    array = "'{" + ",".join(sorted(names)) + "}'::name[]"
    return [row[0] for row in _ask(conn, _DEPENDANTS.replace("%(names)s", array), schema)]


def holders(conn: Connection, schema: str) -> list[Holder]:
    """Name the sessions that hold a lock on one of the tables, the oldest transaction first."""
    return [Holder(*row) for row in _ask(conn, _HOLDERS, schema)]


def lock_holders(conn: Connection, schema: str) -> str:
    """Return a clause for an error that names who holds locks, or nothing."""
    with transaction(conn, force_rollback=True):
        if not fetch(conn, "select from pg_catalog.pg_namespace where nspname = %s", [schema]):
            return ""
        found = holders(conn, schema)
    message = ", ".join(
        f"pid {h.pid} ({h.user}, {h.state}, {h.mode} on {h.table})" for h in found[:3]
    )
    return f"; locks are held by {message}" if message else ""


def plan_upgrade(
    conn: Connection,
    *,
    to: str | None = None,
    schema: str = SCHEMA,
    scripts: Scripts | None = None,
) -> Plan:
    """Plan an upgrade without changing anything.

    The changes are the differences between the two versions' install scripts, each tried out in the
    temporary schema; the locks are those that the updates declare.
    """
    with message(conn), transaction(conn, force_rollback=True):
        return _plan(conn, to, schema, scripts or Scripts())


def _plan(conn: Connection, to: str | None, schema: str, scripts: Scripts) -> Plan:
    state = detect(conn, schema, scripts)
    installed = state.ours(scripts)
    target = to or scripts.latest
    steps = scripts.steps(installed, target)
    changes: list[str] = []
    if steps:
        old, new = (reference(conn, version, scripts).objects for version in (installed, target))
        for (kind, name), attributes in new.items():
            if (kind, name) not in old:
                changes.append(f"add {kind} {name}")
            elif _shape(old[kind, name]) != _shape(attributes):
                changes.append(f"change {kind} {name}")
        changes += [f"drop {kind} {name}" for kind, name in old.keys() - new.keys()]
    locks = [f"{lock.mode} on {lock.table}" for step in steps for lock in scripts.locks(step)]
    return Plan(
        installed, target, steps, changes, locks, holders(conn, schema),
        dependants(conn, schema, scripts.names(installed)), [row[0] for row in _ask(conn, _MENTIONS, schema)],
    )  # fmt: skip


def _shape(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name != "owner"}


def _ask(conn: Connection, query: str, schema: str) -> list[tuple[Any, ...]]:
    quoted = fetch(conn, "select pg_catalog.quote_ident(%s)", [schema])[0][0]
    literal = "'" + quoted.replace("'", "''") + "'"
    return fetch(conn, query.replace("%(ns)s", literal))
