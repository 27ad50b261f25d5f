"""gw-install: get, keep and leave graphile_worker, the one tool that changes the schema.

Connections follow libpq: a connection string or the PG* variables. Exit codes: 0 done, or nothing
to do; 1 failed and nothing was changed; 2 wrong usage; 3 drift was found; 4 busy, try again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

try:
    import psycopg
    from psycopg.conninfo import make_conninfo
except ImportError as _error:  # psycopg without a libpq
    sys.exit(f"gw-install: {_error}\nrun `pip install 'graphile-worker[binary]'`, or install libpq")

from graphile_worker import __version__, files, install, state
from graphile_worker.errors import BusyError, GraphileWorkerError, InstallError
from graphile_worker.scripts import SCHEMA, Scripts, quote_ident
from graphile_worker.verify import repair, verify

Parser = argparse.ArgumentParser
DRIFT, BUSY = 3, 4


def _env(parser: Any, flag: str, *, help: str, **options: Any) -> None:
    """Add a flag with its twin among the environment variables, GW_ and the flag's name."""
    name = "GW_" + flag.lstrip("-").replace("-", "_").upper()
    given = os.environ.get(name)
    if options.get("action") == "store_true":
        options["default"] = (given or "").lower() in ("1", "true", "yes", "on")
    elif given is not None:
        options["default"] = given
    parser.add_argument(flag, help=f"{help} [env: {name}]", **options)


def _connects(parser: Parser) -> None:
    _env(parser, "--dsn", default="", help="connection string, URL or name of a database")
    _env(parser, "--schema", default=SCHEMA, help="schema of the queue")


def _reports(parser: Parser) -> None:
    _env(parser, "--json", action="store_true", help="print JSON")
    parser.add_argument("-v", "--verbose", action="store_true", help="show tracebacks")
    parser.add_argument("--scripts", type=Path, help=argparse.SUPPRESS)


def _dry_run(parser: Parser, help: str) -> None:
    _env(parser, "--dry-run", action="store_true", help=help)
    parser.add_argument("--print", dest="dry_run", action="store_true", help="the same")


def _changes(parser: Parser) -> None:
    _connects(parser)
    _dry_run(parser, "print the SQL, change nothing")
    _env(
        parser,
        "--timeout",
        type=float,
        default=60.0,
        help="seconds to try before giving up (default 60)",
    )
    _env(
        parser,
        "--lock-timeout",
        type=float,
        default=1.0,
        help="seconds to wait for one lock before stepping back (default 1)",
    )


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="gw-install",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"gw-install {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str, run: Callable[[argparse.Namespace], int]) -> Parser:
        sub = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        sub.set_defaults(run=run)
        _reports(sub)
        return sub

    sub = command(
        "files", "put the extension's files into a server's folder, or remove them", _files
    )
    sub.add_argument("action", choices=["put", "remove", "control-path"])
    _env(sub, "--pg-config", help="pg_config program of the server")
    _env(sub, "--sharedir", type=Path, help="the server's share directory")
    _env(sub, "--dsn", help="ask this running server, as a superuser")
    _env(sub, "--directory", type=Path, help="a folder of your own, for extension_control_path")
    _env(sub, "--destdir", type=Path, help="put everything below this folder, for packages")
    _dry_run(sub, "say where, change nothing")

    sub = command("install", "make the queue in a database", _install)
    _changes(sub)
    _mode(sub)
    sub = command("upgrade", "bring the queue to a newer version", _upgrade)
    _changes(sub)
    _env(sub, "--to", help="version to go to (default: the newest)")
    _env(sub, "--drain", action="store_true", help="wait until no job is running")
    _env(sub, "--plan", action="store_true", help="show what it would do and who is in the way")
    sub = command("adopt", "make a schema of Node's graphile-worker ours", _adopt)
    _changes(sub)
    _mode(sub)
    sub = command("release", "drop the extension and leave every table and row", _release)
    _changes(sub)
    sub = command("switch", "go from plain objects to an extension, or back", _switch)
    sub.add_argument("road", choices=["extension", "plain"])
    _changes(sub)
    sub = command("verify", "compare the schema with what its version should be", _verify)
    _connects(sub)
    _env(sub, "--fix", action="store_true", help="repair what can be without touching rows")
    _dry_run(sub, "with --fix: print the SQL")
    sub = command("status", "show version, road and counts", _status)
    _connects(sub)
    sub = command("uninstall", "drop the queue", _uninstall)
    _changes(sub)
    sub.add_argument("--with-jobs", action="store_true", help="although jobs are lost")
    sub.add_argument("--cascade", action="store_true", help="and whatever depends on it")
    sub = command("grant", "give a role a level of access", _grant)
    sub.add_argument("role")
    sub.add_argument("level", choices=["enqueue", "work", "admin", "observe", "none"])
    _connects(sub)
    _dry_run(sub, "print the exact GRANTs")
    sub = command("sql", "print the SQL for a migration tool, offline", _sql)
    sub.add_argument(
        "what", choices=["install", "upgrade", "adopt", "release", "uninstall"], nargs="?",
        default="install",
    )  # fmt: skip
    _env(sub, "--schema", default=SCHEMA, help="schema of the queue")
    sub.add_argument("--road", choices=["plain", "extension"], default="plain")
    sub.add_argument("--from", dest="old", help="upgrade: the version before")
    _env(sub, "--to", help="version (default: the newest)")
    command("pg_tle", "print the calls that register the extension with pg_tle, offline", _pg_tle)
    return parser


def _mode(parser: Parser) -> None:
    _env(
        parser,
        "--mode",
        choices=["auto", "extension", "plain"],
        default="auto",
        help="road (default: an extension where the server offers it)",
    )


def _connect(options: argparse.Namespace) -> psycopg.Connection[Any]:
    dsn: str = options.dsn or ""
    if dsn and "=" not in dsn and "://" not in dsn:
        dsn = make_conninfo(dbname=dsn)
    try:
        conn = psycopg.connect(dsn, autocommit=True, fallback_application_name="gw-install")
    except psycopg.Error as error:
        raise InstallError(
            f"cannot connect: {str(error).strip()} - check --dsn or the PG* variables and that the"
            " server runs; nothing was changed"
        ) from error
    conn.execute("set client_encoding to 'UTF8'")
    return conn


def _scripts(options: argparse.Namespace) -> Scripts:
    return Scripts(options.scripts)


def _out(options: argparse.Namespace, value: Any, text: str) -> None:
    if options.json:
        plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        print(json.dumps(plain, indent=2, default=str, ensure_ascii=False))
    elif text:
        print(text)


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
    _out(options, report, text)
    return 0


def _files(options: argparse.Namespace) -> int:
    scripts = _scripts(options)
    if options.action == "control-path":
        line = files.control_path(options.directory, scripts)
        _out(options, {"setting": line}, line)
        return 0
    ways = [options.pg_config, options.sharedir, options.directory]
    if any(ways) and options.dsn == os.environ.get("GW_DSN"):
        options.dsn = None  # set for the other commands
    if sum(way is not None for way in [*ways, options.dsn]) != 1:
        raise InstallError("say which server: one of --pg-config, --sharedir, --dsn, --directory")
    if options.pg_config:
        folder = files.folder_of_pg_config(options.pg_config)
    elif options.dsn is not None:
        with _connect(options) as conn:
            folder = files.folder_of_server(conn)
    else:
        folder = (options.sharedir or options.directory) / "extension"
    if options.directory and not options.dry_run and options.action == "put":
        folder.mkdir(parents=True, exist_ok=True)
    if options.dry_run:
        done = [folder / file.name for file in scripts.files()]
    elif options.action == "put":
        done = files.put_files(folder, destdir=options.destdir, scripts=scripts)
    else:
        done = files.remove_files(folder, destdir=options.destdir)
    verb = {"put": "put", "remove": "removed"}[options.action]
    names = [str(file) for file in done]
    _out(
        options, {verb: names}, "\n".join(f"{verb} {name}" for name in names) or "nothing to remove"
    )
    return 0


def _change(options: argparse.Namespace, act: Callable[..., install.Outcome], **more: Any) -> int:
    with _connect(options) as conn:
        outcome = act(
            conn, schema=options.schema, scripts=_scripts(options), dry_run=options.dry_run,
            patience=install.Patience(options.timeout, options.lock_timeout), **more,
        )  # fmt: skip
    return _done(options, outcome)


def _install(options: argparse.Namespace) -> int:
    return _change(options, install.install, mode=options.mode)


def _upgrade(options: argparse.Namespace) -> int:
    if not options.plan:
        return _change(options, install.upgrade, to=options.to, drain=options.drain)
    with _connect(options) as conn:
        plan = install.plan_upgrade(
            conn, to=options.to, schema=options.schema, scripts=_scripts(options)
        )
    _out(options, plan, _plan_text(plan))
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
    return _change(options, install.switch, road="plain")


def _switch(options: argparse.Namespace) -> int:
    return _change(options, install.switch, road=options.road)


def _verify(options: argparse.Namespace) -> int:
    scripts = _scripts(options)
    with _connect(options) as conn:
        drifts = verify(conn, schema=options.schema, scripts=scripts)
        if options.fix and options.dry_run:
            print("\n".join(drift.fix.rstrip(";") + ";" for drift in drifts if drift.fix))
            return DRIFT if drifts else 0
        if options.fix and drifts:
            left = repair(conn, drifts, schema=options.schema, scripts=scripts)
            if not options.json:
                print(f"Repaired {len(drifts) - len(left)} of {len(drifts)} drifts.")
            drifts = left
    lines = [f"{drift.what} {drift.problem}{_remedy(drift)}" for drift in drifts]
    _out(options, [asdict(drift) for drift in drifts], "\n".join(lines) or "No drift.")
    return DRIFT if drifts else 0


def _remedy(drift: Any) -> str:
    return " (--fix repairs it)" if drift.fix else f" ({drift.remedy})"


def _status(options: argparse.Namespace) -> int:
    scripts = _scripts(options)
    with _connect(options) as conn:
        found = state.detect(conn, options.schema, scripts)
        report: dict[str, Any] = {
            "schema": found.schema,
            "road": found.road,
            "version": found.version,
            "revision": found.revision,
            "known": scripts.versions(),
            "offered": state.offered(conn),
            "server": conn.info.server_version,
            "jobs": None,
        }
        if found.road in ("extension", "plain"):
            report["jobs"] = asdict(state.counts(conn, found))
    lines = [f"{name:10}{_line(value)}" for name, value in report.items()]
    _out(options, report, "\n".join(lines))
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
    with _connect(options) as conn:
        return _done(
            options,
            install.grant(
                conn, options.role, level, schema=options.schema, scripts=_scripts(options),
                dry_run=options.dry_run,
            ),
        )  # fmt: skip


def _sql(options: argparse.Namespace) -> int:
    text = install.offline_sql(
        options.what, road=options.road, schema=options.schema, old=options.old, to=options.to,
        scripts=_scripts(options),
    )  # fmt: skip
    _out(options, {"sql": text}, text.rstrip("\n"))
    return 0


def _pg_tle(options: argparse.Namespace) -> int:
    ident = quote_ident(SCHEMA)
    text = _scripts(options).pg_tle() + (
        f"\n-- Then: create schema {ident}; create extension {SCHEMA} schema {ident};"
    )
    _out(options, {"sql": text}, text)
    return 0


def main(args: list[str] | None = None) -> int:
    """Run a command; return its exit code."""
    options = build_parser().parse_args(args)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader had enough, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (GraphileWorkerError, ValueError, psycopg.Error) as error:
        if options.verbose:
            traceback.print_exc()
        causes, cause = [str(error).strip()], error.__cause__
        while cause is not None:
            first = str(cause).strip().splitlines()[:1]
            causes += [line for line in first if line not in causes[0]]
            cause = cause.__cause__
        print("gw-install: " + "\n  because: ".join(causes), file=sys.stderr)
        return BUSY if isinstance(error, BusyError) else 1
    return code


if __name__ == "__main__":
    sys.exit(main())
