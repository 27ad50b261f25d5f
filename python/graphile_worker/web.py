"""The dashboard, to serve or to mount: ``web.app("postgresql:///shop")``.

It needs ``pip install 'graphile-worker[web]'``; `gw ui` serves it.
"""

from __future__ import annotations

from graphile_worker.errors import GraphileWorkerError

try:
    from graphile_worker.gw.ui.application import app
    from graphile_worker.gw.ui.site import Database
except ModuleNotFoundError as error:
    if error.name not in ("starlette", "jinja2"):
        raise
    raise GraphileWorkerError(
        "the dashboard needs starlette: run `pip install 'graphile-worker[web]'`"
    ) from error

__all__ = ["Database", "app"]
