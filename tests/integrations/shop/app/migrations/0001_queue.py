"""Install the queue."""

from __future__ import annotations

from django.db import migrations
from graphile_worker.django import InstallGraphileWorker


class Migration(migrations.Migration):
    """The first one."""

    operations = (InstallGraphileWorker(mode="plain"),)
