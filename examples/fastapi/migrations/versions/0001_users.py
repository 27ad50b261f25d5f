"""The table of users, and the queue."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table("users", sa.Column("name", sa.Text, primary_key=True))
    op.install_graphile_worker(mode="plain")  # type: ignore[attr-defined]


def downgrade() -> None:
    op.uninstall_graphile_worker(with_jobs=True)  # type: ignore[attr-defined]
    op.drop_table("users")
