"""Start the page's server: Streamlit with its settings, the routes of files, and the access checks."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vtg.errors import VtgError

from . import backend as backend_module
from .backend import Backend
from .options import Options
from .origins import OwnAddresses
from .sign_in import SignIn
from .theme import THEME

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["make_app", "open_port", "serve"]

SETTINGS: dict[str, object] = {
    "browser.gatherUsageStats": False,
    "client.showErrorDetails": "none",
    "client.toolbarMode": "viewer",
    "global.developmentMode": False,
    "global.disableWidgetStateDuplicationWarning": True,  # see `page_state.widget_default`
    "logger.level": "error",
    "runner.magicEnabled": False,
    "server.baseUrlPath": "",
    "server.enableCORS": True,
    "server.enableStaticServing": False,
    # Protects Streamlit's own uploads, which the page does not use; `guard` checks the origin of requests.
    "server.enableXsrfProtection": False,
    "server.fileWatcherType": "none",
    "server.headless": True,
    "server.maxUploadSize": 1,  # MB: uploads have a route of their own
    **THEME,
}
PAGES = ("search", "video", "library", "models")
STOP_SECONDS = 2  # for responses that are being sent when the server stops


def make_app(options: Options, port: int) -> ASGIApp:
    """The page as an ASGI application, for the backend set by `backend.use`.

    Args:
        options: how the page was started.
        port: on which it is served.

    Raises:
        VtgError: one of the allowed host names is invalid.
    """
    # The script imports this package by name, from any working directory.
    home = str(Path(__file__).resolve().parent.parent)
    if home not in sys.path:
        sys.path.insert(0, home)
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route
    from streamlit import config
    from streamlit.starlette import App

    from .guard import Guard
    from .media import media_routes
    from .uploads import upload_route

    own = OwnAddresses(options.host, port, options.allow_hosts)
    settings = SETTINGS | {"server.port": port, "browser.serverPort": port}
    config.get_config_options(force_reparse=True, options_from_flags=settings)
    # Last, because Streamlit answers unknown addresses with its page.
    nothing = Route("/vtg/{rest:path}", lambda _: PlainTextResponse("there is no such file", 404))
    routes = [*media_routes(backend_module.current), upload_route(backend_module.current), nothing]
    app: ASGIApp = App(Path(__file__).with_name("app.py"), routes=routes)
    return Guard(app, own, PAGES, SignIn(options.password, f"vtg_{port}") if options.password else None)


def open_port(host: str, port: int) -> socket.socket:
    """Open a listening socket, so that a port in use is reported before anything is loaded.

    Args:
        host: a name or address of this machine.
        port: 0 for any free port.

    Raises:
        VtgError: the address is invalid or in use.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise VtgError(f"{host}: is not an address of this machine ({error.strerror}); leave --host out") from None
    try:
        if os.name != "nt":  # on Windows it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise VtgError(f"{host}:{port}: cannot be listened on ({error.strerror}); choose another --port") from None
    return listener


def serve(backend: Backend, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Serve the page until the process is stopped.

    Args:
        backend: the library and its model.
        listener: from `open_port`.
        ready: called once the page can be reached.
    """
    import uvicorn

    from .connections import MAX_CONNECTIONS, BoundedProtocol
    from .socket_messages import MAX_MESSAGE_BYTES
    from .uploads import delete_abandoned_uploads

    backend_module.use(backend)
    delete_abandoned_uploads(backend.uploads)
    config = uvicorn.Config(
        make_app(backend.options, listener.getsockname()[1]),
        http=BoundedProtocol,
        limit_concurrency=MAX_CONNECTIONS,
        ws_max_size=MAX_MESSAGE_BYTES,
        log_config=None,  # Streamlit has configured logging
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,  # do not wait for long downloads
    )
    server = uvicorn.Server(config)

    def wait_until_started() -> None:
        while not server.started and not server.should_exit:
            threading.Event().wait(0.05)
        if server.started:
            ready()

    # uvicorn logs a refused WebSocket as an error of the application.
    logging.getLogger("uvicorn.error").addFilter(lambda record: "completing handshake" not in str(record.msg))
    threading.Thread(target=wait_until_started, name="vtg-ready", daemon=True).start()
    server.run(sockets=[listener])
