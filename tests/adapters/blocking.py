"""Calls that block where nothing may: in a thread whose event loop or hub serves all sessions.

blockbuster raises in place of such calls. It tells a thread with an event loop by the one that runs
there, so `mark_thread()` does for a gevent hub what asyncio does by itself: both are held to the
same. gevent's own monitor measures time instead, which a loaded machine takes for no reason.
"""

import asyncio
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from blockbuster import BlockBuster, blockbuster


class Detector:
    """Raises BlockingError for a call that blocks a loop, and keeps where it was: whoever catches
    the exception does not hide it."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def take(self) -> list[str]:
        """The calls found since the last time, each with its stack."""
        found, self._found = self._found, []
        return found

    @contextmanager
    def active(self) -> Iterator[None]:
        """Look at all threads."""
        detector = self

        class Found(blockbuster.BlockingError):
            def __init__(self, function: str) -> None:
                super().__init__(function)
                detector._found.append(f"{function}\n{''.join(traceback.format_stack())}")

        blocking = BlockBuster()
        for function in blocking.functions.values():
            # Files of UNIX sockets, before the first connection and when no more are accepted.
            function.can_block_in("lmtp_transport/_listener.py", {"__init__", "close"})
            # Where a log goes is the embedder's choice, here pytest's.
            function.can_block_in("logging/__init__.py", {"handle"})
            # A handler of aiosmtpd's that writes files, and a content that waits for its turn.
            function.can_block_in("aiosmtpd/handlers.py", {"handle_message"})
            function.can_block_in("adapters/test_client_faults.py", {"content"})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(blockbuster, "BlockingError", Found)
            blocking.activate()
            try:
                yield
            finally:
                blocking.deactivate()


def mark_thread() -> None:
    """Nothing may block this thread."""
    # A low-level function for those who implement event loops, says asyncio's documentation.
    asyncio._set_running_loop(asyncio.AbstractEventLoop())  # type: ignore[abstract]  # only its presence counts
