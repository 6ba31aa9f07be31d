"""Whether one copy of a message was stored, and the replies that follow from it.

The invariant: every recipient that shares the copy gets its reply once, whichever comes first, the
question or the outcome. A failure of the store's own is answered 4xx, so that the client keeps the
message and tries again.

Threads ask and tell without a lock: what waits is put into a queue before the outcome is looked at,
and whoever finds the outcome there takes from the queue what nobody else has taken.
"""

import errno
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from lmtp_proto import Recipient, Reply

from ._folders import NoFolderError, Place
from ._quota import QuotaExceeded
from ._retries import Recognised

_logger: Final = logging.getLogger("mailstore")


class MailLoopError(Exception):
    """The message has passed so many hosts that it goes in circles."""


class PendingReply:
    """One recipient's reply, as soon as it is known (an `lmtp_proto.Pending`).

    What a `concurrent.futures.Future` would be, at a fraction of its cost: one is made for each
    delivery.
    """

    __slots__ = ("_callbacks", "_reply")

    def __init__(self) -> None:
        self._reply: Reply | None = None
        self._callbacks: deque[Callable[[object], object]] = deque()

    def add_done_callback(self, callback: Callable[[object], object], /) -> None:
        """Call `callback` once the reply is known: now, or in the thread that sets it."""
        self._callbacks.append(callback)
        if self._reply is not None:
            self._call()

    def result(self) -> Reply:
        """The reply; waits for it."""
        if self._reply is None:
            known = threading.Event()
            self.add_done_callback(lambda _: known.set())
            known.wait()
        assert self._reply is not None
        return self._reply

    def set(self, reply: Reply) -> None:
        """The reply is known."""
        self._reply = reply
        self._call()

    def _call(self) -> None:
        while True:
            try:
                callback = self._callbacks.popleft()
            except IndexError:
                return
            try:
                callback(self)
            except Exception:
                # One who waits does not take the others' replies away.
                _logger.exception("a callback failed")


class Outcome:
    """Whether the copy in `place` was stored, for every recipient that shares it."""

    __slots__ = ("_error", "_id", "_set", "_waiting", "place", "report")

    def __init__(self, place: Place, transaction_id: str) -> None:
        self.place = place
        self.report: Callable[[Recipient, Exception | None], None] | None = None
        """Called for each recipient before it has its reply."""
        self._id = transaction_id
        self._set = False
        self._error: Exception | None = None
        self._waiting: deque[tuple[Recipient, PendingReply]] = deque()

    def reply_to(self, recipient: Recipient) -> PendingReply:
        """The reply for one of the recipients, as soon as the outcome is known."""
        pending = PendingReply()
        self._waiting.append((recipient, pending))
        if self._set:
            self._tell()
        return pending

    def set(self, error: Exception | None) -> None:
        """The copy was stored, or failed with `error`."""
        self._error = error
        self._set = True
        self._tell()

    def _tell(self) -> None:
        while True:
            try:
                recipient, pending = self._waiting.popleft()
            except IndexError:
                return
            if self.report is not None:
                tell(self.report, recipient, self._error)
            pending.set(self._reply(recipient))

    def _reply(self, recipient: Recipient) -> Reply:
        error = self._error
        if error is None:
            return Reply(250, f"<{recipient}> {self._id} Saved", enhanced="2.0.0")
        if isinstance(error, QuotaExceeded):
            return error.reply(recipient)
        if isinstance(error, Recognised):
            _logger.info(
                "%s: a retry is recognised: %a has the message for <%s> already",
                self._id,
                str(self.place),
                str(recipient).encode("ascii", "backslashreplace").decode(),
            )
            return Reply(250, f"<{recipient}> {self._id} Saved before", enhanced="2.0.0")
        reply = refusal(error, recipient)
        if isinstance(error, NoFolderError):
            # Nothing is wrong here: it was asked for.
            return reply
        if isinstance(error, MailLoopError):
            name = str(recipient).encode("ascii", "backslashreplace").decode()
            _logger.warning("%s: a message to <%s> was refused: %s", self._id, name, error)
            return reply
        _logger.error(
            "%s: delivery to <%s> in %a failed with %s: %a: %s",
            self._id,
            str(recipient).encode("ascii", "backslashreplace").decode(),
            str(self.place),
            errno.errorcode.get(getattr(error, "errno", None) or 0, type(error).__name__),
            str(error),
            reply,
            exc_info=None if isinstance(error, OSError) else error,
        )
        return reply


def tell(
    report: Callable[[Recipient, Exception | None], None],
    recipient: Recipient,
    error: Exception | None,
) -> None:
    """Call `report`; whatever it raises, the recipient is answered."""
    try:
        report(recipient, error)
    except Exception:
        _logger.exception("a report failed")


def refusal(error: Exception, recipient: Recipient) -> Reply:
    """The reply to a recipient whose copy failed with `error`."""
    if isinstance(error, NoFolderError):
        return Reply(550, f"<{recipient}> {error}", enhanced="5.1.1")
    if isinstance(error, MailLoopError):
        return Reply(554, f"<{recipient}> mail loop: {error}", enhanced="5.4.6")
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOSPC:
        return Reply(452, f"<{recipient}> insufficient system storage", enhanced="4.3.1")
    if number == errno.EDQUOT:
        return Reply(452, f"<{recipient}> mailbox is full", enhanced="4.2.2")
    if number == errno.ETIMEDOUT:
        return Reply(451, f"<{recipient}> Timeout while waiting for lock", enhanced="4.2.0")
    return Reply(451, f"<{recipient}> temporary internal error", enhanced="4.3.0")
