"""The table `[limits]`."""

from typing import Annotated, Literal

from pydantic import Field

from lmtp_proto import Limits, PathRules

from ._table import About, Allowed, Table
from ._types import Octets, Timeout, count

_DEFAULT = Limits()
_MOST = 1 << 31


class LimitsTable(Table):
    """What a session takes before it refuses, and how many sessions there are."""

    message_size: Annotated[
        Octets, About(meaning="octets of the largest message; a larger one is refused with 552")
    ] = _DEFAULT.message_size
    recipients: Annotated[
        int, *count(100, _MOST), About(meaning="accepted recipients of a transaction")
    ] = _DEFAULT.recipients
    transactions: Annotated[
        int | None, *count(1, _MOST), About(meaning="transactions of a session, then 421")
    ] = None
    commands: Annotated[
        int | None, *count(1, _MOST), About(meaning="commands of a session, then 421")
    ] = None
    faults: Annotated[
        int, *count(1, _MOST), About(meaning="wrong commands in a row, before 421")
    ] = _DEFAULT.faults
    command_line: Annotated[
        int, *count(512, 1 << 20, "octets"), About(meaning="the longest command line")
    ] = _DEFAULT.command_line
    session_time: Annotated[
        Timeout | None, About(meaning="how long a session may last, then 421")
    ] = None
    command_timeout: Annotated[Timeout, About(meaning="for a whole command to arrive")] = (
        _DEFAULT.command_timeout
    )
    content_timeout: Annotated[
        Timeout, About(meaning="for the next octets of a message to arrive")
    ] = _DEFAULT.content_timeout
    content_rate: Annotated[
        int,
        *count(0, _MOST, "octets a second"),
        About(meaning="at which a message has to come, on average; 0: any"),
    ] = _DEFAULT.content_rate
    handshake_timeout: Annotated[
        Timeout, About(meaning="for TLS handshakes and PROXY headers", dovecot=("haproxy_timeout",))
    ] = _DEFAULT.handshake_timeout
    write_timeout: Annotated[Timeout, About(meaning="for the client to read its replies")] = (
        _DEFAULT.write_timeout
    )
    client_limit: Annotated[
        int,
        *count(1, _MOST),
        About(
            meaning="connections of one worker; the next is told 421",
            dovecot=("service lmtp: client_limit",),
        ),
    ] = 1000
    total_client_limit: Annotated[
        int | None,
        *count(1, _MOST),
        About(meaning="connections of all workers together; the next is told 421"),
    ] = None
    user_concurrency_limit: Annotated[
        int,
        *count(0, 4096),
        About(
            meaning="deliveries to one user that are on their way at a time, over all workers; the"
            " next is told 451; 0: any",
            dovecot=("lmtp_user_concurrency_limit",),
        ),
    ] = 0
    client_workarounds: Annotated[
        list[Literal["whitespace-before-path", "mailbox-for-path", "missing-domain"]],
        Allowed(
            "a list of whitespace-before-path (spaces in `FROM: <a@b>`), mailbox-for-path (no"
            " angle brackets), missing-domain"
        ),
        About(
            meaning="faults of clients that are overlooked", dovecot=("lmtp_client_workarounds",)
        ),
    ] = Field(default_factory=list)

    @property
    def limits(self) -> Limits:
        """Those of the protocol."""
        return Limits(
            message_size=self.message_size,
            discard=max(_DEFAULT.discard, self.message_size),
            recipients=self.recipients,
            transactions=self.transactions,
            commands=self.commands,
            faults=self.faults,
            command_line=self.command_line,
            session_time=self.session_time,
            command_timeout=self.command_timeout,
            content_timeout=self.content_timeout,
            content_rate=self.content_rate,
            handshake_timeout=self.handshake_timeout,
            write_timeout=self.write_timeout,
        )

    @property
    def path_rules(self) -> PathRules:
        """What is taken in MAIL and RCPT beyond the RFC."""
        return PathRules(
            **{rule.replace("-", "_"): True for rule in self.client_workarounds},
        )
