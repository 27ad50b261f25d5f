"""Make, change and remove the queue of a database: the functions under ``gw-install``.

Each takes the caller's own psycopg connection and is one transaction; within a transaction of the
caller's it is a savepoint and commits nothing. Each is safe to run again and by many at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphile_worker import lazy

if TYPE_CHECKING:
    from graphile_worker.install.actions import install, uninstall, upgrade
    from graphile_worker.install.adoption import adopt, release, switch
    from graphile_worker.install.comparison import Drift
    from graphile_worker.install.dependants import Plan, plan_upgrade
    from graphile_worker.install.grants import grant
    from graphile_worker.install.inspect import detect
    from graphile_worker.install.packaging.offline import offline_sql
    from graphile_worker.install.routes import set_up_routes
    from graphile_worker.install.transaction import LockRetries, Outcome
    from graphile_worker.install.verification import repair, verify

__all__ = [
    "Drift", "LockRetries", "Outcome", "Plan", "adopt", "detect", "grant", "install", "offline_sql",
    "plan_upgrade", "release", "repair", "set_up_routes", "switch", "uninstall", "upgrade",
    "verify",
]  # fmt: skip

_HOMES = {
    **dict.fromkeys(["install", "uninstall", "upgrade"], "actions"),
    **dict.fromkeys(["adopt", "release", "switch"], "adoption"),
    **dict.fromkeys(["Plan", "plan_upgrade"], "dependants"),
    "Drift": "comparison",
    "grant": "grants",
    "detect": "inspect",
    "offline_sql": "packaging.offline",
    "set_up_routes": "routes",
    **dict.fromkeys(["LockRetries", "Outcome"], "transaction"),
    **dict.fromkeys(["repair", "verify"], "verification"),
}

__getattr__ = lazy.attributes(__name__, _HOMES)
