"""Tasks of the project."""

from __future__ import annotations

from django.db import connection
from graphile_worker.django import cron

try:
    from django.tasks import task
except ImportError:
    from django_tasks import task


class PaymentError(Exception):
    """The card was declined."""


@task
def add(a, b=0):
    """Return the sum."""
    return a + b


@task
async def add_async(a, b):
    """Return the sum, in the loop."""
    return a + b


@task(takes_context=True)
def flaky(context, until):
    """Fail until an attempt."""
    if context.attempt < until:
        raise PaymentError(f"attempt {context.attempt}")
    with connection.cursor() as cursor:
        cursor.execute("select 1")
    return context.attempt


@task
def returns_a_set():
    """Return what JSON has not."""
    return {1}


@cron("* * * * *", kwargs={"a": 20}, fill="2m")
@task(priority=7)
def every_minute(a):
    """Run by itself."""
    return a
