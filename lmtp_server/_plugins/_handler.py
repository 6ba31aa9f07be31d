"""The handler that asks plugins around another.

The invariant: the other handler's replies go out as they are; a hook that takes long holds up
nobody but those it judges, and the hooks after delivery not even them.
"""

import logging
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from queue import Full, Queue
from typing import Final, TypeVar

from lmtp_proto import (
    Answer,
    Handler,
    Mail,
    Recipient,
    Reply,
    Session,
    Sink,
    Transaction,
)
from lmtp_server._privileges import AgentHandler, AgentSink
from lmtp_server._users import Located
from lmtp_server.plugins import Content, Delivery
from mailstore import StoreHandler

from ._load import Plugins

_logger: Final = logging.getLogger("lmtp_server")

_T = TypeVar("_T")
_Find = Callable[[Recipient], object]

_HEADER: Final = 64 * 1024
_WAITING: Final = 10_000
# Seconds that the hooks after delivery have when the worker ends, which is soon killed then.
_LAST_WORDS: Final = 2.0
_NEGATIVE: Final = range(400, 600)
_SENDS_AWAY: Final = (421, 554)


class PluginHandler(Handler):
    """Asks `plugins` around `inner`. `find` gives the user of a recipient: a `Located`, a refusal,
    or a job that finds it. With `detail_is_mailbox` mail goes to the mailbox of the detail."""

    def __init__(
        self,
        inner: StoreHandler | AgentHandler,
        plugins: Plugins,
        find: _Find,
        *,
        detail_is_mailbox: bool,
    ) -> None:
        self._inner = inner
        self._plugins = plugins
        self._find = find
        self._detail_is_mailbox = detail_is_mailbox
        self._judges_connect = plugins.has("lmtp_connect")
        self._judges_rcpt = plugins.has("lmtp_rcpt")
        self._judges_delivery = plugins.has("lmtp_before_delivery")
        self._after = _After(plugins) if plugins.has("lmtp_after_delivery") else None
        plugins.tell("lmtp_started")

    def stop(self) -> None:
        """The sessions are over."""
        if self._after is not None:
            self._after.stop()
        self._plugins.tell("lmtp_stopped")

    def connect(self, session: Session, /) -> Answer[Reply | None]:
        """A plugin may send the client away."""
        if not self._judges_connect:
            return self._inner.connect(session)
        return partial(self._connect, session)

    def _connect(self, session: Session) -> Reply | None:
        reply = self._plugins.judge("lmtp_connect", _SENDS_AWAY, session=session)
        return reply or _settle(self._inner.connect(session))

    def trusts(self, session: Session, /) -> bool:
        """As it was."""
        return self._inner.trusts(session)

    def lhlo(self, session: Session, domain: str, /) -> Answer[Reply | None]:
        """As it was."""
        return self._inner.lhlo(session, domain)

    def mail(self, session: Session, mail: Mail, /) -> Answer[Reply | None]:
        """As it was."""
        return self._inner.mail(session, mail)

    def rcpt(self, transaction: Transaction, recipient: Recipient, /) -> Answer[Reply | None]:
        """A plugin may refuse the recipient, before its place is looked for."""
        if not self._judges_rcpt:
            return self._inner.rcpt(transaction, recipient)
        return partial(self._rcpt, transaction, recipient)

    def _rcpt(self, transaction: Transaction, recipient: Recipient) -> Reply | None:
        reply = self._plugins.judge(
            "lmtp_rcpt", _NEGATIVE, transaction=transaction, recipient=recipient
        )
        return reply or _settle(self._inner.rcpt(transaction, recipient))

    def vrfy(self, session: Session, text: str, /) -> Answer[Reply | None]:
        """As it was."""
        return self._inner.vrfy(session, text)

    def open(self, transaction: Transaction, /) -> Answer[Sink | Reply]:
        """The content goes where it went, past the plugins that are told of deliveries."""
        inner = self._inner.open(transaction)
        if not self._judges_delivery and self._after is None:
            return inner
        return _Sink(
            inner,
            transaction,
            self._plugins if self._judges_delivery else None,
            self._after,
            self._place,
        )

    def disconnect(self, session: Session, /) -> None:
        """As it was."""
        self._inner.disconnect(session)

    def _place(self, recipient: Recipient) -> tuple[str, str]:
        """The user and the mailbox; may block."""
        found = self._find(recipient)
        if callable(found):
            found = found()
        if not isinstance(found, Located):
            return "", "INBOX"
        detail = found.detail if self._detail_is_mailbox else ""
        return found.user, detail or "INBOX"


class _Sink:
    """Watches the content of one message on its way (an `lmtp_proto.Sink`)."""

    def __init__(
        self,
        inner: Sink,
        transaction: Transaction,
        judges: Plugins | None,
        after: "_After | None",
        place: Callable[[Recipient], tuple[str, str]],
    ) -> None:
        self._inner = inner
        self._transaction = transaction
        self._judges = judges
        self._after = after
        self._place = place
        self._header = bytearray()
        self._header_ended = False
        self._size = 0
        self._lines = 0
        self._content: Content | None = None
        self._lock = threading.Lock()
        self._answers: dict[Recipient, Answer[Reply] | Exception] | None = None

    def write(self, data: bytes, /) -> Answer[Reply | None]:
        self._size += len(data)
        self._lines += data.count(b"\n")
        if not self._header_ended:
            before = max(0, len(self._header) - 3)
            self._header += data[: _HEADER - len(self._header)]
            end = self._header.find(b"\r\n\r\n", before)
            if end >= 0:
                del self._header[end + 4 :]
            self._header_ended = end >= 0 or len(self._header) == _HEADER
        return self._inner.write(data)

    def deliver(self, recipient: Recipient, /) -> Answer[Reply]:
        if self._content is None:
            self._content = Content(bytes(self._header), self._size, self._lines)
        if self._judges is not None:
            return partial(self._judge_and_deliver, self._judges, recipient)
        answer = self._inner.deliver(recipient)
        if callable(answer) or isinstance(answer, Reply | Awaitable):
            return partial(self._finish, recipient, answer)
        answer.add_done_callback(partial(self._done, recipient))
        return answer

    def close(self) -> None:
        self._inner.close()

    def _done(self, recipient: Recipient, pending: object) -> None:
        try:
            reply = pending.result()  # type: ignore[attr-defined]  # who calls back is the pending
        except Exception:
            # The server logs it, and answers 451.
            return
        self._tell(recipient, reply)

    def _finish(self, recipient: Recipient, answer: Answer[Reply]) -> Reply:
        reply = _settle(answer)
        self._tell(recipient, reply)
        return reply

    def _judge_and_deliver(self, plugins: Plugins, recipient: Recipient) -> Reply:
        with self._lock:
            # All at once: agents are given a message for all of their recipients together.
            if self._answers is None:
                self._answers = self._judge(plugins)
            answer = self._answers[recipient]
        if isinstance(answer, Exception):
            raise answer
        return self._finish(recipient, answer)

    def _judge(self, plugins: Plugins) -> dict[Recipient, Answer[Reply] | Exception]:
        answers: dict[Recipient, Answer[Reply] | Exception] = {}
        recipients = self._transaction.recipients
        for recipient in recipients:
            delivery = self._delivery(recipient)
            reply = plugins.judge("lmtp_before_delivery", _NEGATIVE, delivery=delivery)
            if reply is not None:
                answers[recipient] = reply
        if isinstance(self._inner, AgentSink):
            self._inner.leave_out(answers)
        for recipient in recipients:
            if recipient not in answers:
                try:
                    answers[recipient] = self._inner.deliver(recipient)
                except Exception as error:
                    answers[recipient] = error
        return answers

    def _delivery(self, recipient: Recipient) -> Delivery:
        assert self._content is not None
        user, mailbox = self._place(recipient)
        return Delivery(
            transaction=self._transaction,
            recipient=recipient,
            user=user,
            mailbox=mailbox,
            content=self._content,
        )

    def _tell(self, recipient: Recipient, reply: Reply) -> None:
        if self._after is not None:
            self._after.put(partial(self._delivery, recipient), reply)


class _After:
    """Calls the hooks after delivery, in one thread, in the order of the replies."""

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins
        self._queue: Queue[tuple[Callable[[], Delivery], Reply] | None] = Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="plugins", daemon=True)
        self._thread.start()

    def put(self, delivery: Callable[[], Delivery], reply: Reply) -> None:
        """Have the plugins told."""
        try:
            self._queue.put_nowait((delivery, reply))
        except Full:
            _logger.error("plugins: %s deliveries wait to be told: one is left out", _WAITING)

    def stop(self) -> None:
        """Wait, for a while, until they are told of all."""
        try:
            self._queue.put(None, timeout=_LAST_WORDS / 2)
        except Full:
            pass
        self._thread.join(_LAST_WORDS / 2)
        if self._thread.is_alive():
            _logger.error("plugins: not told of %s deliveries", self._queue.qsize())

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            make, reply = item
            try:
                delivery = make()
            except Exception:
                _logger.exception("plugins: a delivery cannot be told of")
            else:
                self._plugins.tell("lmtp_after_delivery", delivery=delivery, reply=reply)


def _settle(answer: Answer[_T]) -> _T:
    """What an answer comes to; waits for it."""
    if callable(answer):
        value: _T = answer()
        return value
    wait = getattr(answer, "result", None)
    if wait is not None:
        result: _T = wait()
        return result
    # The daemon's handlers give no awaitables, and no reply has a result.
    return answer  # type: ignore[return-value]
