"""The tables `listener`: where clients connect, who may, and what is spoken there."""

import grp
import pwd
import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from lmtp_server._workers import ACTIVATED, ListenerPlan, TlsFiles
from lmtp_sockets import TcpAddress, parse_address

_SMTP_PORT = 25


def check_address(value: object) -> str:
    """An address to listen on, as it is written. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text: write HOST:PORT, [IPV6]:PORT or unix:PATH")
    if re.fullmatch(rf"{ACTIVATED}(:[^:]+)?", value):
        return value
    address = parse_address(value)
    if isinstance(address, TcpAddress) and address.port == _SMTP_PORT:
        raise ValueError(f"{value!r}: port 25 is for SMTP, not for LMTP (RFC 2033 5): take another")
    return value


def _network(value: object) -> IPv4Network | IPv6Network:
    try:
        if not isinstance(value, str):
            raise ValueError
        return ip_network(value)
    except ValueError:
        raise ValueError(
            f"{value!r} is no network; allowed are texts such as '192.0.2.0/24', '2001:db8::/32'"
            " and '127.0.0.1'"
        ) from None


def _mode(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"0?[0-7]{3}", value):
        return int(value, 8)
    # TOML has octal numbers: 0o660.
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0o777:
        return value
    raise ValueError(f"{value!r} is no mode; allowed are texts such as '0660'")


def _id(kind: str, look_up: Callable[[str], int]) -> Callable[[object], int | None]:
    def read(value: object) -> int | None:
        if value is None or value == "":
            return None
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        if isinstance(value, str):
            if value.isascii() and value.isdigit():
                return int(value)
            try:
                return look_up(value)
            except KeyError:
                pass
        raise ValueError(f"{value!r}: there is no such {kind}; allowed is its name or number")

    return read


_Networks = list[Annotated[IPv4Network | IPv6Network, PlainValidator(_network)]]
_Count = Annotated[int | None, Field(ge=1, description="a whole number from 1 on")]


class ListenerTable(BaseModel):
    """One place to listen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    address: Annotated[
        str,
        PlainValidator(check_address),
        Field(description="HOST:PORT, [IPV6]:PORT, unix:PATH, systemd or systemd:NAME"),
    ]
    mode: Annotated[int, PlainValidator(_mode), Field(description="a mode such as '0660'")] = 0o666
    """Of a UNIX socket: who may write to it may connect."""
    user: Annotated[
        int | None,
        PlainValidator(_id("user", lambda name: pwd.getpwnam(name).pw_uid)),
        Field(description="the name or number of a user"),
    ] = None
    """To whom a UNIX socket belongs."""
    group: Annotated[
        int | None,
        PlainValidator(_id("group", lambda name: grp.getgrnam(name).gr_gid)),
        Field(description="the name or number of a group"),
    ] = None
    tls: Annotated[
        Literal["off", "starttls", "implicit"] | None,
        Field(description="'off', 'starttls' or 'implicit'"),
    ] = None
    """By default STARTTLS is offered over TCP where there is a table `tls`."""
    proxies: Annotated[_Networks, Field(description="a list of networks")] = []
    """Whose connections begin with a PROXY header."""
    trusted_networks: Annotated[_Networks, Field(description="a list of networks")] = []
    """Who may speak for others by XCLIENT, XFORWARD and XRCPTFORWARD."""
    client_limit: _Count = None
    """Connections of one worker at a time here; one more is told 421."""
    client_limit_per_peer: _Count = None
    """Connections of one IP address to one worker at a time here; one more is told 421."""

    def plan(self, tls: TlsFiles | None) -> ListenerPlan:
        """For the daemon. Raises ValueError for TLS without a certificate."""
        kind = self.tls
        if kind is None:
            kind = "off" if tls is None or self.address.startswith("unix:") else "starttls"
        if kind != "off" and tls is None:
            raise ValueError(f"tls = {kind!r} needs a table 'tls' with a certificate")
        return ListenerPlan(
            address=self.address,
            mode=self.mode,
            owner=self.user,
            group=self.group,
            tls=None if kind == "off" else tls,
            implicit_tls=kind == "implicit",
            proxies=tuple(self.proxies),
            trusted=tuple(self.trusted_networks),
            client_limit=self.client_limit,
            client_limit_per_peer=self.client_limit_per_peer,
        )
