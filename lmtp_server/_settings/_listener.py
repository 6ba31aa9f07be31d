"""The tables `[[listener]]`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ._table import About, Allowed, Table, TableFault
from ._types import Address, FileMode, Group, Mode, Networks, Path, Text, User, count

_MOST = 1 << 31


class ListenerTable(Table):
    """A place to listen."""

    address: Annotated[
        Address,
        About(
            meaning="where: a TCP port, a UNIX socket, or sockets that systemd hands over, those of"
            " one name or all",
            dovecot="inet_listener (address, port), unix_listener",
        ),
    ]
    name: Annotated[Text, About(meaning="for logs and metrics")] = ""
    mode: Annotated[
        FileMode,
        About(
            meaning="of a UNIX socket's file: who may write to it may deliver",
            dovecot="unix_listener: mode",
        ),
    ] = Mode(0o666)
    user: Annotated[
        User | None, About(meaning="the owner of that file", dovecot="unix_listener: user")
    ] = None
    group: Annotated[
        Group | None, About(meaning="the group of that file", dovecot="unix_listener: group")
    ] = None
    tls: Annotated[
        Literal["off", "starttls", "implicit"],
        Allowed("off, starttls or implicit"),
        About(
            meaning="none, when the client asks for it, or from the first octet",
            dovecot="ssl, inet_listener: ssl",
        ),
    ] = "off"
    certificate: Annotated[Path | None, About(meaning="as in `[tls]`, in place of that one")] = None
    key: Annotated[Path | None, About(meaning="as in `[tls]`, in place of that one")] = None
    proxy_networks: Annotated[
        Networks,
        About(
            meaning="whose connections begin with a PROXY header; on a UNIX socket, everybody's if"
            " there is any",
            dovecot="inet_listener: haproxy, haproxy_trusted_networks",
        ),
    ] = Field(default_factory=list)
    trusted_networks: Annotated[
        Networks,
        About(
            meaning="who may speak for others: XCLIENT, XFORWARD, XRCPTFORWARD",
            dovecot="login_trusted_networks",
        ),
    ] = Field(default_factory=list)
    client_limit: Annotated[
        int | None, *count(1, _MOST), About(meaning="connections of one worker here")
    ] = None
    client_limit_per_peer: Annotated[
        int | None,
        *count(1, _MOST),
        About(meaning="connections of one IP address to one worker here"),
    ] = None

    @model_validator(mode="after")
    def _together(self) -> Self:
        if not self.address.startswith("unix:"):
            for key in ("user", "group"):
                if getattr(self, key) is not None:
                    raise TableFault(key, f"{self.address} has no file: it is for UNIX sockets")
        if self.key is not None and self.certificate is None:
            raise TableFault("key", "there is no certificate for it: set certificate as well")
        if self.tls == "off" and self.certificate is not None:
            raise TableFault("certificate", "tls is off here: set tls to starttls or implicit")
        return self
