"""Requests sent by raw sockets, so that nothing is tidied on the way, as scanners and hostile sites send them."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import socket
from dataclasses import dataclass, field
from urllib.parse import urlsplit

__all__ = ["MAX_ANSWER_BYTES", "Answer", "frame", "handshake", "is_closed", "open_socket", "read_answer", "send"]

TIMEOUT = 20.0  # seconds for one answer
MAX_ANSWER_BYTES = 1 << 20  # of an answer that are read


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        status: of HTTP; 0 where the connection was closed without one.
        headers: by name in lower case; those of one name are joined by line breaks.
        body: at most the first `MAX_ANSWER_BYTES`.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")


def open_socket(address: str) -> socket.socket:
    """A connection to a page.

    Args:
        address: of the page, such as ``http://127.0.0.1:8501``.
    """
    parts = urlsplit(address)
    return socket.create_connection((parts.hostname or "", parts.port or 80), TIMEOUT)


def send(address: str, request: bytes) -> Answer:
    """Send bytes as they are, and read one answer."""
    with contextlib.closing(open_socket(address)) as connection:
        with contextlib.suppress(OSError):  # one that refuses early does not read all of it
            connection.sendall(request)
        return read_answer(connection)


def read_answer(connection: socket.socket) -> Answer:
    """Read one answer of HTTP; of a socket's handshake its head alone."""
    data = b""
    with contextlib.suppress(OSError):
        while b"\r\n\r\n" not in data and (block := connection.recv(65536)):
            data += block
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    if not (found := re.match(r"HTTP/1\.[01] (\d{3})", lines[0])):
        return Answer()
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        name = name.strip().lower()
        headers[name] = f"{headers[name]}\n{value.strip()}" if name in headers else value.strip()
    status, length = int(found[1]), headers.get("content-length")
    if status != 101:
        with contextlib.suppress(OSError):
            while len(body) < min(MAX_ANSWER_BYTES, int(length) if length else MAX_ANSWER_BYTES):
                block = connection.recv(65536)
                if not block or (not length and block.endswith(b"0\r\n\r\n")):
                    body += block
                    break
                body += block
    return Answer(status, headers, body)


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side has closed a connection; one byte is sent to it meanwhile, as a slow sender does."""
    connection.settimeout(0.2)
    try:
        if connection.recv(65536) == b"":
            return True
        connection.sendall(b"a")
    except TimeoutError:
        with contextlib.suppress(OSError):
            connection.sendall(b"a")
            return False
        return True
    except OSError:
        return True
    return False


def handshake(host: str, origin: str | None, path: str) -> bytes:
    """The request that opens a socket.

    Args:
        host: that it says it is for.
        origin: that it says it is from; None leaves it out.
        path: of the socket.
    """
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Protocol: streamlit"]
    if origin is not None:
        lines.append(f"Origin: {origin}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def frame(payload: bytes, opcode: int = 2) -> bytes:
    """One masked frame; the mask is zero, so that the payload stays as it is."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 1 << 16:
        length = bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([0x80 | 127]) + size.to_bytes(8, "big")
    return bytes([0x80 | opcode]) + length + b"\0\0\0\0" + payload
