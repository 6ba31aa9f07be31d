"""Where a server listens, and what it speaks there; the listening sockets of one server."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address

from lmtp_sockets import format_address, listen, parse_address, unlink_if_ours

from ._certificates import ServerTls
from ._peers import ConnectionLimit


@dataclass(frozen=True, slots=True)
class Listener:
    """A place to listen.

    Raises ValueError for what does not fit together.
    """

    address: str | socket.socket
    """`HOST:PORT`, `[IPV6]:PORT`, `unix:PATH`, or a socket that listens already, as systemd and
    parents hand them on."""
    tls: ServerTls | None = None
    """Offers STARTTLS (RFC 3207)."""
    implicit_tls: bool = False
    """TLS from the first octet, in place of STARTTLS."""
    proxies: Sequence[IPv4Network | IPv6Network] = ()
    """Whose connections begin with a PROXY header, version 1 or 2; on a UNIX socket, everybody's,
    whatever stands here. All others connect as always."""
    mode: int = 0o666
    """Of a UNIX socket's file: who may write to it may connect."""
    owner: int | None = None
    """User ID of the file, None as it comes."""
    group: int | None = None
    """Group ID of the file, None as it comes."""
    name: str = ""
    """What sessions know it by: `Session.listener`."""
    shared: bool = False
    """Other processes accept here, too: each takes in one connection at a time and leaves those
    behind it to the others for a moment, so that each gets its part of many."""
    limits: Sequence[ConnectionLimit] = ()
    """What the sessions that begin here have to be admitted by, each of them, in this order."""

    def __post_init__(self) -> None:
        if self.implicit_tls and self.tls is None:
            raise ValueError("implicit_tls needs tls: a certificate")

    def is_proxy(self, client_ip: str | None) -> bool:
        """Whether a PROXY header is awaited from this peer."""
        if not self.proxies or client_ip is None:
            return bool(self.proxies)
        address = ip_address(client_ip)
        return any(address in network for network in self.proxies)


class Listeners:
    """The listening sockets of one server: all of them open, or none.

    Sockets made from addresses or handed in; all are this object's to close. Raises ValueError for
    an address that cannot be read or a socket that does not listen, OSError for a place where
    nobody can listen. Then those made so far are closed; handed-in sockets stay the caller's.
    """

    def __init__(self, listeners: Sequence[str | socket.socket | Listener]) -> None:
        if not listeners:
            raise ValueError("a server needs an address to listen on")
        self._made: list[socket.socket] = []
        self.opened: list[tuple[socket.socket, Listener]] = []
        """All of them, in the order given, the sockets in non-blocking mode."""
        try:
            for place in listeners:
                listener = place if isinstance(place, Listener) else Listener(place)
                self.opened.append((self._open(listener), listener))
            self.addresses = [format_address(sock) for sock, _ in self.opened]
            """Where they listen, with the port that was found for port 0."""
        except BaseException:
            _close(self._made, self._made)
            raise

    def _open(self, listener: Listener) -> socket.socket:
        address = listener.address
        if isinstance(address, str):
            sock = listen(
                parse_address(address),
                mode=listener.mode,
                owner=listener.owner,
                group=listener.group,
            )
            self._made.append(sock)
        else:
            sock = address
            _check(sock)
        sock.setblocking(False)
        return sock

    def close(self) -> None:
        """Stop listening; the files of UNIX sockets made here are removed, others' are not."""
        _close(self._made, [sock for sock, _ in self.opened])


def _check(sock: socket.socket) -> None:
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ValueError(f"{sock} does not listen: call its listen() first")
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _close(made: Sequence[socket.socket], sockets: Sequence[socket.socket]) -> None:
    for sock in made:
        unlink_if_ours(sock)
    for sock in sockets:
        sock.close()
