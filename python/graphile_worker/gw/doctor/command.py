"""gw doctor: find problems of a queue, say how to fix them, and fix what is safe."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from graphile_worker.cli import flags
from graphile_worker.cli.flags import Parser
from graphile_worker.errors import AccessDenied, Busy
from graphile_worker.gw.doctor import checks, control_checks, server_checks, settings_check
from graphile_worker.gw.doctor.findings import Examination, Finding, SkippedError
from graphile_worker.gw.queue import connects, opened

FINDINGS = 3
Check = Callable[[Examination], list[Finding]]

#: By name, in the order of their urgency.
CHECKS: dict[str, Check] = {
    "dead-locks": checks.dead_locks,
    "stuck-queues": checks.stuck_queues,
    "failed-jobs": checks.failed_jobs,
    "tasks": checks.unknown_tasks,
    "pauses": control_checks.pauses,
    "limits": control_checks.limits,
    "schedules": control_checks.schedules,
    "history": control_checks.history,
    "queue-names": checks.many_queues,
    "drift": checks.drift,
    "vacuum": server_checks.vacuum,
    "settings": settings_check.settings,
    "old-transactions": server_checks.old_transactions,
    "sequences": server_checks.sequences,
    "notifications": server_checks.notifications,
    "clock": server_checks.clock,
    "pooler": server_checks.pooler,
}
#: It compares what several transactions see, and so runs in none.
_OUTSIDE = "pooler"
#: They read what versions before 1.1.0 do not have.
_NEED_CONTROLS = ("pauses", "limits", "schedules", "history")


@dataclass
class Diagnosis:
    """The findings, the repairs, and the checks that could not be made, with the reason."""

    findings: list[Finding]
    fixed: list[str]
    skipped: dict[str, str]

    @property
    def is_alarming(self) -> bool:
        """Whether something was found that is more than advice."""
        return any(one.severity != "advice" for one in self.findings)


def examine(
    exam: Examination, *, fix: bool = False, only: Sequence[str] | None = None
) -> Diagnosis:
    """Make the checks; with ``fix`` repair what is safe, and check the repaired again."""
    found = Diagnosis([], [], {})
    for name in only or CHECKS:
        if name in _NEED_CONTROLS and not exam.queue.has_controls:
            continue
        findings = _made(exam, name, found.skipped)
        repairs = dict.fromkeys(finding.repair for finding in findings if finding.repair)
        if fix and repairs:
            try:
                for repair in repairs:
                    with exam.queue.limited():
                        told = repair(exam.queue)
                    if told:
                        found.fixed.append(told)
            except (AccessDenied, Busy) as error:
                found.skipped[name] = f"not repaired: {error}"
            findings = _made(exam, name, found.skipped)
        found.findings += findings
    return found


def _made(exam: Examination, name: str, skipped: dict[str, str]) -> list[Finding]:
    """Make one check; report it as skipped if it cannot be made here."""
    try:
        if name == _OUTSIDE:
            return CHECKS[name](exam)
        # The comparison makes temporary objects.
        with exam.queue.limited(read_only=name != "drift"):
            return CHECKS[name](exam)
    except (SkippedError, AccessDenied, Busy) as error:
        skipped[name] = str(error)
    except psycopg.Error as error:
        if exam.queue.conn.broken:
            raise
        skipped[name] = " ".join(str(error).split())
    return []


def configure(parser: Parser) -> None:
    """Add the flags of gw doctor."""
    connects(parser)
    parser.add_argument(
        "--fix", action="store_true",
        help="unlock what dead workers hold, and queues of which no job is running",
    )  # fmt: skip
    flags.env(
        parser, "--check", several=True, choices=tuple(CHECKS),
        help="only this check; may be repeated",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Print the findings; return 3 where some are left that are more than advice."""
    with opened(options) as queue:
        exam = Examination(queue)
        found = examine(exam, fix=options.fix, only=options.check)
    flags.out(options, as_json(found), _as_text(found))
    return FINDINGS if found.is_alarming else 0


def as_json(found: Diagnosis) -> dict[str, Any]:
    """Return what was found as JSON has it."""
    return {
        "findings": [
            {
                "check": one.check, "severity": one.severity, "what": one.what, "why": one.why,
                "fix": one.fix, "can_fix": one.repair is not None,
            }
            for one in found.findings
        ],
        "fixed": found.fixed,
        "skipped": found.skipped,
    }  # fmt: skip


def _as_text(found: Diagnosis) -> str:
    lines = [f"Fixed: {text}." for text in found.fixed]
    for one in found.findings:
        safe = " (--fix does so)" if one.repair else ""
        lines += [
            f"{one.severity.upper()} {one.check}: {one.what}",
            f"  why: {one.why}",
            f"  fix: {one.fix}{safe}",
        ]
    lines += [f"Not checked, {name}: {why}" for name, why in found.skipped.items()]
    if not found.is_alarming:
        lines.append("Nothing is wrong." if not found.skipped else "Nothing else is wrong.")
    return "\n".join(lines)
