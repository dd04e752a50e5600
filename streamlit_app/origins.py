"""Check the Host and Origin headers of requests against the addresses of the page.

Browsers send both with every request that matters. Host shows DNS rebinding (another name that resolves to this
machine), Origin shows scripts of other sites or of other ports of this machine.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable

from vtg.errors import VtgError

__all__ = ["OwnAddresses", "is_local", "listens_everywhere", "parse_authority"]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
DEFAULT_PORTS = {"http": 80, "https": 443}
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9_](?:[a-z0-9_.-]{0,252}))(?::([0-9]{1,5}))?", re.IGNORECASE)
_ORIGIN = re.compile(r"(https?)://([^/?#@\s]+)", re.IGNORECASE)


class OwnAddresses:
    """The addresses of the page.

    Args:
        host: name or address to listen on, as given by the user.
        port: to listen on.
        allowed: further host names, with or without ``:port``, such as that of a reverse proxy. Without a port, the
            page's port and the default ports of HTTP and HTTPS are allowed.

    Raises:
        VtgError: one of `allowed` is not a host name.
    """

    def __init__(self, host: str, port: int, allowed: Iterable[str] = ()) -> None:
        self.port = port
        self._everywhere = listens_everywhere(host)
        names = {*LOOPBACK, _plain_name(host)}
        if self._everywhere:
            machine = socket.gethostname().lower()
            names |= {machine, f"{machine}.local"}
        self._own = {(name, port) for name in names}
        self._allowed: set[tuple[str, int]] = set()
        for written in allowed:
            if (parsed := parse_authority(written)) is None:
                raise VtgError(f"{written}: is not a host name; write it like videos.example or videos.example:8080")
            name, own_port = parsed
            self._allowed |= {(name, each) for each in ((port, 80, 443) if own_port is None else (own_port,))}

    def is_host(self, host: str, local: str | None = None) -> bool:
        """Whether a request's Host is an address of the page.

        Args:
            host: header of the request.
            local: address of this machine at which the request arrived; allowed if the page listens on all addresses.
                This is safe, because DNS rebinding needs a name.
        """
        if (parsed := parse_authority(host)) is None:
            return False
        name, port = parsed
        if any((name, each) in self._allowed for each in (DEFAULT_PORTS.values() if port is None else (port,))):
            return True
        port = DEFAULT_PORTS["http"] if port is None else port
        return (name, port) in self._own or (
            self._everywhere and local is not None and (name, port) == (_without_mapping(local), self.port)
        )

    def is_origin(self, origin: str, host: str) -> bool:
        """Whether a request's Origin is the page itself: that of its Host, or one of the allowed names.

        Args:
            origin: header of the request.
            host: header of the request, accepted by `is_host`.
        """
        if (found := _ORIGIN.fullmatch(origin)) is None or (parsed := parse_authority(found[2])) is None:
            return False
        default = DEFAULT_PORTS[found[1].lower()]
        name, port = parsed[0], default if parsed[1] is None else parsed[1]
        if (name, port) in self._allowed:
            return True
        requested = parse_authority(host)
        if requested is None:
            return False
        return (name, port) == (requested[0], default if requested[1] is None else requested[1])


def parse_authority(text: str) -> tuple[str, int | None] | None:
    """Name (lower case, without brackets) and port of a Host header; None if it is invalid."""
    if (found := _AUTHORITY.fullmatch(text)) is None:
        return None
    port = int(found[2]) if found[2] else None
    return (_plain_name(found[1]), port) if port is None or 0 < port < 1 << 16 else None


def listens_everywhere(host: str) -> bool:
    """Whether listening on a host means all addresses of this machine."""
    try:
        return ipaddress.ip_address(_plain_name(host)).is_unspecified
    except ValueError:
        return False


def is_local(host: str) -> bool:
    """Whether a host can only be reached from this machine."""
    name = _plain_name(host)
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _without_mapping(address: str) -> str:
    """Convert an IPv4 address mapped to IPv6, as dual-stack sockets report it, to plain IPv4."""
    plain = _plain_name(address)
    mapped = ipaddress.IPv6Address(plain).ipv4_mapped if ":" in plain else None
    return str(mapped or plain)


def _plain_name(name: str) -> str:
    """Normalize a host name or address for comparison."""
    name = name.strip("[]").partition("%")[0].lower()
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name
