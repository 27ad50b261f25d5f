"""Make, change and remove the queue of a database: the functions under ``gw-install``.

Each takes the caller's own psycopg connection and is one transaction; within a transaction of the
caller's it is a savepoint and commits nothing. Each is safe to run again and by many at once.
"""

from graphile_worker.install.actions import install, uninstall, upgrade
from graphile_worker.install.adopt import adopt, release, switch
from graphile_worker.install.dependants import Plan, plan_upgrade
from graphile_worker.install.grants import grant
from graphile_worker.install.inspect import detect
from graphile_worker.install.packaging.offline import offline_sql
from graphile_worker.install.transaction import Outcome, Patience
from graphile_worker.install.verify import Drift, repair, verify

__all__ = [
    "Drift", "Outcome", "Patience", "Plan", "adopt", "detect", "grant", "install", "offline_sql",
    "plan_upgrade", "release", "repair", "switch", "uninstall", "upgrade", "verify",
]  # fmt: skip
