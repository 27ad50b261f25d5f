"""Who may see the dashboard, and which requests may act: hosts, tokens, cookies, headers."""

from __future__ import annotations

import hashlib
import hmac
import inspect
import ipaddress
import secrets
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import parse_qsl, quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Takes a request of the mounting application; returns who makes it, or None: refused.
User = Callable[[Request], "str | Awaitable[str | None] | None"]

SESSION, CSRF, DID = "gw_session", "gw_csrf", "gw_did"
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
#: More than any form of ours has.
MOST_BYTES, MOST_FIELDS = 2_000_000, 100
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}
#: What a proxy adds: then the address of the client is not that of the user.
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


class Guard:
    """Lets in who may see the dashboard.

    With ``user``, whom the mounting application names; with ``token``, who has logged in with it or
    sends it as a bearer token; without either, requests from this machine only. ``hosts`` are the
    names under which it is served, ``*`` any.
    """

    def __init__(
        self, app: ASGIApp, token: str | None, user: User | None, hosts: Sequence[str] | None
    ) -> None:
        self._app, self._token, self._user = app, token, user
        self._hosts = None if hosts is None else {host.lower().strip("[]") for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        request.state.csrf = request.cookies.get(CSRF) or secrets.token_urlsafe(32)
        refusal = await self._refusal(request)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(
                    (name.encode(), value.encode()) for name, value in HEADERS.items()
                    if name.encode() not in present
                )]  # fmt: skip
            await send(message)

        await (refusal or self._app)(scope, receive, with_headers)

    async def _refusal(self, request: Request) -> Response | None:
        host = (request.url.hostname or "").lower()
        if not self._is_known(host):
            return PlainTextResponse(
                f"This dashboard is not served as {host!r}: name the host with --allowed-host"
                " (hosts=[...] of app).\n", 400,
            )  # fmt: skip
        if request.method not in ("GET", "HEAD") and _is_foreign(request):
            return PlainTextResponse("The request came from another site.\n", 403)
        request.state.user = await self._named(request)
        path = request.url.path.removeprefix(root_of(request))
        if request.state.user is not None or path == "/healthz":
            return None
        if self._token is None:
            return PlainTextResponse(_WHY_NOT if self._user is None else "Not allowed.\n", 403)
        if path == "/login" or path.startswith("/static/"):
            return None
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            query = f"?{request.url.query}" if request.url.query else ""
            root = root_of(request)
            return RedirectResponse(f"{root}/login?next={quote(path + query)}", 303)
        return PlainTextResponse("Log in, or send the token as a bearer token.\n", 401)

    def _is_known(self, host: str) -> bool:
        if self._hosts is not None:
            return "*" in self._hosts or host in self._hosts
        if self._user is not None or self._token is not None:
            return True  # what a rebound name would read is behind a cookie of the right name
        return host in LOOPBACK_NAMES

    async def _named(self, request: Request) -> str | None:
        if self._user is not None:
            found = await run_in_threadpool(self._user, request)
            return await found if inspect.isawaitable(found) else found
        if self._token is not None:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() == "bearer" and is_same(given.strip(), self._token):
                return "token"
            if is_same(request.cookies.get(SESSION, ""), session_of(self._token)):
                return "token"
            return None
        client = request.client.host if request.client else ""
        if any(name in request.headers for name in _FORWARDED) or not is_loopback(client):
            return None
        return "local"


_WHY_NOT = (
    "Without a token this dashboard is only served to the machine it runs on, and to no proxy:"
    " start it with --token, or mount it with user=... and your own login.\n"
)


def root_of(request: Request) -> str:
    """Return the path under which the dashboard is mounted, without a slash at the end."""
    root: str = request.scope.get("root_path", "")
    return root


def is_loopback(address: str) -> bool:
    """Return whether an address or name is this machine's own."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def is_same(given: str, right: str) -> bool:
    """Compare secrets in the same time, whatever is given."""
    return hmac.compare_digest(given.encode(), right.encode())


def session_of(token: str) -> str:
    """Return the cookie of those who have logged in with the token."""
    return hmac.new(token.encode(), b"graphile_worker dashboard", hashlib.sha256).hexdigest()


def _is_foreign(request: Request) -> bool:
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    is_other = origin is not None and urlsplit(origin).netloc != request.headers.get("host")
    return site not in ("same-origin", "none") or is_other


async def form_of(request: Request) -> dict[str, str] | None:
    """Return the fields of a form that one of our pages sent, else None."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            return None
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        return None
    fields = dict(pairs)
    sent, kept = fields.pop("csrf", ""), request.cookies.get(CSRF, "")
    return fields if kept and is_same(sent, kept) else None


def set_cookie(request: Request, response: Response, name: str, value: str, age: int) -> None:
    """Set a cookie that scripts and other sites do not get; without a value, delete it."""
    root = root_of(request) or "/"
    response.set_cookie(
        name, value, max_age=age if value else 0, path=root, httponly=True,
        secure=request.url.scheme == "https", samesite="lax" if name == SESSION else "strict",
    )  # fmt: skip
