"""Sign in with the page's password: a form without scripts, session cookies, and limits on attempts."""

from __future__ import annotations

import hashlib
import hmac
import html
import ipaddress
import os
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote

from vtg.errors import VtgError

from .theme import ACCENT

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["PATH", "VARIABLE", "SignIn", "read_password"]

PATH = "/sign-in"
VARIABLE = "VTG_PASSWORD"
MAX_PASSWORD_BYTES = 1024  # bytes
MAX_FORM_BYTES = 8192  # bytes
FORM_SECONDS = 10.0  # for sending the form
SIGNED_IN_SECONDS = 7 * 86_400.0
MAX_SESSIONS = 1000  # the oldest have to sign in again
WINDOW_SECONDS = 60.0
TRIES, TRIES_OF_ALL = 5, 100  # per window: of one address, and of all addresses
MAX_ADDRESSES = 10_000  # of which attempts are counted


def read_password(file: Path | None, environment: Mapping[str, str]) -> str | None:
    """Read the password from the first line of a file, or from the environment; None where neither is given.

    Raises:
        VtgError: the file cannot be read, or the password is empty or too long.
    """
    if file is None:
        if (password := environment.get(VARIABLE)) is None:
            return None
        source = VARIABLE
    else:
        source = str(file)
        try:
            with file.open(encoding="utf-8-sig") as lines:
                password = lines.readline(MAX_PASSWORD_BYTES + 2).rstrip("\r\n")
        except OSError as error:
            raise VtgError(f"{file}: cannot be read ({error.strerror}): name a file with the password") from None
        except UnicodeDecodeError:
            raise VtgError(f"{file}: is not text: write the password into it as UTF-8") from None
    if not password.strip():
        raise VtgError(f"{source}: the password is empty; write one into its first line, or leave it out")
    if len(os.fsencode(password)) > MAX_PASSWORD_BYTES:
        raise VtgError(f"{source}: a password has {MAX_PASSWORD_BYTES} bytes at most; choose a shorter one")
    return password


class SignIn:
    """Password check and sessions of the page.

    Args:
        password: of the page.
        name: of the cookie; each page on a machine needs its own, because cookies are shared between ports.
        clock: returns seconds.
    """

    def __init__(self, password: str, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._key = secrets.token_bytes(32)
        self._expected = self._digest(password)
        self._name = name
        self._clock = clock
        self._visits: OrderedDict[str, float] = OrderedDict()  # expiry times by digest of the token
        self._tries: OrderedDict[str, deque[float]] = OrderedDict()  # by address
        self._all_tries: deque[float] = deque()

    def is_signed_in(self, cookies: Mapping[str, str]) -> bool:
        """Whether the cookies belong to a session that has signed in."""
        ends = self._visits.get(self._digest(cookies.get(self._name, "")).hex())
        return ends is not None and self._clock() < ends

    async def answer(self, request: Request) -> Response:
        """Process the form that `form` shows."""
        from anyio import fail_after
        from starlette.responses import RedirectResponse

        body = bytearray()
        try:
            with fail_after(FORM_SECONDS):
                async for block in request.stream():
                    body += block
                    if len(body) > MAX_FORM_BYTES:
                        return self.form(request, "This password is too long.", 413)
        except TimeoutError:
            return self.form(request, "The form was not sent in time: try again.", 408)
        fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=None)
        if (wait := self._wait(request.client.host if request.client else "")) > 0:
            answer = self.form(request, f"Too many attempts: wait {wait:.0f} s.", 429)
            answer.headers["Retry-After"] = f"{wait:.0f}"
            return answer
        if not hmac.compare_digest(self._digest(fields.get("password", [""])[0]), self._expected):
            return self.form(request, "Wrong password: try again.", 401, fields.get("to", ["/"])[0])
        answer = RedirectResponse(_own_path(fields.get("to", ["/"])[0]), 303)
        answer.set_cookie(
            self._name, self._begin(), httponly=True, samesite="strict", secure=request.url.scheme == "https"
        )
        return answer

    def form(self, request: Request, error: str = "", status: int = 401, to: str | None = None) -> Response:
        """The page with the password form.

        Args:
            request: to which it is the response.
            error: error of the last attempt; "" for none.
            status: of the response.
            to: address to go to after signing in; None for that of the request.
        """
        from starlette.responses import HTMLResponse

        if to is None:
            query = f"?{request.url.query}" if request.url.query else ""
            to = "/" if request.url.path == PATH else quote(request.url.path) + query
        # Browsers omit the cookie when they follow a link from another site: reload the page from here.
        again = request.headers.get("sec-fetch-site") in ("cross-site", "same-site") and request.method == "GET"
        text = _PAGE.format(
            refresh=f'<meta http-equiv="refresh" content="0;url={html.escape(_own_path(to))}">' if again else "",
            error=f'<p role="alert">{html.escape(error)}</p>' if error else "",
            to=html.escape(_own_path(to)),
            path=PATH,
            light=ACCENT["light"],
            dark=ACCENT["dark"],
        )
        return HTMLResponse(text, status, {"Cache-Control": "no-store"})

    def _begin(self) -> str:
        token = secrets.token_urlsafe(32)
        self._visits[self._digest(token).hex()] = self._clock() + SIGNED_IN_SECONDS
        while len(self._visits) > MAX_SESSIONS:
            self._visits.popitem(last=False)
        return token

    def _wait(self, address: str) -> float:
        """Count an attempt of an address; return the seconds it has to wait before the next one, 0 for none."""
        now = self._clock()
        own = self._tries.setdefault(_network(address), deque())
        self._tries.move_to_end(_network(address))
        while len(self._tries) > MAX_ADDRESSES:
            self._tries.popitem(last=False)
        waits = []
        for tries, most in ((own, TRIES), (self._all_tries, TRIES_OF_ALL)):
            while tries and now - tries[0] >= WINDOW_SECONDS:
                tries.popleft()
            if len(tries) >= most:
                waits.append(tries[0] + WINDOW_SECONDS - now)
        if waits:
            return max(1.0, *waits)
        own.append(now)
        self._all_tries.append(now)
        return 0.0

    def _digest(self, text: str) -> bytes:
        """A keyed digest, which is compared instead of the text."""
        return hmac.digest(self._key, text.encode("utf-8", "surrogatepass"), hashlib.sha256)


def _network(address: str) -> str:
    """The part of an address that identifies a visitor: for IPv6 the /64 network, which usually has one owner."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _own_path(to: str) -> str:
    """A safe redirect target after signing in: only addresses of this page."""
    printable = to.isascii() and to.isprintable() and " " not in to
    return to if printable and to.startswith("/") and not to.startswith("//") and "\\" not in to else "/"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sign in · vtg</title>{refresh}<style>
:root {{ color-scheme: light dark; --accent: light-dark({light}, {dark}); }}
body {{ margin: 0; min-height: 100vh; display: grid; place-items: center; font: 1rem/1.5 system-ui, sans-serif; }}
body {{ background: light-dark(#fdfcfa, #161412); color: light-dark(#201d1a, #efebe4); }}
form {{ display: grid; gap: 0.75rem; width: min(22rem, 90vw); }}
h1 {{ font-size: 1.4rem; margin: 0; }}
input, button {{ font: inherit; padding: 0.6rem 0.8rem; border-radius: 0.6rem; border: 1px solid #8b8378; }}
input {{ background: transparent; color: inherit; }}
button {{ background: var(--accent); border-color: var(--accent); color: white; cursor: pointer; }}
p {{ margin: 0; color: var(--accent); }}
</style></head><body>
<form method="post" action="{path}">
<h1>This page needs a password</h1>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" autofocus required>
<input type="hidden" name="to" value="{to}">{error}
<button>Sign in</button>
</form></body></html>
"""
