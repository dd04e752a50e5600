"""HTTP headers of all responses: a Content-Security-Policy, and no access from other sites."""

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
    """Hashes of the inline scripts in Streamlit's HTML, in the syntax of the policy."""
    import streamlit

    html = (Path(streamlit.__file__).parent / "static" / "index.html").read_text("utf-8")
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)


def _policy() -> str:
    """The Content-Security-Policy: only content of the page itself, with a reason for each exception."""
    parts = {
        "default-src": "'none'",
        # Streamlit runs a component's script from a blob that it makes from the server's text.
        "script-src": f"'self' blob: {_inline_scripts()}",
        # Streamlit and the components write style elements, which cannot run code.
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
        "referrer-policy": "same-origin",  # URLs of pages contain queries, and those of files a secret
        "cross-origin-resource-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
    }.items()
)
_REPLACED = frozenset(name for name, _ in HEADERS) | {b"server"}


def with_headers(message: Message) -> Message:
    """Add the headers to the start of a response, and remove those that allow access from other sites."""
    kept = [
        (name, value)
        for name, value in message.get("headers", ())
        if name.lower() not in _REPLACED and not name.lower().startswith(b"access-control-")
    ]
    return {**message, "headers": [*kept, *HEADERS]}
