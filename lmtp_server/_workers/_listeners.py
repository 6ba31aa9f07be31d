"""The listening sockets of the service, which live as long as they are wanted, reloads included.

The invariant: a socket that the old plan and the new one have is the same one, never closed in
between; one that a plan has alone is opened before its workers start, and closed when the plan is
dropped or has been replaced.
"""

import logging
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from lmtp_proto import Session
from lmtp_sockets import format_address, listen, parse_address, set_rights, unlink_if_ours
from lmtp_transport import ConnectionLimit, Listener, PeerLimit

from ._tls import Certificates, TlsFiles, explain, read_certificates

ACTIVATED: Final = "systemd"
"""The address of sockets that the service manager hands on; `systemd:NAME` is one of them."""

_logger: Final = logging.getLogger("lmtp_server")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerPlan:
    """A place to listen, and what is spoken there."""

    address: str
    """`HOST:PORT`, `[IPV6]:PORT`, `unix:PATH`, `systemd` or `systemd:NAME`."""
    mode: int = 0o666
    """Of a UNIX socket's file: who may write to it may connect."""
    owner: int | None = None
    """User ID of the file, None as it comes."""
    group: int | None = None
    """Group ID of the file, None as it comes."""
    tls: TlsFiles | None = None
    implicit_tls: bool = False
    """TLS from the first octet; otherwise STARTTLS is offered where there is `tls`."""
    proxies: Sequence[IPv4Network | IPv6Network] = ()
    """Whose connections begin with a PROXY header."""
    trusted: Sequence[IPv4Network | IPv6Network] = ()
    """Who may speak for others: XCLIENT, XFORWARD, XRCPTFORWARD. Clients of UNIX sockets have no
    address and are in no network."""
    client_limit: int | None = None
    """Connections of one worker here."""
    client_limit_per_peer: int | None = None
    """Connections of one IP address to one worker here."""

    @property
    def is_activated(self) -> bool:
        """Whether the sockets are handed on by the service manager."""
        return self.address == ACTIVATED or self.address.startswith(f"{ACTIVATED}:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A listening socket with its plan."""

    plan: ListenerPlan
    sock: socket.socket
    certificates: Certificates | None

    @property
    def address(self) -> str:
        """Where it listens, with the port that was found for port 0."""
        return format_address(self.sock)

    def listener(self, presence: ConnectionLimit, *, shared: bool) -> Listener:
        """For a server in a worker, which counts for itself; `presence` admits last. `shared`:
        other workers accept there, too."""
        plan = self.plan
        limits: list[ConnectionLimit] = []
        if plan.client_limit is not None:
            limits.append(_Most(plan.client_limit))
        if plan.client_limit_per_peer is not None:
            limits.append(PeerLimit(plan.client_limit_per_peer))
        return Listener(
            self.sock,
            tls=None if self.certificates is None else self.certificates.tls,
            implicit_tls=plan.implicit_tls,
            proxies=plan.proxies,
            name=plan.address,
            limits=[*limits, presence],
            shared=shared,
        )


class _Most(ConnectionLimit):
    """Admits so many sessions at a time, whoever they are."""

    def __init__(self, most: int) -> None:
        self._free = threading.Semaphore(most)

    def admit(self, _session: Session, /) -> Callable[[], None] | None:
        return self._free.release if self._free.acquire(blocking=False) else None


class Sockets:
    """The sockets that the supervisor holds open. `activated` are those handed on to it, with the
    names that the service manager gives them."""

    def __init__(self, activated: Sequence[tuple[str, socket.socket]] = ()) -> None:
        self._activated = list(activated)
        self._current: list[Opened] = []
        # Opened for a plan that is being tried.
        self._new: list[Opened] = []

    def open(self, plans: Sequence[ListenerPlan], faults: list[str]) -> list[Opened]:
        """Sockets for `plans`: those that are open already, and new ones.

        `adopt()` or `drop()` must follow. What is wrong gets a line in `faults`.
        """
        opened: list[Opened] = []
        self._new = []
        for plan in plans:
            try:
                if any(each.plan.address == plan.address for each in opened):
                    raise ValueError("it is there twice")
                opened += self._open(plan)
            except ssl.SSLError as error:
                assert plan.tls is not None
                faults.append(f"{plan.address}: {explain(error, plan.tls)}")
            except OSError as error:
                faults.append(_explain(plan, error))
            except ValueError as error:
                faults.append(f"{plan.address}: {error}")
        used = [each.sock for each in opened]
        faults += [
            f"{format_address(sock)} is handed on by the service manager as {name!r}, and no"
            f" listener has this address, {ACTIVATED!r} or '{ACTIVATED}:{name}'"
            for name, sock in self._activated
            if not faults and sock not in used
        ]
        return opened

    def _open(self, plan: ListenerPlan) -> list[Opened]:
        before = [each for each in self._current if each.plan.address == plan.address]
        certificates = None
        if plan.tls is not None:
            in_use = before[0].certificates if before else None
            certificates = read_certificates(plan.tls, plan.address, in_use)
        if before:
            return [Opened(plan=plan, sock=each.sock, certificates=certificates) for each in before]
        opened = [
            Opened(plan=plan, sock=sock, certificates=certificates) for sock in self._sockets(plan)
        ]
        self._new += opened
        return opened

    def _sockets(self, plan: ListenerPlan) -> list[socket.socket]:
        """Those handed on for the plan, or a new one."""
        found = [
            sock
            for name, sock in self._activated
            if plan.address in (ACTIVATED, f"{ACTIVATED}:{name}", format_address(sock))
        ]
        if found:
            for sock in found:
                if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    raise ValueError("what the service manager hands on does not listen")
            return found
        if plan.is_activated:
            raise ValueError("the service manager hands on no such socket")
        address = parse_address(plan.address)
        return [listen(address, mode=plan.mode, owner=plan.owner, group=plan.group)]

    def adopt(self, opened: Sequence[Opened]) -> None:
        """`opened` serve from now on, and nothing else does."""
        kept = [each.sock for each in opened]
        for each in self._current:
            if each.sock not in kept:
                self._close(each)
        fresh = [each.sock for each in self._new]
        for each in opened:
            plan = each.plan
            if each.sock not in fresh:
                # Nothing happens to a socket that is not of this process's making.
                try:
                    set_rights(each.sock, mode=plan.mode, owner=plan.owner, group=plan.group)
                except OSError as error:
                    _logger.error(
                        "%s keeps its mode and owner until a restart: %s",
                        plan.address,
                        error.strerror,
                    )
        self._current = list(opened)
        self._new = []

    def drop(self) -> None:
        """What was opened last is not wanted."""
        for each in self._new:
            self._close(each)
        self._new = []

    def close(self) -> None:
        """Listen nowhere. Clients shall find another server at once, not wait in a backlog."""
        self.drop()
        self.adopt([])

    def close_others(self, opened: Sequence[Opened]) -> None:
        """In a worker that serves `opened`: hold nothing else open, or it would never close."""
        kept = [each.sock for each in opened]
        for each in [*self._current, *self._new]:
            if each.sock not in kept:
                each.sock.close()

    def _close(self, opened: Opened) -> None:
        if any(sock is opened.sock for _, sock in self._activated):
            # It is the service manager's, and may be wanted again.
            return
        unlink_if_ours(opened.sock)
        opened.sock.close()


def _explain(plan: ListenerPlan, error: OSError) -> str:
    if plan.tls is not None and error.filename is not None:
        return f"{plan.address}: {explain(error, plan.tls)}"
    return f"listen: {error.strerror or error}"
