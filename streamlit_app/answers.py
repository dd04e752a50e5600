"""What every answer of the page tells a browser: which content may be used, and that no other site may show it."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Message

__all__ = ["HEADERS", "with_headers"]


@cache
def _inline_scripts() -> str:
    """The hashes of the scripts that Streamlit writes into its HTML, as a policy names them."""
    import streamlit

    html = (Path(streamlit.__file__).parent / "static" / "index.html").read_text("utf-8")
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)


def _policy() -> str:
    """The Content-Security-Policy: nothing but the page's own, and each exception with its reason."""
    parts = {
        "default-src": "'none'",
        # Streamlit runs each component's script from a blob that it makes of the text that this server has sent.
        "script-src": f"'self' blob: {_inline_scripts()}",
        # Streamlit and the components write style elements; a style can run nothing.
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data: blob:",  # icons within style sheets, pictures that a visitor has chosen
        "media-src": "'self'",
        "font-src": "'self' data:",  # of the table's cells
        "connect-src": "'self'",  # the socket, uploads
        "manifest-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in parts.items())


HEADERS: tuple[tuple[bytes, bytes], ...] = tuple(
    (name.encode(), value.encode())
    for name, value in {
        "content-security-policy": _policy(),
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "same-origin",  # the page's addresses hold questions, and those of files a secret
        "cross-origin-resource-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
    }.items()
)
_REPLACED = frozenset(name for name, _ in HEADERS) | {b"server"}


def with_headers(message: Message) -> Message:
    """The start of an answer with the headers of all answers, and without those that let other sites read it."""
    kept = [
        (name, value)
        for name, value in message.get("headers", ())
        if name.lower() not in _REPLACED and not name.lower().startswith(b"access-control-")
    ]
    return {**message, "headers": [*kept, *HEADERS]}
