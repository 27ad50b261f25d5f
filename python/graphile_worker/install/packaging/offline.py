"""The SQL of each change for migration tools, without a database."""

from __future__ import annotations

import re

from graphile_worker.errors import InstallError, VersionError
from graphile_worker.install.packaging.scripts import Scripts
from graphile_worker.naming import SCHEMA, quote_ident


def offline_sql(
    what: str,
    *,
    mode: str = "plain",
    schema: str = SCHEMA,
    old: str | None = None,
    to: str | None = None,
    scripts: Scripts | None = None,
) -> str:
    """Return the SQL of an install, upgrade, adopt, release or uninstall, for a migration tool.

    It holds no transaction control: run it in one transaction, as migration tools do. Raise
    InstallError where it needs the version before and was not given one, or where the extension
    would lie in another schema; ValueError for a version or name that cannot be.
    """
    scripts = scripts or Scripts()
    target = to or scripts.latest
    if target not in scripts.versions():
        raise VersionError(f"version {target} is unknown: use {', '.join(scripts.versions())}")
    if (mode == "extension" or what == "release") and schema != SCHEMA:
        raise InstallError(f"the extension lives in the schema {SCHEMA}, not {schema}")
    ident = quote_ident(schema)
    if what == "install":
        make = f"create schema if not exists {ident};\n"
        if mode == "extension":
            return f"{make}create extension {SCHEMA} schema {SCHEMA} version '{target}';\n"
        return make + scripts.plain(scripts.read(target), schema)
    if what == "upgrade":
        if old is None:
            raise InstallError("say which version is installed, with --from")
        steps = scripts.steps(old, target)
        if mode == "extension":
            return f"alter extension {SCHEMA} update to '{target}';\n"
        return "\n".join(scripts.plain(scripts.read(step), schema) for step in steps)
    if what == "adopt":
        attach = f"\n{scripts.attach()}\n" if mode == "extension" else ""
        return scripts.plain(scripts.read("adopt.sql"), schema) + attach
    if what == "release":
        return scripts.read("detach.sql")
    if mode == "extension":
        return f"drop extension {SCHEMA};\n"
    return "\n".join(drop_sql(scripts, target, schema)) + "\n"


def drop_sql(scripts: Scripts, version: str, schema: str, end: str = ";") -> list[str]:
    """Return what drops the plain objects of a version, one statement an object."""
    ident = quote_ident(schema)
    text = scripts.read(version)
    signatures = re.findall(r"(?m)^comment on function @extschema@\.(.+?) is ", text)
    # The last one first: a view may read another.
    views = re.findall(r"(?m)^create view @extschema@\.(\w+)", text)[::-1]
    triggers = re.findall(r"(?ms)^create trigger (\w+).*?on @extschema@\.(\w+)", text)
    drops = [f"trigger {name} on {ident}.{table}" for name, table in triggers]
    drops += [f"view {ident}.{name}" for name in views]
    drops += [f"function {ident}.{s.replace('@extschema@', ident)}" for s in signatures]
    drops += [f"type {ident}.{n}" for n in re.findall(r"(?m)^create type @extschema@\.(\w+)", text)]
    drops += [
        f"table {ident}.{n}" for n in re.findall(r"(?m)^create table @extschema@\.(\w+)", text)
    ]
    return [f"drop {drop}{end}" for drop in drops]
