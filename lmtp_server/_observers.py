"""Several observers of the same sessions.

The invariant: all are told of everything, whatever one of them raises.
"""

from collections.abc import Callable, Sequence

from lmtp_proto import Observer, Recipient, Reply, Session, Transaction


def observe(observers: Sequence[Observer]) -> Observer | None:
    """All of them as one, in this order; None where there is none, which costs nothing."""
    if len(observers) > 1:
        return _Observers(observers)
    return observers[0] if observers else None


class _Observers(Observer):
    """Tells each; what the first of them raised is raised when all have been told."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def connected(self, session: Session, /) -> None:
        self._each(lambda each: each.connected(session))

    def commanded(self, session: Session, verb: str, reply: Reply, seconds: float, /) -> None:
        self._each(lambda each: each.commanded(session, verb, reply, seconds))

    def transaction_begun(self, transaction: Transaction, /) -> None:
        self._each(lambda each: each.transaction_begun(transaction))

    def recipient_refused(
        self, transaction: Transaction, recipient: Recipient, reply: Reply, /
    ) -> None:
        self._each(lambda each: each.recipient_refused(transaction, recipient, reply))

    def recipient_answered(
        self, transaction: Transaction, recipient: Recipient, reply: Reply, seconds: float, /
    ) -> None:
        self._each(lambda each: each.recipient_answered(transaction, recipient, reply, seconds))

    def transaction_ended(self, transaction: Transaction, octets: int, seconds: float, /) -> None:
        self._each(lambda each: each.transaction_ended(transaction, octets, seconds))

    def shut_down(self, session: Session, reply: Reply, /) -> None:
        self._each(lambda each: each.shut_down(session, reply))

    def disconnected(
        self, session: Session, octets_in: int, octets_out: int, seconds: float, /
    ) -> None:
        self._each(lambda each: each.disconnected(session, octets_in, octets_out, seconds))

    def _each(self, tell: Callable[[Observer], None]) -> None:
        first: Exception | None = None
        for observer in self._observers:
            try:
                tell(observer)
            except Exception as error:
                first = first or error
        if first is not None:
            raise first
