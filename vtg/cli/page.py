"""The command `vtg ui`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from vtg.cli.console import messages
from vtg.cli.options import (
    DeviceOption,
    LanguageOption,
    LibraryOption,
    ModelOption,
    PretrainedOption,
    selected_model,
)
from vtg.errors import VtgError

__all__ = ["add_page_command"]

PORT = 8501
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # addresses to listen on, and to connect to


def add_page_command(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog="Example: vtg ui --library holidays.vtg --root ~/Videos")(ui)


def ui(
    library: LibraryOption = None,
    roots: Annotated[
        list[Path] | None,
        typer.Option("--root", help="Folder that visitors may add videos from; may be given several times."),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 for any free one.")] = PORT,
    host: Annotated[
        str, typer.Option("--host", help="0.0.0.0 allows other machines; every visitor can see all videos.")
    ] = "127.0.0.1",
    allow_hosts: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            help="A further name that the page is reached under, such as that of a proxy before it; may be given "
            "several times. All others are refused.",
            metavar="NAME[:PORT]",
        ),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(
            "--password-file",
            help="File whose first line is a password that visitors have to give; VTG_PASSWORD in the environment "
            "may hold it instead.",
        ),
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in a browser.")] = True,
    upload_gb: Annotated[
        float, typer.Option("--upload-limit", min=0.0, help="Largest upload, GB; 0 takes none.")
    ] = 4.0,
    model: ModelOption = None,
    pretrained: PretrainedOption = None,
    language: LanguageOption = None,
    device: DeviceOption = None,
) -> None:
    """Serve a web page for a library: search, watch, cut, index."""
    for root in roots or []:
        if not root.is_dir():
            raise VtgError(f"{root}: not a folder; give a folder that videos may be added from")
    try:
        from streamlit_app.backend import Backend, Options
        from streamlit_app.origins import is_local
        from streamlit_app.server import open_port, serve
        from streamlit_app.sign_in import read_password
    except ModuleNotFoundError as error:
        raise VtgError(f"the page needs {error.name}, which is not installed; run: pip install vtground") from None

    spec = selected_model(library, model, None, pretrained, None)
    password = read_password(password_file, os.environ)
    listener = open_port(host, port)
    if password is None and not is_local(host):
        messages.print(
            "vtg: anyone who reaches this machine sees all videos: give the page a password with --password-file",
            soft_wrap=True,
        )
    options = Options(
        library,
        tuple(roots or ()),
        spec,
        device,
        int(upload_gb * 1e9),
        host=host,
        allow_hosts=tuple(allow_hosts or ()),
        password=password,
        language=language,
    )
    backend = Backend(options)
    address = f"http://{EVERYWHERE.get(host, host)}:{listener.getsockname()[1]}"

    def ready() -> None:
        messages.print(f"vtg: {backend.library.folder} at {address}, until Ctrl-C", markup=False, soft_wrap=True)
        if browser:
            import webbrowser

            webbrowser.open(address)

    serve(backend, listener, ready)
