"""Whose code runs when a superuser looks at a queue.

Whoever owns a function or a view can put anything into it, and it runs with the caller's rights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from graphile_worker.errors import UntrustedOwner

#: The owners of a schema and of what is in it that a superuser cannot take for granted: neither
#: superusers, nor the session's own role, nor the owner of the database. No row for others than
#: superusers, whose rights a queue's owner does not gain. Nothing of the schema is run.
OWNERS = """
select distinct roles.rolname::text
from (
  select schemas.oid, schemas.nspowner from pg_catalog.pg_namespace as schemas
  where schemas.nspname = %s
) as schemas (oid, owner)
cross join lateral (
  select schemas.owner
  union all
  select relations.relowner from pg_catalog.pg_class as relations
  where relations.relnamespace = schemas.oid
  union all
  select functions.proowner from pg_catalog.pg_proc as functions
  where functions.pronamespace = schemas.oid
  union all
  select operators.oprowner from pg_catalog.pg_operator as operators
  where operators.oprnamespace = schemas.oid
) as objects (owner)
join pg_catalog.pg_roles as roles on roles.oid = objects.owner
where not roles.rolsuper
and roles.rolname not in (current_user, 'pg_database_owner')
and roles.oid <> (
  select databases.datdba from pg_catalog.pg_database as databases
  where databases.datname = pg_catalog.current_database()
)
and exists (
  select from pg_catalog.pg_roles as callers
  where callers.rolname in (current_user, session_user) and callers.rolsuper
)
order by 1
"""


def check_owners(rows: Iterable[Sequence[Any]], schema: str, trusted: Iterable[str] = ()) -> None:
    """Raise UntrustedOwner where OWNERS found a role that is not among the trusted ones."""
    found = [str(name) for (name,) in rows if name not in set(trusted)]
    if found:
        named = ", ".join(found)
        raise UntrustedOwner(
            f"the schema {schema} belongs to {named}, who could run code with a superuser's rights"
            f" through it: connect as {found[0]}, or say --trust-owner {found[0]} if you trust that"
            " role with all of this server; nothing of the schema was run"
        )
