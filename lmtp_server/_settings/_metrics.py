"""The table `[metrics]`."""

from typing import Annotated

from pydantic import Field

from ._table import About, Allowed, Table
from ._types import Address, FileMode, Mode, Path


class MetricsTable(Table):
    """What the server tells of itself, and where: see [metrics](metrics.md)."""

    listen: Annotated[
        list[Address],
        Allowed("a list of addresses: HOST:PORT, [IPV6]:PORT or unix:PATH"),
        About(
            meaning="where `/metrics` and `/healthz` are answered over HTTP, to whoever connects",
            dovecot=("stats: inet_listener", "metric"),
        ),
    ] = Field(default_factory=list)
    mode: Annotated[
        FileMode, About(meaning="of a UNIX socket's file among them: who may write to it may ask")
    ] = Mode(0o660)
    control: Annotated[
        Path | None,
        About(
            meaning="the socket that `lmtp-server who` and `stats` ask, for its owner alone",
            dovecot=("unix_listener stats-reader",),
            default="`BASE_DIR/control`; without `base_dir` there is none",
        ),
    ] = None
