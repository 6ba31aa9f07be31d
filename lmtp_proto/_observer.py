"""What a server's operator may watch: sessions, commands, transactions and recipients.

An observer decides nothing. It is called by the conversation as things happen, so it must not
block; one that raises harms no session.
"""

from typing import TYPE_CHECKING

from ._events import Recipient
from ._reply import Reply

if TYPE_CHECKING:
    from ._handler import Session, Transaction


class Observer:
    """Watches a server's sessions: override what is of interest.

    Given to a server in `Settings.observer`. Its methods are called where the session runs: in the
    event loop, or in several threads at the same time on a runtime that has them. Seconds are of
    the runtime's clock, octets are those of LMTP, without TLS. `session.id` names a session (a
    trusted client may change it by XCLIENT), `transaction.id` a transaction and
    `transaction.recipient_id(recipient)` a recipient. What a method raises is logged the first time
    that this method raises, and otherwise ignored.
    """

    def connected(self, session: "Session", /) -> None:
        """A session begins: nothing has been said yet.

        Connections that never become sessions, as there are too many or their TLS handshake or
        PROXY header fails, are not observed.
        """

    def commanded(self, session: "Session", verb: str, reply: Reply, seconds: float, /) -> None:
        """A command has its reply, `seconds` after it was read.

        `verb` is in upper case, `""` for a line that is no command; responses to challenges are of
        `AUTH`, and `CONNECT` is the greeting. DATA has its reply before the content comes, a chunk
        (BDAT) behind it. The replies to the recipients of a content are not among these.
        """

    def transaction_begun(self, transaction: "Transaction", /) -> None:
        """MAIL was accepted."""

    def recipient_refused(
        self, transaction: "Transaction", recipient: Recipient, reply: Reply, /
    ) -> None:
        """RCPT was refused: `recipient` is none of the transaction's, and has no id."""

    def recipient_answered(
        self, transaction: "Transaction", recipient: Recipient, reply: Reply, seconds: float, /
    ) -> None:
        """A recipient has its final reply, `seconds` after the end of the content.

        Replies leave in RCPT order: one that is known early counts when its turn has come.
        """

    def transaction_ended(self, transaction: "Transaction", octets: int, seconds: float, /) -> None:
        """The transaction is over: every recipient has its reply, or it was dropped.

        `octets` of content have come, without stuffed dots and what was refused; `seconds` have
        passed since MAIL was accepted.
        """

    def shut_down(self, session: "Session", reply: Reply, /) -> None:
        """The server ends the session with a 421 `reply`: time is over, commands or faults were too
        many, or the server stops."""

    def disconnected(
        self, session: "Session", octets_in: int, octets_out: int, seconds: float, /
    ) -> None:
        """The session is over: so many octets were read and written, in so many seconds."""
