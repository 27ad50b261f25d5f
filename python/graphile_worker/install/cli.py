"""gw-install: install, upgrade and remove graphile_worker. Only this program changes the schema.

Connections follow libpq: a connection string or the PG* variables. Exit codes: 0 done, or nothing
to do; 1 failed, nothing was changed; 2 wrong usage; 3 drift was found; 4 busy, retry;
130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from graphile_worker import __version__, install
from graphile_worker.cli import command, flags, progress
from graphile_worker.cli.flags import FromEnvironment, Parser
from graphile_worker.errors import InstallError
from graphile_worker.install import inspect as state
from graphile_worker.install.catalogue import LEVELS
from graphile_worker.install.packaging import files
from graphile_worker.install.packaging.scripts import Scripts
from graphile_worker.install.session import message, transaction
from graphile_worker.install.verification import repair, verify
from graphile_worker.naming import SCHEMA, quote_ident

DRIFT = 3


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="gw-install",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"gw-install {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, help: str, run: Callable[[argparse.Namespace], int]) -> Parser:
        sub = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        sub.set_defaults(run=run)
        flags.reports(sub)
        return sub

    sub = add("files", "put the extension's files into a server's folder, or remove them", _files)
    sub.add_argument("action", choices=["put", "remove", "control-path"])
    flags.env(sub, "--pg-config", help="pg_config program of the server")
    flags.env(sub, "--sharedir", help="the server's share directory")
    flags.env(sub, "--dsn", help="ask this running server, as a superuser")
    flags.env(sub, "--directory", help="use this folder, for extension_control_path")
    flags.env(sub, "--destdir", type=Path, help="put everything below this folder, for packages")
    flags.dry_run(sub, "say where, change nothing")

    sub = add("install", "install the queue in a database", _install)
    flags.changes(sub)
    _mode(sub)
    sub = add("upgrade", "upgrade the queue to a newer version", _upgrade)
    flags.changes(sub)
    flags.env(sub, "--to", help="version to upgrade to (default: the newest)")
    flags.env(sub, "--drain", switch=True, help="wait until no job is running")
    flags.env(
        sub, "--plan", switch=True, help="show the steps, and the locks and objects in the way"
    )
    sub = add("adopt", "convert a schema of Node's graphile-worker", _adopt)
    flags.changes(sub)
    _mode(sub)
    sub = add("release", "drop the extension and keep all its objects and rows", _release)
    flags.changes(sub)
    sub = add("switch", "change the install mode, keeping every row", _switch)
    sub.add_argument("mode", choices=["extension", "plain"])
    flags.changes(sub)
    sub = add("verify", "compare the schema with what its version should contain", _verify)
    flags.connects(sub)
    flags.waits(sub)
    flags.env(sub, "--fix", switch=True, help="repair what can be repaired without touching rows")
    flags.dry_run(sub, "with --fix: print the SQL")
    sub = add("status", "show the version, install mode and job counts", _status)
    flags.connects(sub)
    sub = add("uninstall", "drop the queue", _uninstall)
    flags.changes(sub)
    sub.add_argument(
        "--with-jobs", action="store_true", help="drop the queue even if it contains jobs"
    )
    sub.add_argument(
        "--cascade", action="store_true", help="also drop objects that depend on the queue"
    )
    sub = add("grant", "give a role an access level", _grant)
    sub.add_argument("role")
    sub.add_argument("level", choices=[*LEVELS, "none"])
    flags.changes(sub)
    sub = add(
        "citus", "on the coordinator of a Citus cluster: let jobs be added on the node of a route",
        _citus,
    )  # fmt: skip
    flags.changes(sub)
    sub = add("sql", "print the SQL for a migration tool", _sql)
    sub.add_argument(
        "what", choices=["install", "upgrade", "adopt", "release", "uninstall"], nargs="?",
        default="install",
    )  # fmt: skip
    flags.env(sub, "--schema", default=SCHEMA, help="schema of the queue")
    flags.env(sub, "--mode", choices=["plain", "extension"], default="plain", help="plain or not")
    flags.env(sub, "--from", dest="old", help="for upgrade: the installed version")
    flags.env(sub, "--to", help="version (default: the newest)")
    sub = add("pg_tle", "print the calls that register the extension with pg_tle", _pg_tle)
    flags.env(
        sub, "--from", dest="old", help="version that is already registered: print only newer ones"
    )
    return parser


def _mode(parser: Parser) -> None:
    flags.env(
        parser,
        "--mode",
        choices=["auto", "extension", "plain"],
        default="auto",
        help="install mode (default: an extension where the server offers it)",
    )


def _scripts(options: argparse.Namespace) -> Scripts:
    return Scripts(options.scripts)


def _done(options: argparse.Namespace, outcome: install.Outcome) -> int:
    dry = options.dry_run
    report = {
        "changed": outcome.changed and not dry,
        "message": outcome.message,
        **({"sql": list(outcome.sql)} if dry else {}),
    }
    text = outcome.message
    if dry:
        statements = "\n".join(part.rstrip() for part in outcome.sql)
        text = statements or f"-- {outcome.message}"
    flags.out(options, report, text)
    return 0


def _way(options: argparse.Namespace) -> str:
    """Return the flag that says where the folder is; one that was given wins over variables."""
    values = {
        name: getattr(options, name) for name in ("pg_config", "sharedir", "directory", "dsn")
    }
    ways = {name: value for name, value in values.items() if value is not None}
    given = [name for name, value in ways.items() if not isinstance(value, FromEnvironment)]
    if not given:  # GW_DSN is there for the other commands
        given = [name for name in ways if name != "dsn"] or list(ways)
    if len(given) != 1:
        raise InstallError("say which server: one of --pg-config, --sharedir, --dsn, --directory")
    return given[0]


def _files(options: argparse.Namespace) -> int:
    scripts = _scripts(options)
    if options.action == "control-path":
        home = Path(options.directory) if options.directory else None
        line = files.control_path(home, scripts)
        flags.out(options, {"setting": line}, line)
        return 0
    way = _way(options)
    if way == "pg_config":
        folder = files.folder_of_pg_config(options.pg_config)
    elif way == "dsn":
        with flags.connect(options) as conn:
            folder = files.folder_of_server(conn)
    else:
        folder = Path(getattr(options, way)) / "extension"
    where: dict[str, Any] = {"destdir": options.destdir, "dry_run": options.dry_run}
    if options.action == "put":
        done = files.put_files(folder, make=way == "directory", scripts=scripts, **where)
    else:
        done = files.remove_files(folder, **where)
    verb = {"put": "put", "remove": "removed"}[options.action]
    names = [str(file) for file in done]
    would = f"would have {verb}" if options.dry_run else verb
    text = "\n".join(f"{would} {name}" for name in names) or "nothing to remove"
    flags.out(options, {verb: names, "changed": bool(names) and not options.dry_run}, text)
    return 0


def _lock_retries(options: argparse.Namespace, bar: progress.Bar) -> install.LockRetries:
    def on_wait(why: str) -> None:
        bar.note(f"waits: {why}")

    return install.LockRetries(options.timeout, options.lock_timeout, on_wait)


def _change(options: argparse.Namespace, act: Callable[..., install.Outcome], **more: Any) -> int:
    with flags.connect(options) as conn, progress.bar(options.command) as bar:
        outcome = act(
            conn, schema=options.schema, scripts=_scripts(options), dry_run=options.dry_run,
            lock_retries=_lock_retries(options, bar), **more,
        )  # fmt: skip
    return _done(options, outcome)


def _install(options: argparse.Namespace) -> int:
    return _change(options, install.install, mode=options.mode)


def _upgrade(options: argparse.Namespace) -> int:
    if not options.plan:
        return _change(options, install.upgrade, to=options.to, drain=options.drain)
    with flags.connect(options) as conn:
        plan = install.plan_upgrade(
            conn, to=options.to, schema=options.schema, scripts=_scripts(options)
        )
    flags.out(options, plan, _plan_text(plan))
    return 0


def _plan_text(plan: install.Plan) -> str:
    if not plan.steps:
        return f"Nothing to do: version {plan.installed} is installed."
    lines = [f"From version {plan.installed} to {plan.target}."]
    held = [
        f"pid {h.pid} {h.user} {h.state} for {h.seconds or 0:.0f} s: {h.mode} on {h.table}:"
        f" {h.query}"
        for h in plan.holders
    ]
    for title, entries in (
        ("Steps", plan.steps),
        ("Changes", plan.changes),
        ("Locks needed", plan.locks or ["none on a table with rows"]),
        ("Locks held now by others", held or ["none"]),
        ("Objects that depend on ours", plan.dependants or ["none"]),
        ("Functions that name the schema", plan.mentions or ["none"]),
    ):
        lines += [f"{title}:", *(f"  {entry}" for entry in entries)]
    return "\n".join(lines)


def _adopt(options: argparse.Namespace) -> int:
    return _change(options, install.adopt, mode=options.mode)


def _release(options: argparse.Namespace) -> int:
    return _change(options, install.switch, mode="plain")


def _switch(options: argparse.Namespace) -> int:
    return _change(options, install.switch, mode=options.mode)


def _verify(options: argparse.Namespace) -> int:
    scripts = _scripts(options)
    with flags.connect(options) as conn:
        drifts = verify(conn, schema=options.schema, scripts=scripts)
        if options.fix and drifts and not options.dry_run:
            with progress.bar("repair") as bar:
                left = repair(
                    conn, drifts, schema=options.schema, scripts=scripts,
                    lock_retries=_lock_retries(options, bar),
                )  # fmt: skip
            if not options.json:
                repaired = sum(drift not in left for drift in drifts)
                print(f"Repaired {repaired} of {len(drifts)} drifts.")
            drifts = left
    if options.fix and options.dry_run:
        fixes = dict.fromkeys(drift.fix for drift in drifts if drift.fix)
        text = "\n".join(fix.rstrip().rstrip(";") + ";" for fix in fixes)
    else:
        lines = [f"{drift.what} {drift.problem}{_remedy(drift)}" for drift in drifts]
        text = "\n".join(lines) or "No drift."
    flags.out(options, [asdict(drift) for drift in drifts], text)
    return DRIFT if drifts else 0


def _remedy(drift: Any) -> str:
    return " (--fix repairs it)" if drift.fix else f" ({drift.remedy})"


def _status(options: argparse.Namespace) -> int:
    scripts = _scripts(options)
    with flags.connect(options) as conn, message(conn), transaction(conn):
        found = state.detect(conn, options.schema, scripts)
        report: dict[str, Any] = {
            "schema": found.schema,
            "mode": found.mode,
            "version": found.version,
            "revision": found.revision,
            "known": scripts.versions(),
            "offered": state.offered(conn),
            "server": conn.info.server_version,
            "jobs": None,
        }
        if found.mode in ("extension", "plain"):
            report["jobs"] = asdict(state.counts(conn, found))
    lines = [f"{name:10}{_line(value)}" for name, value in report.items()]
    flags.out(options, report, "\n".join(lines))
    return 0


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} {name}" for name, count in value.items())
    return ", ".join(value) if isinstance(value, list) else "-" if value is None else str(value)


def _uninstall(options: argparse.Namespace) -> int:
    more = {"with_jobs": options.with_jobs, "cascade": options.cascade}
    return _change(options, install.uninstall, **more)


def _grant(options: argparse.Namespace) -> int:
    level = None if options.level == "none" else options.level
    trusted = options.trust_owner or ()
    return _change(options, install.grant, role=options.role, level=level, trusted=trusted)


def _citus(options: argparse.Namespace) -> int:
    with flags.connect(options) as conn, progress.bar(options.command) as bar:
        given = {"dry_run": options.dry_run, "lock_retries": _lock_retries(options, bar)}
        outcome = install.set_up_routes(conn, schema=options.schema, **given)
    return _done(options, outcome)


def _sql(options: argparse.Namespace) -> int:
    text = install.offline_sql(
        options.what, mode=options.mode, schema=options.schema, old=options.old, to=options.to,
        scripts=_scripts(options),
    )  # fmt: skip
    flags.out(options, {"sql": text}, text.rstrip("\n"))
    return 0


def _pg_tle(options: argparse.Namespace) -> int:
    ident = quote_ident(SCHEMA)
    then = (
        f"alter extension {SCHEMA} update;" if options.old
        else f"create schema {ident}; create extension {SCHEMA} schema {ident};"
    )  # fmt: skip
    text = f"{_scripts(options).pg_tle(options.old)}\n-- Then: {then}"
    flags.out(options, {"sql": text}, text)
    return 0


def main(args: list[str] | None = None) -> int:
    """Run a command; return its exit code."""
    undone = "what was not committed is undone, see `gw-install status`"
    return command.run(build_parser(), args, interrupted=undone)


if __name__ == "__main__":
    sys.exit(main())
