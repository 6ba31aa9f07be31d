"""Listening sockets.

Each is complete when it is handed out: bound, with its options and mode set, listening. In the file
system only a dead socket of our own makes room for a new one; nothing else is ever removed.
"""

import errno
import os
import socket
import stat
from dataclasses import dataclass
from typing import Final

from ._address import TcpAddress, UnixAddress

BACKLOG: Final = 4096
"""Connections that may wait to be accepted; the system caps it (net.core.somaxconn)."""


@dataclass(frozen=True, slots=True)
class _Place:
    """What `bind()` has made in the file system, and which process did."""

    path: str
    identity: tuple[int, int, int]
    process: int


class _UnixListener(socket.socket):
    """A UNIX socket that knows the file it has made."""

    place: _Place | None = None


def listen(
    address: TcpAddress | UnixAddress,
    *,
    backlog: int = BACKLOG,
    mode: int = 0o666,
    owner: int | None = None,
    group: int | None = None,
) -> socket.socket:
    """Make a socket that listens on `address`.

    `mode` is that of a UNIX socket's file: who may write to it may connect. `owner` and `group` are
    its user and group ID, None leaves them as they come. Of a host name's addresses the first is
    taken. Raises OSError that says what is wrong and where.
    """
    try:
        if isinstance(address, UnixAddress):
            return _listen_unix(
                address.path,
                backlog,
                mode,
                (-1 if owner is None else owner, -1 if group is None else group),
            )
        return _listen_tcp(address, backlog)
    except OSError as error:
        raise _explained(error, address) from error


class _InUseError(OSError):
    """A place that is taken; the text says by what."""


def _explained(error: OSError, address: TcpAddress | UnixAddress) -> OSError:
    number = error.errno or errno.EINVAL
    reason = error.strerror or str(error)
    if isinstance(error, socket.gaierror):
        return OSError(errno.EADDRNOTAVAIL, f"cannot listen on {address}: {reason}")
    if number == errno.EADDRINUSE and not isinstance(error, _InUseError):
        reason = "another process listens there"
    elif number == errno.EACCES and isinstance(address, TcpAddress):
        reason = f"{reason} (a port below 1024 needs CAP_NET_BIND_SERVICE)"
    elif number == errno.ENOENT and isinstance(address, UnixAddress):
        reason = "its directory does not exist"
    return OSError(number, f"cannot listen on {address}: {reason}")


def _listen_tcp(address: TcpAddress, backlog: int) -> socket.socket:
    family, kind, protocol, _, name = socket.getaddrinfo(
        # Octets, for text is checked as an IDNA name first and raises other errors.
        address.host.encode(),
        address.port,
        type=socket.SOCK_STREAM,
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_PASSIVE,
    )[0]
    # asyncio sets TCP_NODELAY only where the protocol number is IPPROTO_TCP and not 0.
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(name)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _listen_unix(path: str, backlog: int, mode: int, owner: tuple[int, int]) -> socket.socket:
    sock = _UnixListener(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _remove_stale(path, {os.geteuid(), owner[0]})
            sock.bind(path)
        sock.place = _Place(os.path.abspath(path), _identity(os.lstat(path)), os.getpid())
        # Nobody can connect before listen(), so the umask opens no gap.
        _change_rights(path, mode, owner)
        sock.listen(backlog)
    except BaseException:
        unlink_if_ours(sock)
        sock.close()
        raise
    return sock


def _identity(found: os.stat_result) -> tuple[int, int, int]:
    """Tell a file from a later one of its name, which may well have the same inode number.

    The modification time of a socket stays that of its creation.
    """
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _change_rights(path: str, mode: int, owner: tuple[int, int]) -> None:
    """Set mode and owner (-1: no change) of a socket's file: a link put there in the meantime is
    not followed."""
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if stat.S_ISSOCK(found.st_mode):
            # Who may change nothing may still want what is.
            if stat.S_IMODE(found.st_mode) != mode:
                os.chmod(f"/proc/self/fd/{descriptor}", mode)
            if owner[0] not in {-1, found.st_uid} or owner[1] not in {-1, found.st_gid}:
                os.chown(f"/proc/self/fd/{descriptor}", *owner)
    finally:
        os.close(descriptor)


def set_rights(
    sock: socket.socket, *, mode: int, owner: int | None = None, group: int | None = None
) -> None:
    """Set mode, owner and group of the file of a UNIX socket that `listen()` has made.

    Nothing happens for any other socket, or when something else is in its place. Raises OSError.
    """
    place = sock.place if isinstance(sock, _UnixListener) else None
    if place is None:
        return
    try:
        if _identity(os.lstat(place.path)) == place.identity:
            _change_rights(
                place.path,
                mode,
                (-1 if owner is None else owner, -1 if group is None else group),
            )
    except FileNotFoundError:
        pass


def _remove_stale(path: str, owners: set[int]) -> None:
    """Remove a socket of one of `owners` that no process serves any more. Raises OSError for
    anything else."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise _InUseError(
            errno.EADDRINUSE, "the file there is no socket; remove it or choose another path"
        )
    if not _is_dead(path):
        raise _InUseError(errno.EADDRINUSE, "another process listens there")
    if found.st_uid not in owners:
        raise _InUseError(
            errno.EADDRINUSE, f"user {found.st_uid} has left a dead socket there; remove it"
        )
    # Another server may have come to the same conclusion, and be listening there by now.
    if _identity(os.lstat(path)) != _identity(found):
        raise _InUseError(errno.EADDRINUSE, "another process has begun to listen there")
    os.unlink(path)


def _is_dead(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # A live server with a full backlog must not hold this up.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def unlink_if_ours(sock: socket.socket) -> None:
    """Remove the file of a UNIX socket that `listen()` has made in this process.

    Nothing happens for any other socket, in a forked child, or when something else is in its place.
    """
    place = sock.place if isinstance(sock, _UnixListener) else None
    if place is None or place.process != os.getpid():
        return
    try:
        if _identity(os.lstat(place.path)) == place.identity:
            os.unlink(place.path)
    except (FileNotFoundError, PermissionError):
        # Whoever was root when it was made may be so no more; the next server takes it away.
        pass
