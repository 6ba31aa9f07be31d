"""The table `[worker]`."""

from typing import Annotated

from pydantic import Field

from ._table import About, Allowed, Table
from ._types import Seconds, Size, count

_MOST = 1 << 31


class WorkerTable(Table):
    """What a worker takes, and when it is replaced: its successor is ready before it ends."""

    client_limit: Annotated[
        int,
        *count(1, _MOST),
        About(
            meaning="connections of one worker at a time; the next is told 421",
            dovecot="service lmtp: client_limit",
        ),
    ] = 1000
    total_client_limit: Annotated[
        int | None,
        *count(1, _MOST),
        About(
            meaning="connections of all workers together; the next is told 421",
            dovecot="service lmtp: process_limit",
        ),
    ] = None
    restart_after_connections: Annotated[
        int | None,
        *count(1, _MOST),
        About(
            meaning="connections after which a worker is replaced",
            dovecot="service lmtp: service_count, restart_request_count",
        ),
    ] = None
    restart_after_transactions: Annotated[
        int | None,
        *count(1, _MOST),
        About(meaning="transactions after which a worker is replaced"),
    ] = None
    restart_jitter: Annotated[
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
        Seconds, About(meaning="without a sign of life, after which a worker is killed; 0: never")
    ] = 30.0
