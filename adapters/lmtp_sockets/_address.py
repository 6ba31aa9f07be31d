"""Socket addresses as people write them: `HOST:PORT`, `[IPV6]:PORT`, `unix:PATH`.

What `format_address()` gives, `parse_address()` takes.
"""

import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from typing import Final

_FORMS: Final = "write HOST:PORT, [IPV6]:PORT or unix:PATH"
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?\.?")
_PORT: Final = re.compile(r"[0-9]{1,5}")
# unix(7): sun_path has 108 octets, the last one a NUL.
_PATH_LIMIT: Final = 107


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host (name, IPv4 or IPv6 address without brackets) and a port; port 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return _host_and_port(self.host, self.port)


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The path of a UNIX socket."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


def parse_address(text: str) -> TcpAddress | UnixAddress:
    """Read an address. Raises ValueError that says what is wrong with `text`."""
    if text.startswith("unix:"):
        return UnixAddress(_path(text, text.removeprefix("unix:")))
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} has no port: {_FORMS}")
    if _PORT.fullmatch(port) is None or int(port) > 65535:
        raise ValueError(f"{text!r}: {port!r} is no port (0 to 65535): {_FORMS}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError(f"{text!r}: {host!r} is no IPv6 address: {_FORMS}") from None
    elif not host:
        raise ValueError(
            f"{text!r} has no host: 127.0.0.1:{port} is this machine alone, "
            f"0.0.0.0:{port} and [::]:{port} are all its IPv4 and IPv6 addresses"
        )
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address goes into brackets: {_FORMS}")
    elif _HOST.fullmatch(host) is None:
        raise ValueError(f"{text!r}: {host!r} is no host: {_FORMS}")
    return TcpAddress(host, int(port))


def _path(text: str, path: str) -> str:
    if not path:
        raise ValueError(f"{text!r} has no path: {_FORMS}")
    if "\0" in path:
        raise ValueError(f"{text!r}: a path holds no NUL")
    size = len(os.fsencode(path))
    if size > _PATH_LIMIT:
        raise ValueError(
            f"{text!r}: the path has {size} octets, a UNIX socket's at most {_PATH_LIMIT}"
        )
    return path


def format_address(sock: socket.socket) -> str:
    """Say where `sock` is bound, such as `127.0.0.1:2424`, `[::1]:2424` or `unix:/run/lmtp`."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(name)}"
    return _host_and_port(name[0], name[1])


def peer_name(address: object) -> tuple[str, str | None]:
    """Name a peer by its socket address, as `accept()` or `getpeername()` give it.

    The text for logs (`192.0.2.1:4711`, `[2001:db8::1]:4711` or `unix`), and the IP address, None
    for a UNIX socket.
    """
    match address:
        case (str() as host, int() as port, *_):
            return _host_and_port(host, port), host.partition("%")[0]
        case _:
            return "unix", None


def _host_and_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
