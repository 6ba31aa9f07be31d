"""The table `worker`: what one worker process takes, and when it is replaced."""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from lmtp_server._workers import Rules

_MIB: Final = 2**20

_Count = Annotated[int | None, Field(ge=1, description="a whole number from 1 on")]
_Mebibytes = Annotated[int | None, Field(ge=16, description="MiB, a whole number from 16 on")]


class WorkerTable(BaseModel):
    """Limits and renewal of workers. What is not set never happens."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    client_limit: Annotated[int, Field(ge=1, description="a whole number from 1 on")] = 1000
    """Connections of one worker at a time; one more is told 421."""
    total_client_limit: _Count = None
    """Connections of all workers together; one more is told 421."""
    restart_after_connections: _Count = None
    restart_after_transactions: _Count = None
    restart_jitter: Annotated[
        float, Field(ge=0, le=1, description="a part of the count, from 0 to 1")
    ] = 0.1
    """Part of both counts by which each worker's may be lower, at random."""
    memory_limit: _Mebibytes = None
    """Resident memory after which a worker is replaced."""
    memory_hard_limit: _Mebibytes = None
    """Resident memory after which a worker is killed."""
    heartbeat: Annotated[
        float,
        Field(ge=0, le=86400, allow_inf_nan=False, description="seconds from 0 (never) to 86400"),
    ] = 30.0
    """Seconds without a sign of life after which a worker is killed."""

    def rules(self) -> Rules:
        """For the supervisor."""
        return Rules(
            max_connections=self.restart_after_connections,
            max_transactions=self.restart_after_transactions,
            jitter=self.restart_jitter,
            memory_limit=_octets(self.memory_limit),
            memory_hard_limit=_octets(self.memory_hard_limit),
            heartbeat=self.heartbeat or None,
        )


def _octets(mebibytes: int | None) -> int | None:
    return None if mebibytes is None else mebibytes * _MIB
