"""Starts the page: Streamlit with settings for a tool that runs for hours, and the addresses of files beside it."""

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

from . import backend as backend_room
from .backend import Backend
from .look import THEME
from .options import Options
from .origins import OwnAddresses
from .sign_in import SignIn

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["make_app", "open_port", "serve"]

SETTINGS: dict[str, object] = {
    "browser.gatherUsageStats": False,
    "client.showErrorDetails": "none",
    "client.toolbarMode": "viewer",
    "global.developmentMode": False,
    "global.disableWidgetStateDuplicationWarning": True,  # see `visit.initial`
    "logger.level": "error",
    "runner.magicEnabled": False,
    "server.baseUrlPath": "",
    "server.enableCORS": True,
    "server.enableStaticServing": False,
    # It is for a way of uploading that the page does not have; `guard` sees to where requests come from.
    "server.enableXsrfProtection": False,
    "server.fileWatcherType": "none",
    "server.headless": True,
    "server.maxUploadSize": 1,  # MB: files come by an address of our own
    **THEME,
}
PAGES = ("search", "video", "library", "models")
STOP_SECONDS = 2  # that a film which is being sent gets when the server is told to stop


def make_app(options: Options, port: int) -> ASGIApp:
    """The whole page as an ASGI application; `backend.use` says what it shows.

    Args:
        options: how the page was started.
        port: that it will be reached at.

    Raises:
        VtgError: a name that the page may be reached under is none.
    """
    # The script imports this package by name, wherever it is started from.
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
    # Last: for what Streamlit has no file of it answers with its page, as if it were there.
    nothing = Route("/vtg/{rest:path}", lambda _: PlainTextResponse("there is no such file", 404))
    routes = [*media_routes(backend_room.current), upload_route(backend_room.current), nothing]
    app: ASGIApp = App(Path(__file__).with_name("app.py"), routes=routes)
    return Guard(app, own, PAGES, SignIn(options.password, f"vtg_{port}") if options.password else None)


def open_port(host: str, port: int) -> socket.socket:
    """A socket that listens already, so that a taken port is known before anything is loaded.

    Args:
        host: a name or address of this machine.
        port: 0 for any that is free.

    Raises:
        VtgError: it cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise VtgError(f"{host}: is no address of this machine ({error.strerror}); leave --host out") from None
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
    """Serve the page until the process is told to stop.

    Args:
        backend: what it shows.
        listener: from `open_port`.
        ready: called once the page can be reached.
    """
    import uvicorn

    from .connections import MOST_CONNECTIONS, BoundedProtocol
    from .messages import LARGEST_MESSAGE
    from .uploads import drop_leftovers

    backend_room.use(backend)
    drop_leftovers(backend.uploads)
    config = uvicorn.Config(
        make_app(backend.options, listener.getsockname()[1]),
        http=BoundedProtocol,
        limit_concurrency=MOST_CONNECTIONS,
        ws_max_size=LARGEST_MESSAGE,
        log_config=None,  # Streamlit has set the logs up
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,  # a film that is being sent does not hold up the end
    )
    server = uvicorn.Server(config)

    def tell() -> None:
        while not server.started and not server.should_exit:
            threading.Event().wait(0.05)
        if server.started:
            ready()

    # uvicorn takes a refused socket for a mistake of the page.
    logging.getLogger("uvicorn.error").addFilter(lambda record: "completing handshake" not in str(record.msg))
    threading.Thread(target=tell, name="vtg-ready", daemon=True).start()
    server.run(sockets=[listener])
