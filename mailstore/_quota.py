"""Quota: what a mailbox may hold, and who says so.

The invariant: a refusal means that the counter was read and that the message does not fit; a
counter that cannot be read is QuotaUnavailable, never a refusal for good and never room.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, Self

from lmtp_proto import Recipient, Reply

from ._quota_rules import Amount, Limits, QuotaRules, Thresholds, read_amount, read_thresholds

_GRACE: Final = Amount(10, percent=True)
_EXCEEDED: Final = "Quota exceeded (mailbox for user is full)"
_TOO_LARGE: Final = "Mail size is larger than the maximum size allowed by server configuration"


@dataclass(frozen=True, slots=True)
class Usage:
    """What the folders of a user hold together."""

    octets: int
    messages: int


class QuotaExceeded(Exception):  # noqa: N818  # it says what is so, as the reply does
    """The message does not fit."""

    def __init__(self, code: int, enhanced: str, text: str) -> None:
        super().__init__(text)
        self._code = code
        self._enhanced = enhanced
        self._text = text

    def reply(self, recipient: Recipient) -> Reply:
        """What the client is told."""
        return Reply(self._code, f"<{recipient}> {self._text}", enhanced=self._enhanced)


class QuotaUnavailable(OSError):  # noqa: N818  # it says what is so
    """The counter cannot be asked; the client is to try again."""


@dataclass(frozen=True, slots=True)
class QuotaWarning:
    """A command to run when the usage reaches a limit or, with `under`, falls below it again."""

    thresholds: Thresholds
    command: tuple[str, ...]
    under: bool = False

    @classmethod
    def parse(cls, definition: str, command: Sequence[str]) -> Self:
        """From Dovecot's `storage=95%` or `-storage=100%`, and a program with its arguments, which
        is run as it is, without a shell. Raises ValueError."""
        if not command or not command[0]:
            raise ValueError(f"the quota warning {definition!a} has no command")
        under = definition.startswith("-")
        text = definition.removeprefix("-" if under else "+")
        return cls(read_thresholds(text), tuple(command), under)

    def applies(self, limits: Limits, before: Usage, after: Usage) -> bool:
        """Whether going from `before` to `after` crosses the threshold."""
        if self.under:
            before, after = after, before
        octets, messages = self.thresholds.octets, self.thresholds.messages
        return (
            octets is not None and before.octets < octets.of(limits.octets) <= after.octets
        ) or (
            messages is not None
            and before.messages < messages.of(limits.messages) <= after.messages
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaPolicy:
    """All that is set about one user's quota."""

    rules: QuotaRules
    grace: Amount = _GRACE
    """How far the message that fills a mailbox may go beyond the limit on storage; a percentage
    is of the limit for all folders (`quota_grace`)."""
    mail_size: int = 0
    """Octets of the largest message, 0 for any (`quota_max_mail_size`)."""
    mailbox_count: int = 0
    """How many mailboxes a user may have, the INBOX included, before a message makes no more; 0 for
    any number (`quota_mailbox_count`)."""
    warnings: tuple[QuotaWarning, ...] = ()
    """The first that applies is run: put the highest first."""
    full_tempfail: bool = False
    """Answer a full mailbox 452 4.2.2, for the client to try again, in place of 552 5.2.2."""
    exceeded_message: str = _EXCEEDED
    """The text of that reply; printable ASCII."""

    @classmethod
    def parse(
        cls,
        *rules: str,
        grace: str = "10%",
        mail_size: str = "0",
        mailbox_count: int = 0,
        warnings: Iterable[tuple[str, Sequence[str]]] = (),
        full_tempfail: bool = False,
        exceeded_message: str = _EXCEEDED,
    ) -> Self:
        """From the values of Dovecot's settings; see `QuotaRules` and `QuotaWarning`. Raises
        ValueError."""
        largest = read_amount(mail_size)
        if largest.percent:
            raise ValueError(f"the largest mail size {mail_size!a} must not be a percentage")
        if mailbox_count < 0:
            raise ValueError(f"the number of mailboxes {mailbox_count} is negative: 0 is any")
        if not exceeded_message.isascii() or not exceeded_message.isprintable():
            raise ValueError(f"the message {exceeded_message!a} is not printable ASCII")
        return cls(
            rules=QuotaRules(*rules),
            grace=read_amount(grace),
            mail_size=largest.value,
            mailbox_count=mailbox_count,
            warnings=tuple(QuotaWarning.parse(*warning) for warning in warnings),
            full_tempfail=full_tempfail,
            exceeded_message=exceeded_message,
        )

    @property
    def room_beyond(self) -> int:
        """The grace in octets."""
        return self.grace.of(self.rules.default.octets)

    def check_size(self, size: int) -> None:
        """Raise QuotaExceeded for a message larger than any may be."""
        if self.mail_size and size > self.mail_size:
            raise QuotaExceeded(552, "5.2.3", _TOO_LARGE)

    def exceeded(self) -> QuotaExceeded:
        """The refusal of a full mailbox."""
        if self.full_tempfail:
            return QuotaExceeded(452, "4.2.2", self.exceeded_message)
        return QuotaExceeded(552, "5.2.2", self.exceeded_message)

    def has_room(self, limits: Limits, used: Usage, size: int) -> bool:
        """Whether a message of `size` octets fits beside what is there.

        One that fills the mailbox may go beyond by the grace; after it there is no room.
        """
        if limits.messages and used.messages + 1 > limits.messages:
            return False
        return not limits.octets or (
            used.octets <= limits.octets and used.octets + size <= limits.octets + self.room_beyond
        )

    def warning(self, before: Usage, after: Usage) -> QuotaWarning | None:
        """The warning to run when the usage goes from `before` to `after`."""
        limits = self.rules.default
        return next((one for one in self.warnings if one.applies(limits, before, after)), None)


class Reservation(Protocol):
    """Room held for one message until it is known whether it was stored. Call one of the two,
    once, in any thread; neither raises."""

    def commit(self) -> None:
        """The message was stored."""

    def cancel(self) -> None:
        """It was not."""


class Quota(Protocol):
    """The quota of one user. All methods may block and raise OSError where they cannot tell."""

    @property
    def mailbox_count(self) -> int:
        """How many mailboxes the user may have before a message makes no more; 0 for any number.
        Never blocks."""

    def check(self, size: int, *, folder: str = "INBOX") -> None:
        """Raise QuotaExceeded where a message of `size` octets (0 where that is not known) has no
        room now. Holds nothing: for RCPT."""

    def reserve(self, size: int, *, folder: str = "INBOX", enforced: bool = True) -> Reservation:
        """Hold room for a message of `size` octets on disk. Raises QuotaExceeded if there is none
        and `enforced` is set; else the message is only counted."""

    def usage(self) -> Usage:
        """What is counted."""

    def recalculate(self) -> Usage:
        """Count anew all that is there, and keep the result."""


def store_within(
    quota: Quota,
    size: int,
    store: Callable[[], None],
    *,
    folder: str = "INBOX",
    enforced: bool = True,
) -> None:
    """Call `store`, which stores a message of `size` octets in `folder`, with room held for it.

    Raises what `store` raises, QuotaExceeded and OSError.
    """
    room = quota.reserve(size, folder=folder, enforced=enforced)
    try:
        store()
    except BaseException:
        room.cancel()
        raise
    room.commit()


class NothingReserved:
    """For a message in a folder that does not count (a `Reservation`)."""

    __slots__ = ()

    def commit(self) -> None:
        """Nothing to do."""

    def cancel(self) -> None:
        """Nothing to do."""
