"""The table `[log]`."""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from lmtp_server._logs import (
    DELIVER_FORMAT,
    FACILITIES,
    PREFIX,
    TIMESTAMP,
    LineFormat,
    LogOptions,
    RawlogOptions,
)

from ._table import About, Allowed, Table
from ._types import Flag, Networks, Path, Text, count

_DEFAULT = LogOptions()
_PLACE = "a path, stderr, syslog or journal"


def _format(*, prefix: bool) -> Callable[[str], str]:
    def check(text: str) -> str:
        LineFormat(text, prefix=prefix)
        return text

    return check


def _facility(text: str) -> str:
    if text not in FACILITIES:
        raise ValueError(f"{text!a} is not allowed; allowed are {', '.join(FACILITIES)}")
    return text


class LogTable(Table):
    """Where the log goes and what is in it."""

    path: Annotated[
        Path,
        Allowed(_PLACE),
        About(
            meaning="where warnings and errors go, and all that has no other place: a file,"
            " standard error, the system's log or systemd's journal",
            dovecot=("log_path",),
        ),
    ] = _DEFAULT.path
    info_path: Annotated[
        Text,
        Allowed(f"{_PLACE}; none: that of `path`"),
        About(meaning="where lines at info go, as those of deliveries", dovecot=("info_log_path",)),
    ] = ""
    debug_path: Annotated[
        Text,
        Allowed(f"{_PLACE}; none: that of `info_path`"),
        About(meaning="where lines at debug go", dovecot=("debug_log_path",)),
    ] = ""
    debug: Annotated[
        Flag,
        About(
            meaning="a line for each connection and command, without its arguments",
            dovecot=("mail_debug", "log_debug"),
        ),
    ] = False
    format: Annotated[
        Literal["text", "json"],
        Allowed("text or json"),
        About(meaning="what lines in files and on standard error are"),
    ] = "text"
    timestamp: Annotated[
        Text,
        Allowed("a text for strftime(3), with %f for microseconds"),
        About(meaning="the time in front of such lines", dovecot=("log_timestamp",)),
    ] = TIMESTAMP
    syslog_facility: Annotated[
        str,
        AfterValidator(_facility),
        Allowed(f"one of {', '.join(FACILITIES)}"),
        About(
            meaning="what the system's log and the journal sort by", dovecot=("syslog_facility",)
        ),
    ] = _DEFAULT.syslog_facility
    syslog_socket: Annotated[Path, About(meaning="where the system's log listens")] = (
        _DEFAULT.syslog_socket
    )
    journal_socket: Annotated[Path, About(meaning="where the journal listens")] = (
        _DEFAULT.journal_socket
    )
    repeats: Annotated[
        int,
        *count(0, 1 << 31),
        About(
            meaning="lines of one kind in ten seconds, those of deliveries aside; more are counted"
            " and the count is logged; 0: any"
        ),
    ] = _DEFAULT.repeats
    deliver_format: Annotated[
        Text,
        AfterValidator(_format(prefix=False)),
        Allowed("a text with Dovecot's variables, such as `%{msgid}`"),
        About(meaning="the line for each recipient", dovecot=("deliver_log_format",)),
    ] = DELIVER_FORMAT
    prefix: Annotated[
        Text,
        AfterValidator(_format(prefix=True)),
        Allowed("a text with Dovecot's variables, such as `%{user}`"),
        About(meaning="what stands in front of it", dovecot=("mail_log_prefix",)),
    ] = PREFIX
    rawlog_dir: Annotated[
        Path | None,
        About(
            meaning="where rawlogs go, if it is there and the workers may write there; unset: there"
            " are none",
            dovecot=("lmtp_rawlog_dir",),
        ),
    ] = None
    rawlog_networks: Annotated[Networks, About(meaning="clients whose sessions are recorded")] = (
        Field(default_factory=list)
    )
    rawlog_users: Annotated[
        list[Text],
        Allowed("a list of users, with or without their domain"),
        About(meaning="users whose mail is recorded; without networks and users every session is"),
    ] = Field(default_factory=list)

    @property
    def options(self) -> LogOptions:
        """Where lines go."""
        return LogOptions(
            path=self.path,
            info_path=self.info_path,
            debug_path=self.debug_path,
            debug=self.debug,
            format=self.format,
            timestamp=self.timestamp,
            syslog_facility=self.syslog_facility,
            syslog_socket=self.syslog_socket,
            journal_socket=self.journal_socket,
            repeats=self.repeats,
        )

    def rawlogs(self, delimiters: str) -> RawlogOptions | None:
        """What is recorded, None for nothing."""
        if self.rawlog_dir is None:
            return None
        return RawlogOptions(
            directory=self.rawlog_dir,
            networks=[network.value for network in self.rawlog_networks],
            users=frozenset(user.lower() for user in self.rawlog_users),
            delimiters=delimiters,
        )
