"""The table `[worker]`."""

from typing import Annotated

from pydantic import Field

from ._table import About, Allowed, Table
from ._types import Size, Timeout, count

_MOST = 1 << 31


class WorkerTable(Table):
    """When a worker is replaced. Its successor is ready before it accepts no more."""

    max_connections: Annotated[
        int | None,
        *count(1, _MOST),
        About(
            meaning="connections after which a worker is replaced",
            dovecot="service lmtp: service_count, restart_request_count",
        ),
    ] = None
    max_transactions: Annotated[
        int | None,
        *count(1, _MOST),
        About(meaning="transactions after which a worker is replaced"),
    ] = None
    jitter: Annotated[
        float,
        Field(ge=0, le=1),
        Allowed("a number from 0 to 1"),
        About(meaning="part of both by which they differ, so that not all are replaced at once"),
    ] = 0.1
    memory_limit: Annotated[
        Size | None,
        About(
            meaning="resident octets after which a worker is replaced",
            dovecot="service lmtp: vsz_limit",
        ),
    ] = None
    memory_hard_limit: Annotated[
        Size | None, About(meaning="resident octets after which it is killed")
    ] = None
    heartbeat: Annotated[
        Timeout, About(meaning="without a sign of life, after which a worker is killed")
    ] = 30.0
