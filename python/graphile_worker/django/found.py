"""The tasks of the project, for ``gw run graphile_worker.django.found``."""

from __future__ import annotations

import django
from django.apps import apps

if not apps.ready:
    django.setup()

from graphile_worker.django.discovery import worker_tasks

tasks = worker_tasks()
