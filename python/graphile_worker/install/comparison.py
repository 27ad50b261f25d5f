"""Compare the objects of a schema with what its version should contain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

from graphile_worker.errors import NotInstalledError, RightsError
from graphile_worker.install.catalogue import (
    LEVELS,
    OWNER,
    USAGE,
    Catalogue,
    Right,
    members,
    read,
    reference,
)
from graphile_worker.install.inspect import State
from graphile_worker.install.packaging.scripts import Scripts, fill_in
from graphile_worker.install.session import (
    Connection,
    acting_role,
)
from graphile_worker.naming import quote_ident

#: Kinds of which ours hold none: whatever is there, someone added. Loose relations, types and
#: functions in the schema do not matter, but an overload of one of ours makes calls ambiguous.
_FOREIGN = ("trigger", "rule", "policy", "column", "constraint", "index")


@dataclass(frozen=True)
class Drift:
    """One difference: what differs, how, and the SQL that repairs it without touching rows.

    ``fix`` is None where that cannot be done; ``remedy`` then says what can.
    """

    what: str
    problem: str
    fix: str | None = None
    remedy: str | None = None


class Comparison:
    """One installed schema against its reference."""

    def __init__(self, conn: Connection, state: State, version: str, scripts: Scripts) -> None:
        self.schema, self.version, self.scripts = state.schema, version, scripts
        self.ident = quote_ident(state.schema)
        self.wanted = reference(conn, version, scripts)
        user = acting_role(conn)
        try:
            self.found = read(conn, state.schema)
        except psycopg.errors.UndefinedTable as error:
            raise NotInstalledError(
                f"the schema {state.schema} has no table migrations: restore it from a backup"
            ) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise RightsError(
                f"role {user} may not read the migrations of the schema {state.schema}:"
                " connect as the role that owns it"
            ) from error
        self.owner = self.found.objects.get(("table", "_private_jobs"), {}).get("owner")
        self.drifts: list[Drift] = []

    def add(
        self, what: str, problem: str, fix: str | None = None, remedy: str | None = None
    ) -> None:
        self.drifts.append(Drift(what, problem, fix, remedy))

    def statement(self, start: str) -> str | None:
        text = self.scripts.statement(self.version, start)
        return None if text is None else fill_in(text, self.ident)

    def compare(self) -> list[Drift]:
        for key, wanted in self.wanted.objects.items():
            kind, name = key
            found = self.found.objects.get(key)
            if found is None:
                self._missing(kind, name)
                continue
            for attribute, value in wanted.items():
                if attribute == "owner":
                    if found["owner"] != self.owner:
                        where = self.address(kind, name)
                        fix = f"alter {kind} {where} owner to {_quoted(self.owner)}"
                        self.add(f"{kind} {name}", f"belongs to {found['owner']}", fix)
                    continue
                if attribute == "body":
                    value = fill_in(value, self.ident)
                if found[attribute] != value:
                    self._differs(kind, name, attribute, found[attribute], value)
        for kind, name in self.found.objects.keys() - self.wanted.objects.keys():
            self._unexpected(kind, name)
        self._rights()
        return self.drifts

    def address(self, kind: str, name: str) -> str:
        if kind == "function":
            name = name.partition("(")[0]
            return fill_in(self.scripts.address(self.version, name), self.ident)
        return f"{self.ident}.{name}"

    def _missing(self, kind: str, name: str) -> None:
        what, fix = f"{kind} {name}", None
        relation = name.partition(".")[0]
        if kind == "function":
            fix = self._function(name)
        elif kind == "index":
            fix = self._index(name)
        elif kind == "view":
            fix = self.statement(f"create view @extschema@.{name}")
        elif kind == "revision":
            breaking = self.wanted.objects[kind, name]["breaking"]
            fix = f"insert into {self.ident}.migrations (id, breaking) values ({name}, {breaking})"
        elif kind == "constraint":
            fix = self._constraint(name)
        elif kind == "trigger":
            fix = self._trigger(name)
        if kind == "column" and ("view", relation) in self.wanted.objects:
            return  # the view differs, or is missing
        if kind == "index" and self._of_constraint(name):
            return  # the constraint is missing
        self.add(what, "is missing", fix, None if fix else "restore it from a backup")

    def _of_constraint(self, index: str) -> bool:
        return any(k == "constraint" and n.endswith(f" {index}") for k, n in self.wanted.objects)

    def _function(self, name: str) -> str | None:
        bare = name.partition("(")[0]
        create = self.statement(f"create function @extschema@.{bare}(")
        if create is None:
            return None
        address = self.address("function", name)
        comment = self.statement(f"comment on function @extschema@.{bare}(")
        create = create.replace("create function", "create or replace function", 1)
        rights = f"revoke all on function {address} from public"
        owner = f"alter function {address} owner to {_quoted(self.owner)}"
        return f"{create}\n{comment}\n{rights};\n{owner}"

    def _index(self, name: str) -> str | None:
        create = self.statement(f"create index {name}") or self.statement(
            f"create unique index {name}"
        )
        if create is None:
            return None
        comment = self.statement(f"comment on index @extschema@.{name}") or ""
        return f"drop index if exists {self.ident}.{name};\n{create}\n{comment}"

    def _trigger(self, name: str) -> str:
        trigger, _, table = name.partition(" on ")
        create = self.statement(f"create trigger {trigger}")
        comment = self.statement(f"comment on trigger {trigger} on") or ""
        return f"drop trigger if exists {trigger} on {self.ident}.{table};\n{create}\n{comment}"

    def _constraint(self, name: str) -> str:
        table, _, constraint = name.partition(" ")
        definition = self.wanted.objects["constraint", name]["definition"]
        comments = [
            self.statement(f"comment on constraint {constraint} on"),
            self.statement(f"comment on index @extschema@.{constraint}"),
        ]
        return (
            f"alter table {self.ident}.{table} drop constraint if exists {constraint};\n"
            f"alter table {self.ident}.{table} add constraint {constraint} {definition};\n"
            + "\n".join(comment for comment in comments if comment)
        )

    def _differs(self, kind: str, name: str, attribute: str, found: Any, wanted: Any) -> None:
        relation, _, column = name.partition(".")
        table = f"{self.ident}.{relation}"
        fix = None
        if attribute == "comment":
            target = f"{kind} @extschema@.{name.partition('(')[0]}"
            if kind in ("constraint", "trigger"):
                bare = name.partition(" ")
                target = f"{kind} {bare[2] if kind == 'constraint' else bare[0]} on"
            fix = self.statement(f"comment on {target}")
            if fix is None:
                where = self.address(kind, name)
                fix = f"comment on {kind} {where} is null"
        elif kind == "function":
            fix = self._function(name)
        elif kind == "index":
            fix = self._index(name) or f"reindex index {self.ident}.{name}"
        elif kind == "view":
            view = self.statement(f"create view @extschema@.{name}") or ""
            reset = "reset (security_barrier, security_invoker, check_option)"
            reset = f"alter view {table} {reset};\n" if attribute == "options" else ""
            fix = reset + view.replace("create view", "create or replace view", 1)
        elif kind == "constraint":
            fix = self._constraint(name)
        elif kind == "trigger":
            fix = self._trigger(name)
        elif kind == "revision":
            fix = f"update {self.ident}.migrations set breaking = {wanted} where id = {name}"
        elif kind == "table" and attribute == "row security":
            fix = f"alter table {table} {'enable' if wanted else 'disable'} row level security"
        elif kind == "table" and attribute == "forced row security":
            fix = f"alter table {table} {'' if wanted else 'no '}force row level security"
        elif kind == "table" and attribute == "options":
            names = ", ".join(
                part.partition("=")[0] for part in found.strip("{}").split(",") if part
            )
            fix = f"alter table {table} reset ({names})" if not wanted else None
        elif kind == "sequence" and attribute in (
            "increment",
            "minimum",
            "maximum",
            "cycles",
            "cache",
        ):
            want = self.wanted.objects[kind, name]
            fix = (
                f"alter sequence {table} increment {want['increment']} minvalue {want['minimum']}"
                f" maxvalue {want['maximum']} cache {want['cache']}"
                f" {'' if want['cycles'] else 'no '}cycle"
            )
        elif kind == "column" and attribute == "default" and not self._generated(name):
            change = "drop default" if wanted is None else f"set default {wanted}"
            fix = f"alter table {table} alter column {column} {change}"
        elif kind == "column" and attribute == "not null":
            fix = (
                f"alter table {table} alter column {column} {'set' if wanted else 'drop'} not null"
            )
        elif kind == "column" and attribute == "identity" and wanted == "a" and found == "d":
            fix = f"alter table {table} alter column {column} set generated always"
        shown = "" if attribute in ("body", "definition") else f": {found!r} instead of {wanted!r}"
        remedy = None if fix else "needs a hand: repairing it would touch rows"
        self.add(f"{kind} {name}", f"{attribute} differs{shown}", fix, remedy)

    def _generated(self, column: str) -> bool:
        return bool(self.wanted.objects["column", column]["generated"])

    def _unexpected(self, kind: str, name: str) -> None:
        if kind == "revision":
            self.add(f"revision {name}", "is not known to this version", None, "upgrade")
        elif kind == "function":
            bare = name.partition("(")[0]
            if any(k == "function" and n.startswith(bare + "(") for k, n in self.wanted.objects):
                self.add(
                    f"function {name}", "is not ours and makes calls ambiguous", None, "drop it"
                )
        elif kind in _FOREIGN and self._on_ours(kind, name):
            self.add(f"{kind} {name}", "is not ours", None, "drop it; a dump would not save it")

    def _on_ours(self, kind: str, name: str) -> bool:
        if kind == "index":
            definition = self.found.objects[kind, name]["definition"]
            table = definition.split(" ON ")[1].split(" ")[0]
            constraint = ("constraint", f"{table} {name}") in self.found.objects
            return ("table", table) in self.wanted.objects and not constraint
        relation = {"column": name.partition(".")[0], "constraint": name.partition(" ")[0]}.get(
            kind, name.rpartition(" on ")[2]
        )
        return any((k, relation) in self.wanted.objects for k in ("table", "type", "view"))

    def _rights(self) -> None:
        ours = {key for key in self.wanted.objects if key[0] != "column"}

        def of_ours(rights: set[Right]) -> set[Right]:
            return {r for r in rights if r[:2] in ours or r[0] == "column"}

        for grantee in (OWNER, "public"):
            wanted = self.wanted.rights.get(grantee, set())
            found = of_ours(self.found.rights.get(grantee, set()))
            who = "public" if grantee == "public" else _quoted(self.owner)
            name = grantee or "the owner"
            for right in sorted(found - wanted):
                self._right(name, "has", right, f"revoke {{}} from {who}")
            for right in sorted(wanted - found):
                if right[:2] in self.found.objects:
                    self._right(name, "lacks", right, f"grant {{}} to {who}")
        everybody = self.found.rights.get("public", set()) & {USAGE}
        for role, rights in self.found.rights.items():
            held = of_ours(rights)
            if role not in (OWNER, "public") and held:
                self._role(role, held | everybody | (rights & {USAGE}))

    def _right(self, who: str, verb: str, right: Right, change: str) -> None:
        kind, name, privilege = right
        fix = None
        if kind != "column":
            word = "table" if kind == "view" else kind
            where = self.ident if kind == "schema" else self.address(kind, name)
            fix = change.replace("{}", f"{privilege} on {word} {where}")
        named = f"{kind} {name}" if name else "the schema"
        self.add(f"grant to {who}", f"{verb} {privilege} on {named}", fix)

    def _role(self, role: str, held: set[Right]) -> None:
        levels = self.wanted.levels
        if held in levels.values():
            return
        known = {r: held & rights for r, rights in levels.items()}
        level = next((name for name in LEVELS if held < levels[name]), None)
        if level is not None:
            for right in sorted(levels[level] - held):
                self._right(role, f"(level {level}) lacks", right, f"grant {{}} to {_quoted(role)}")
            return
        best = max(LEVELS, key=lambda name: len(known[name]))
        extra = "; ".join(f"{p} on {k} {n}".strip() for k, n, p in sorted(held - levels[best]))
        self.add(
            f"grant to {role}",
            f"has rights that no level gives: {extra}",
            None,
            f"`gw-install grant {role} {best}` (or another level) sets them right",
        )


def compare_members(
    conn: Connection, found: Catalogue, version: str, scripts: Scripts
) -> list[Drift]:
    """Name the objects that are not members of the extension, or not registered for dumps."""
    present = {(kind, _bare(identity)): saved for (kind, identity), saved in members(conn).items()}
    registered = scripts.registered(version)
    fix = scripts.read("detach.sql") + scripts.attach() if version == scripts.latest else None
    remedy = None if fix else "upgrade first, then verify again"
    drifts = []
    for kind, name in sorted(scripts.members(version)):
        if not any(k == kind and n.partition("(")[0] == name for k, n in found.objects):
            continue  # it is missing altogether
        if (kind, name) not in present:
            problem = "is not a member of the extension"
        elif present[kind, name] != registered.get(name):
            problem = "is not registered for dumps as it should be"
        else:
            continue
        drifts.append(Drift(f"{kind} {name}", problem, fix, remedy))
    return drifts


def _bare(identity: str) -> str:
    return identity.partition("(")[0].rpartition(".")[2].strip('"')


def _quoted(role: str | None) -> str:
    return '"' + (role or "").replace('"', '""') + '"'
