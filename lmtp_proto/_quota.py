"""What a session may have altogether: commands and time.

A message whose content has begun is never cut off for want of time: its client would send all of it
again (RFC 5321 3.8 lets a server end between two commands).
"""

from collections.abc import Callable
from math import inf
from typing import Final

from ._events import ConnectionClosed, Content, EndOfChunk, EndOfContent, ServerEvent
from ._limits import Limits
from ._reply import Reply

_TOO_MANY_COMMANDS: Final = Reply(421, "too many commands in one session", enhanced="4.7.0")
_TOO_LONG: Final = Reply(421, "the session has lasted too long", enhanced="4.4.2")


class Quota:
    """What is left of `Limits.commands` and `Limits.session_time`, which begins here."""

    __slots__ = ("_clock", "_commands", "_end", "_most")

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._commands = 0
        self._most = inf if limits.commands is None else limits.commands
        self._end = inf if limits.session_time is None else clock() + limits.session_time

    @staticmethod
    def needed(limits: Limits) -> bool:
        """Whether there is something to count."""
        return limits.commands is not None or limits.session_time is not None

    def deadline(self, deadline: float) -> float:
        """When the wait for a command ends that would end at `deadline`."""
        return min(deadline, self._end)

    def refusal(self, event: ServerEvent, *, amid_content: bool) -> Reply | None:
        """Count `event`; the 421 that it is answered with instead, None where it is served."""
        if isinstance(event, Content | EndOfChunk | EndOfContent | ConnectionClosed):
            return None
        self._commands += 1
        if self._commands > self._most:
            return _TOO_MANY_COMMANDS
        return None if amid_content else self.overtime(self._clock())

    def overtime(self, now: float) -> Reply | None:
        """The 421 that ends a session whose time is over, None where it is not."""
        return _TOO_LONG if now >= self._end else None
