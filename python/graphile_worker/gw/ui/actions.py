"""Each action asks, says what will happen to how many jobs, and leaves a line in the log."""

from __future__ import annotations

import json
import logging
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from graphile_worker.errors import AccessDenied
from graphile_worker.gw.queue import Queue
from graphile_worker.gw.ui.action import Values
from graphile_worker.gw.ui.job_actions import JOB_ACTIONS
from graphile_worker.gw.ui.pages import source_of
from graphile_worker.gw.ui.queue_actions import QUEUE_ACTIONS
from graphile_worker.gw.ui.security import form_of, root_of
from graphile_worker.gw.ui.site import Site, Source, did

audit = logging.getLogger("graphile_worker.audit")

ACTIONS = JOB_ACTIONS | QUEUE_ACTIONS
#: After them the job has no page any more, unless history is kept.
_ENDING = ("cancel", "complete", "discard")


async def endpoint(request: Request) -> Response:
    """Ask before an action, or do it."""
    source = source_of(request)
    name = request.path_params["action"]
    if name not in ACTIONS:
        raise HTTPException(404, f"There is no action {name!r}.")
    form: Values | None = None
    if request.method == "POST":
        form = await form_of(request)
        if form is None:
            raise HTTPException(
                403, "The form has expired: go back, reload the page, and try again."
            )
    return await run_in_threadpool(_respond, request, source, name, form)


def _respond(request: Request, source: Source, name: str, form: Values | None) -> Response:
    site: Site = request.app.state.site
    action = ACTIONS[name]
    referer = request.headers.get("referer", "")
    with source.opened() as queue:
        if not site.can_act(queue):
            raise AccessDenied(
                "this dashboard only reads: it was started with --read-only, or its database role"
                " has not the level admin (`gw-install grant ROLE admin`)"
            )
        if form is not None:
            return _done(request, source, queue, name, form)
        known = {*action.names, *(field.name for field in action.fields)}
        values = {key: text for key, text in request.query_params.items() if key in known}
        with queue.limited(read_only=True):
            says = action.says(queue, values)
    return site.page(
        request, "confirm.html", source=source, title=action.title, can_act=True, action=action,
        name=name, values=values, says=says, back=_back(request, referer),
    )  # fmt: skip


def _done(request: Request, source: Source, queue: Queue, name: str, form: Values) -> Response:
    values = {key: text for key, text in form.items() if key != "back"}
    line = {"user": request.state.user, "action": name, "database": source.name, **values}
    if "payload" in line:
        line["payload"] = f"{len(values['payload'])} characters"
    try:
        with queue.limited():
            text = ACTIONS[name].do(queue, values)
    except Exception as error:
        audit.warning("%s", _line({**line, "refused": str(error)}))
        raise
    audit.info("%s", _line({**line, "done": text}))
    source.cache.clear()
    back = _back(request, form.get("back", ""))
    if name in _ENDING:
        back = back.removesuffix(f"/{values.get('id')}")
    response = RedirectResponse(back, 303)
    did(request, response, text)
    return response


def _line(values: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in values.items() if value not in ("", None)})


def _back(request: Request, wanted: str) -> str:
    """Return where to go on: a page of this dashboard that was shown before, else the overview."""
    root = f"{root_of(request)}/{request.path_params['database']}/"
    here = f"{request.url.scheme}://{request.url.netloc}"
    path = wanted.removeprefix(here)
    return path if path.startswith(root) and "/do/" not in path and "\\" not in path else root
