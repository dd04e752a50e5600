"""Check every HTTP request and WebSocket before the page gets it: host, origin, address, and sign-in.

Every response gets the headers of `response_headers`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .origins import OwnAddresses
from .response_headers import with_headers
from .sign_in import PATH as SIGN_IN
from .sign_in import SignIn
from .socket_messages import guarded_receive, guarded_send

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard"]

SOCKET = "/_stcore/stream"
HEALTH = "/_stcore/health"
STATE = frozenset({HEALTH, "/_stcore/host-config"})
FOLDERS = ("/media/", "/vtg/")  # whose routes check the rest of the address
UPLOAD = re.compile(r"/vtg/[\w-]+/upload")
MAX_PATH_CHARACTERS = 2048  # characters
READING = ("GET", "HEAD")

UNKNOWN_HOST = (
    "This page is not served under this host name. Open the address that `vtg ui` has printed, or start it with "
    "--allow-host NAME."
)
FOREIGN = "This request comes from another site, and only the page itself may send it."


class Guard:
    """An ASGI application that checks requests and passes them on.

    Args:
        app: the page.
        own: its addresses.
        pages: names of its pages.
        sign_in: checks the password; None without one.
    """

    def __init__(self, app: ASGIApp, own: OwnAddresses, pages: Iterable[str], sign_in: SignIn | None = None) -> None:
        self._app = app
        self._own = own
        self._pages = {"/", *(f"/{page}" for page in pages)}
        self._known = self._pages | STATE | _static_files()
        self._sign_in = sign_in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or serve one socket."""
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._connect(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.requests import Request

        async def send_with_headers(message: Message) -> None:
            await send(with_headers(message) if message["type"] == "http.response.start" else message)

        request = Request(scope, receive)
        if refusal := self._refusal(request) or self._missing(request):
            await _plain(*refusal, scope, receive, send_with_headers)
        elif self._sign_in is not None and request.url.path == SIGN_IN:
            answer = await self._sign_in.answer(request) if request.method == "POST" else self._sign_in.form(request)
            await answer(scope, receive, send_with_headers)
        elif (
            self._sign_in is not None and request.url.path != HEALTH and not self._sign_in.is_signed_in(request.cookies)
        ):
            if request.url.path in self._pages and request.method in READING:
                await self._sign_in.form(request)(scope, receive, send_with_headers)
            else:
                await _plain(401, f"Sign in first: {SIGN_IN}", scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    async def _connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.requests import HTTPConnection

        connection = HTTPConnection(scope)
        refusal = self._refusal(connection)
        if refusal is None and scope["path"] != SOCKET:
            refusal = 404, "There is no such socket."
        if refusal is None and self._sign_in is not None and not self._sign_in.is_signed_in(connection.cookies):
            refusal = 401, f"Sign in first: {SIGN_IN}"
        if refusal is not None:
            await _refuse_socket(*refusal, scope, receive, send)
            return
        # Streamlit compares Origin and Host as well, and where they differ looks up this machine's address elsewhere.
        origin = f"http://{connection.headers['host']}".encode()
        headers = [(name, origin if name == b"origin" else value) for name, value in scope["headers"]]
        await self._app({**scope, "headers": headers}, guarded_receive(receive), guarded_send(send))

    def _refusal(self, connection: HTTPConnection) -> tuple[int, str] | None:
        """Status and reason of the refusal where Host or Origin is not an address of the page."""
        headers, server = connection.headers, connection.scope.get("server")
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not self._own.is_host(hosts[0], server[0] if server else None):
            return 421, UNKNOWN_HOST
        # Programs send no Origin and may read; browsers always send one with a WebSocket and with a POST.
        needed = connection.scope["type"] == "websocket" or connection.scope["method"] not in READING
        if len(origins) > 1 or (needed and not origins):
            return 403, FOREIGN
        if origins and not self._own.is_origin(origins[0], hosts[0]):
            return 403, FOREIGN
        return None

    def _missing(self, request: HTTPConnection) -> tuple[int, str] | None:
        """Status and reason of the refusal where the page does not have the address, or the method is not allowed."""
        path, method = request.scope["path"], request.scope["method"]
        if len(path) > MAX_PATH_CHARACTERS:
            return 414, "This address is too long."
        if method == "POST" and (UPLOAD.fullmatch(path) or (path == SIGN_IN and self._sign_in is not None)):
            return None
        if method not in READING:
            return 405, "This cannot be done here."
        known = path in self._known or path.startswith(FOLDERS)
        known = known or (path == SIGN_IN and self._sign_in is not None)
        return None if known else (404, "There is no such page.")


def _static_files() -> set[str]:
    """The addresses of Streamlit's static files; it answers any other address with its page."""
    import streamlit

    folder = Path(streamlit.__file__).parent / "static"
    return {f"/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*") if path.is_file()}


async def _plain(status: int, reason: str, scope: Scope, receive: Receive, send: Send) -> None:
    from starlette.responses import PlainTextResponse

    # A request body that is not read would be parsed as the next request.
    headers = {"Connection": "close"} if scope.get("method") not in READING else None
    await PlainTextResponse(reason, status, headers)(scope, receive, send)


async def _refuse_socket(status: int, reason: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a WebSocket handshake with a reason where the server supports that, and by closing it otherwise."""
    await receive()  # "websocket.connect"
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    start = {"status": status, "headers": [(b"content-type", b"text/plain; charset=utf-8")]}
    await send(with_headers({"type": "websocket.http.response.start", **start}))
    await send({"type": "websocket.http.response.body", "body": reason.encode()})
