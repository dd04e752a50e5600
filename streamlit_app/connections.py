"""An HTTP protocol for uvicorn that closes connections without a complete request after a time limit."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .response_headers import HEADERS

__all__ = ["MAX_CONNECTIONS", "BoundedProtocol"]

REQUEST_SECONDS = 20.0  # for the request line and headers
MAX_CONNECTIONS = 512  # at the same time; further ones get the status "busy" (503)


class BoundedProtocol(H11Protocol):
    """Closes a connection whose request is not complete in time, also if parts of it keep arriving."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._forget()
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse an invalid request, with the headers of all responses."""
        lines = [b"HTTP/1.1 400 Bad Request", b"content-type: text/plain; charset=utf-8", b"connection: close"]
        lines += [b"content-length: %d" % len(msg), *(b"%b: %b" % header for header in HEADERS)]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + msg.encode("ascii"))
        self.transport.close()

    def _watch(self) -> None:
        """Set the deadline while no request is being answered; received data does not extend it."""
        if self.transport.get_protocol() is not self or (self.cycle is not None and not self.cycle.response_complete):
            self._forget()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.close)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
