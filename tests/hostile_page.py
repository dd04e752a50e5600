"""Web probes against a running page: the requests of scanners and of foreign sites, and what must not come of them.

`probe_page` sends them, and returns what was wrong. Nothing that it sends changes the library.
"""

from __future__ import annotations

import contextlib
import re
import time
from urllib.parse import quote, urlsplit

from probe_lists import (
    BASES,
    FOREIGN,
    HIDDEN,
    RANGES,
    REDIRECTS,
    REQUIRED_HEADERS,
    SCRIPTS,
    SECRETS,
    SLASHES,
    TARGETS,
    UP,
    VERBS,
)
from raw_http import MAX_ANSWER_BYTES, Answer, frame, handshake, is_closed, open_socket, read_answer, send

__all__ = ["probe_page"]

SLOW_SECONDS = 45.0  # within which a connection that sends no whole request has to be closed


def probe_page(address: str, token: str | None = None) -> list[str]:
    """Send all probes, and say what is wrong.

    Args:
        address: of a running page that is reached as itself, such as ``http://127.0.0.1:8501``.
        token: of its uploads, as its own uploader has it; None leaves out what only its visitors can send.

    Returns:
        A line for each finding; none where all is well.
    """
    probe = _Probe(address.rstrip("/"), token)
    for step in (probe.alive, probe.paths, probe.hosts, probe.origins, probe.verbs, probe.redirects, probe.scripts):
        step()
    for step in (probe.sizes, probe.malformed, probe.ranges, probe.sockets, probe.uploads, probe.cookies, probe.slow):
        step()
    probe.alive()
    return probe.findings


class _Probe:
    """One run of the probes against a page."""

    def __init__(self, address: str, token: str | None) -> None:
        self.address = address
        self.host = urlsplit(address).netloc
        self.token = token
        self.findings: list[str] = []

    def find(self, what: str, answer: Answer | None = None) -> None:
        """Note a finding."""
        self.findings.append(f"{what}: {answer.status} {answer.body[:80]!r}" if answer else what)

    def ask(
        self, path: str | bytes, method: str = "GET", headers: dict[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """Ask for a path, which is sent as it is, and look at what every answer must be."""
        sent = {"Host": self.host, "Connection": "close", **(headers or {})}
        if body or method in ("POST", "PUT", "PATCH"):
            sent.setdefault("Content-Length", str(len(body)))
        lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items()).encode("utf-8")
        raw = path if isinstance(path, bytes) else path.encode("utf-8")
        answer = send(self.address, method.encode() + b" " + raw + b" HTTP/1.1\r\n" + lines + b"\r\n" + body)
        self.check(f"{method} {raw[:120]!r}", answer)
        return answer

    def check(self, what: str, answer: Answer) -> None:
        """Note what no answer may have, whatever was asked."""
        if answer.status >= 500:
            self.find(f"{what} fails", answer)
        for secret in SECRETS:
            if secret in answer.text:
                self.find(f"{what} shows {secret!r}", answer)
        for name in answer.headers:
            if name.startswith("access-control-"):
                self.find(f"{what} answers with {name}: {answer.headers[name]}")
        if answer.status and not _is_of_server(answer):
            for name, form in REQUIRED_HEADERS.items():
                if not re.search(form, answer.headers.get(name, ""), re.DOTALL):
                    self.find(f"{what} answers without {name}", answer)
        if "server" in answer.headers:
            self.find(f"{what} names the server: {answer.headers['server']}")

    def alive(self) -> None:
        """The page is there."""
        if (answer := self.ask("/")).status not in (200, 401):
            self.find("the page does not answer", answer)

    def paths(self) -> None:
        """Files that are none of the page's: whatever leads up, and names that scanners try."""
        for path in HIDDEN.split():
            self._absent(path)
        for base in BASES:
            for up in UP:
                for slash in SLASHES:
                    self._absent(base + f"{up}{slash}" * 4 + TARGETS[0])
            for target in TARGETS[1:]:
                self._absent(f"{base}{'../' * 6}{target}")
                self._absent(f"{base}{quote('../' * 6 + target, safe='')}")
        for raw in (b"/\xff\xfe", b"/static/\xc0\xae\xc0\xae/", b"/%", b"/%zz", b"/%e2%80%ae", b"/media/%ed%a0%80"):
            self._absent(raw)

    def _absent(self, path: str | bytes) -> None:
        answer = self.ask(path)
        if answer.status not in (400, 401, 403, 404, 414, 421) and path not in ("/?-s",):
            self.find(f"{path[:120]!r} is answered", answer)

    def hosts(self) -> None:
        """A name that somebody else's DNS leads here (rebinding), and what is no name."""
        port = urlsplit(self.address).port or 80
        names = ("evil.example", f"evil.example:{port}", f"localhost:{port}.evil.example", "localhost:1", "127.0.0.1:1")
        names += (
            f"127.0.0.1.evil.example:{port}",
            f"user@{self.host}",
            f"{self.host}@evil.example",
            f"localhost.:{port}x",
        )
        names += (
            "",
            f":{port}",
            f"[::1]:{port}]",
            f"[::ffff:127.0.0.1]:{port}",
            f"2130706433:{port}",
            f"0x7f.1:{port}",
            f"{self.host},evil",
        )
        names += (
            f"{self.host}/x",
            f"0.0.0.0:{port}",
            f"8.8.8.8:{port}",
            f"{self.host} evil",
            "localhost:99999999",
            "localhost:-1",
        )
        for name in names:
            for path in ("/", "/_stcore/health", "/static/x.js"):
                answer = self.ask(path, headers={"Host": name})
                if answer.status not in (400, 403, 421):
                    self.find(f"Host {name!r} is answered on {path}", answer)
        forwarded = {
            "X-Forwarded-Host": "evil.example",
            "X-Forwarded-For": "127.0.0.1",
            "X-Original-URL": "/.git/config",
        }
        answer = self.ask("/", headers={**forwarded, "X-Rewrite-URL": "/.env", "Forwarded": "host=evil.example"})
        if "evil.example" in answer.text or answer.status not in (200, 401):
            self.find("forwarded headers are believed", answer)
        twice = send(self.address, f"GET / HTTP/1.1\r\nHost: {self.host}\r\nHost: evil.example\r\n\r\n".encode())
        without = send(self.address, b"GET / HTTP/1.0\r\n\r\n")
        absolute = send(self.address, b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        for what, answer in (("two Hosts", twice), ("no Host", without), ("a foreign absolute address", absolute)):
            if answer.status not in (0, 400, 403, 404, 421):
                self.find(f"{what} is answered", answer)

    def origins(self) -> None:
        """Requests that the scripts of other sites send, those of other ports of this machine among them."""
        for origin in FOREIGN:
            for method, path in (
                ("GET", "/"),
                ("GET", "/_stcore/health"),
                ("POST", "/vtg/x/upload"),
                ("POST", "/sign-in"),
            ):
                answer = self.ask(path, method, {"Origin": origin})
                if answer.status != 403:
                    self.find(f"{method} {path} from {origin} is answered", answer)
        asked = {"Origin": FOREIGN[0], "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "x"}
        answer = self.ask("/_stcore/health", "OPTIONS", asked)
        if answer.status < 400:
            self.find("a preflight is answered", answer)
        if (answer := self.ask("/", headers={"Origin": f"http://{self.host}"})).status not in (200, 401):
            self.find("its own origin is refused", answer)

    def verbs(self) -> None:
        """Methods that the page has no use for."""
        for verb in VERBS:
            for path in ("/", "/_stcore/upload_file/a/b", "/media/x", "/vtg/x/upload", "/_stcore/stream", "*"):
                answer = self.ask(path, verb, {"X-Probe": "echo-of-the-request"})
                if answer.status < 400 and answer.status:
                    self.find(f"{verb} {path} is answered", answer)
                if b"echo-of-the-request" in answer.body:
                    self.find(f"{verb} {path} echoes the request", answer)

    def redirects(self) -> None:
        """Addresses that send visitors elsewhere."""
        for path in REDIRECTS.split():
            answer = self.ask(path)
            to = answer.headers.get("location", "")
            if to and urlsplit(to.replace("\\", "/")).netloc not in ("", self.host):
                self.find(f"{path} leads to {to}")

    def scripts(self) -> None:
        """Texts that a page would run if it wrote them into its HTML."""
        for text in SCRIPTS:
            for path in (f"/?q={quote(text)}", f"/video?v={quote(text)}", f"/search?in={quote(text)}&q={quote(text)}"):
                answer = self.ask(path)
                if answer.status not in (200, 400, 401) or (set(text) & set("<>\"'") and text.encode() in answer.body):
                    self.find(f"{path} is reflected", answer)
            answer = self.ask(f"/{quote(text, safe='')}")
            if re.search(rb"<script>alert|onerror=alert|onload=alert", answer.body):
                self.find(f"{text!r} in a path is reflected", answer)
        for name in ("a\r\nSet-Cookie: x=y", "%0d%0aSet-Cookie:x=y"):
            if "x=y" in self.ask(f"/?q={quote(name)}").headers.get("set-cookie", ""):
                self.find("a header can be written by a query")

    def sizes(self) -> None:
        """Paths and headers that are longer than any that a browser sends."""
        for length in (3_000, 20_000, 200_000):
            for path in (
                f"/{'a' * length}",
                f"/?q={'a' * length}",
                "/" + "a/" * (length // 2),
                f"/media/{'%00' * (length // 3)}",
            ):
                answer = self.ask(path)
                if answer.status == 200 and not path.startswith("/?"):
                    self.find(f"a path of {length} characters is answered", answer)
            self.ask("/", headers={"X-Long": "a" * length})
            self.ask("/", headers={"Cookie": "a=b; " * (length // 6)})
        self.ask("/", headers={f"X-{number}": "x" for number in range(1_000)})

    def malformed(self) -> None:
        """Requests that two servers in a row could read differently (smuggling), and what is no HTTP."""
        host = f"Host: {self.host}\r\n"
        inner = f"GET /.smuggled HTTP/1.1\r\n{host}\r\n"
        for headers in (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            "Content-Length: 5\r\nContent-Length: 50\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Transfer-Encoding:\x0bchunked\r\n",
            " X-Folded: a\r\n",
            "X-Zero: \x00\r\n",
        ):
            for verb in ("GET", "POST"):
                answer = send(self.address, f"{verb} / HTTP/1.1\r\n{host}{headers}\r\n0\r\n\r\n{inner}".encode())
                if (verb == "POST" and 0 < answer.status < 400) or answer.status >= 500:
                    self.find(f"{verb} with {headers!r} is answered", answer)
        for request in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
            b"GET\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\0" * 1000,
        ):
            if 0 < (answer := send(self.address, request)).status < 400:
                self.find(f"{request[:20]!r} is answered", answer)

    def ranges(self) -> None:
        """Parts of files that are not there, that overlap or are many."""
        path = _static_file(self.ask("/").text) or "/favicon.png"
        whole = self.ask(path)
        for asked in RANGES:
            answer = self.ask(path, headers={"Range": asked})
            if answer.status not in (200, 206, 400, 401, 404, 416, 431):
                self.find(f"the range {asked[:40]} is answered", answer)
            length = answer.headers.get("content-length", "0")
            if len(answer.body) > 4 * len(whole.body) + 10_000 or not length.isdigit():
                self.find(f"the range {asked[:40]} is answered with more than the file", answer)

    def sockets(self) -> None:
        """Sockets from foreign origins, without an origin, under foreign names, elsewhere, and what is too large."""
        own = f"http://{self.host}"
        for origin in (*FOREIGN, None, "", f"{own}.evil.example", f"{own}@evil.example"):
            if (answer := self._shake_hands(origin)).status == 101:
                self.find(f"a socket from {origin} is opened", answer)
        if (answer := self._shake_hands(own, host="evil.example")).status == 101:
            self.find("a socket under a foreign name is opened", answer)
        if (answer := self._shake_hands("http://evil.example", host="evil.example")).status == 101:
            self.find("a socket of a name that leads here is opened", answer)
        for path in ("/", "/vtg/x", "/_stcore/other", "/_stcore/stream/../x", "/media/x", "/_stcore/agent/mcp"):
            if (answer := self._shake_hands(own, path)).status == 101:
                self.find(f"a socket at {path} is opened", answer)
        for sent in (
            frame(bytes(40 << 20)),
            frame(b"no message"),
            frame(b"text", opcode=1),
            b"\xff" * 200,
            b"\x82\xff" + b"\x7f" + b"\xff" * 7,
        ):
            self._talk(own, sent)

    def _shake_hands(self, origin: str | None, path: str = "/_stcore/stream", host: str | None = None) -> Answer:
        with contextlib.closing(open_socket(self.address)) as connection:
            connection.sendall(handshake(host or self.host, origin, path))
            answer = read_answer(connection)
        if answer.status != 101:
            self.check(f"a socket from {origin} at {path}", answer)
        return answer

    def _talk(self, origin: str, sent: bytes) -> None:
        """Send one frame; the page has to close the socket or to go on, and may not show why."""
        with contextlib.closing(open_socket(self.address)) as connection:
            connection.sendall(handshake(self.host, origin, "/_stcore/stream"))
            if read_answer(connection).status != 101:
                return  # a password is asked for
            connection.settimeout(3)
            said = b""
            with contextlib.suppress(OSError):
                connection.sendall(sent)
                while len(said) < MAX_ANSWER_BYTES and (block := connection.recv(65536)):
                    said += block
        if b"Traceback" in said or b"site-packages" in said:
            self.find(f"a frame of {len(sent)} bytes is answered with a traceback: {said[-200:]!r}")

    def uploads(self) -> None:
        """Uploads of others, and names and sizes that no visitor sends."""
        own = {"Origin": f"http://{self.host}"}
        for path in ("/vtg/guess/upload", "/vtg//upload", "/upload", "/_stcore/upload_file/a/b", "/vtg/%00/upload"):
            if (answer := self.ask(f"{path}?name=a.mp4", "POST", own, b"x")).status < 400:
                self.find(f"an upload to {path} is taken", answer)
        if self.token is None:
            return
        path = f"/vtg/{self.token}/upload?name="
        for origin in (*FOREIGN, None):
            answer = self.ask(f"{path}a.mp4", "POST", {"Origin": origin} if origin is not None else {}, b"x")
            if answer.status not in (401, 403):
                self.find(f"an upload from {origin} is taken", answer)
        for name in (
            "",
            "a",
            "a.txt",
            "..",
            "../../a.mp4",
            "/etc/a.mp4",
            "con.mp4",
            "a\0.mp4",
            "\u202ea.mp4",
            "あ" * 300 + ".mp4",
            "x" * 5_000 + ".mp4",
            ".mp4",
            "a.mp4/..",
            "%2e%2e%2fa.mp4",
        ):
            answer = self.ask(path + quote(name, safe=""), "POST", own, b"no video")
            if answer.status not in (401, 413, 414, 422, 429) or "reason" not in answer.text:
                self.find(f"an upload named {name[:40]!r} is answered", answer)
        if (answer := self.ask(f"{path}a.mp4", "POST", {**own, "Content-Length": str(1 << 62)}, b"x")).status != 413:
            self.find("an upload of 4 EB is begun", answer)

    def cookies(self) -> None:
        """Cookies that scripts or other sites could use."""
        for path in ("/", "/_stcore/health", "/_stcore/host-config", "/sign-in"):
            for cookie in filter(None, self.ask(path).headers.get("set-cookie", "").split("\n")):
                if "httponly" not in cookie.lower() or "samesite=strict" not in cookie.lower():
                    self.find(f"{path} sets a cookie without its flags: {cookie}")

    def slow(self) -> None:
        """A connection that never sends a whole request is closed; while it waits, others are answered."""
        waiting = []
        for begin in (b"", b"GET / HT", f"GET / HTTP/1.1\r\nHost: {self.host}\r\nX: ".encode()):
            connection = open_socket(self.address)
            connection.sendall(begin)
            waiting.append(connection)
        self.alive()
        until = time.monotonic() + SLOW_SECONDS
        while waiting and time.monotonic() < until:
            for connection in list(waiting):
                if is_closed(connection):
                    waiting.remove(connection)
            time.sleep(0.5)
        if waiting:
            self.find(f"{len(waiting)} connections that send no request are held for {SLOW_SECONDS:g} s")
        for connection in waiting:
            connection.close()


def _is_of_server(answer: Answer) -> bool:
    """Whether the HTTP server itself has refused what is no request, before any of the page's code saw it."""
    return answer.status in (400, 431) and answer.body in (b"Invalid HTTP request received.", b"")


def _static_file(page: str) -> str | None:
    found = re.search(r'"\./(static/js/[\w.\-]+\.js)"', page)
    return f"/{found[1]}" if found else None
