"""The table `[retries]`."""

from typing import Annotated

from mailstore import RetryOptions

from ._table import About, Table
from ._types import Flag, Timeout, count

_DEFAULT = RetryOptions()


class RetriesTable(Table):
    """Messages that come again because the client has not seen their reply."""

    recognise: Annotated[Flag, About(meaning="answer them 250 and do not store them again")] = False
    window: Annotated[Timeout, About(meaning="how long a delivery is remembered")] = _DEFAULT.window
    entries: Annotated[
        int, *count(1, 4096), About(meaning="deliveries to a user that are remembered")
    ] = _DEFAULT.entries
    lock_timeout: Annotated[
        Timeout,
        About(meaning="how long to wait for another delivery of the same message, before 451"),
    ] = _DEFAULT.lock_timeout

    @property
    def options(self) -> RetryOptions | None:
        """What a store takes."""
        if not self.recognise:
            return None
        return RetryOptions(
            window=self.window, entries=self.entries, lock_timeout=self.lock_timeout
        )
