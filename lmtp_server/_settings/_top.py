"""The top level of the settings file."""

import os
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from lmtp_server._users import CHARACTERS, MailTemplate
from lmtp_server._workers import Runtime, fastest
from mailstore import FolderOptions, LineEnding, NameEncoding, Sync

from ._content import ContentTable
from ._limits import LimitsTable
from ._listener import ListenerTable
from ._log import LogTable
from ._metrics import MetricsTable
from ._quota import QuotaTable
from ._retries import RetriesTable
from ._table import About, Allowed, Table, TableFault
from ._tls import TlsTable
from ._trace import TraceTable
from ._traces import TracesTable
from ._types import (
    Address,
    Flag,
    Group,
    Hostname,
    Path,
    ReplyText,
    Seconds,
    Size,
    Template,
    User,
    concealed,
    count,
    own_name,
)
from ._userdb import UserdbTable, WithVariables
from ._worker_rules import WorkerTable

_IDS = (1 << 32) - 2


class ServeSettings(Table):
    """Everything that the server can be told."""

    hostname: Annotated[
        Hostname,
        About(
            meaning="the server's name in its greeting, in `Received` and in file names",
            dovecot=("hostname",),
            default="the machine's name",
        ),
    ] = Field(default_factory=own_name)
    greeting: Annotated[
        ReplyText,
        About(meaning="what the greeting says behind the name", dovecot=("login_greeting",)),
    ] = "LMTP ready"
    base_dir: Annotated[
        Path | None,
        About(
            meaning="where the server has its sockets: `control` and, if nothing says where to"
            " listen, `lmtp`; made if it is missing",
            dovecot=("base_dir",),
        ),
    ] = None
    listen: Annotated[
        list[Address] | None,
        Field(min_length=1),
        Allowed(
            "a list of one or more addresses: HOST:PORT, [IPV6]:PORT, unix:PATH, systemd or"
            " systemd:NAME"
        ),
        About(
            meaning="where to listen, beside the `[[listener]]`s",
            dovecot=("listen",),
            default="if there is no `[[listener]]`: `unix:BASE_DIR/lmtp` or, without `base_dir`,"
            " `127.0.0.1:2424` and `unix:./lmtp.sock`",
        ),
    ] = None
    mail: Annotated[
        Template,
        About(
            meaning="the path of each user's Maildir, unless a userdb names another",
            dovecot=("mail_location", "mail_path"),
        ),
    ] = MailTemplate("./mail/{domain}/{user}")
    runtime: Annotated[
        Runtime,
        Allowed("asyncio, uvloop, gevent or blocking"),
        About(
            meaning="what the workers run on", default="uvloop where it is installed, else asyncio"
        ),
    ] = Field(default_factory=fastest)
    workers: Annotated[
        int,
        *count(1, 1024),
        About(
            meaning="number of worker processes",
            dovecot=("service lmtp: process_min_avail",),
            default="one for each CPU",
        ),
    ] = Field(default_factory=lambda: len(os.sched_getaffinity(0)))
    drain: Annotated[
        Seconds, About(meaning="how long deliveries in progress may take when the server stops")
    ] = 30.0
    recipient_delimiter: Annotated[
        str,
        Field(pattern=r"^[[:punct:]&&[^@]]*$"),
        Allowed("a text of punctuation characters except '@', or none"),
        About(
            meaning="each of these characters ends the user's name in a local part",
            dovecot=("recipient_delimiter",),
        ),
    ] = "+"
    auth_username_format: Annotated[
        WithVariables,
        About(
            meaning="the user's name, made of the recipient without the detail; `%Ln` is without"
            " the domain",
            dovecot=("auth_username_format",),
        ),
    ] = "%Lu"
    auth_username_chars: Annotated[
        str,
        Field(pattern=r"^[!-~]*$"),
        Allowed("a text of printable ASCII characters; none: all"),
        About(
            meaning="characters of users' names; nobody has a name with others",
            dovecot=("auth_username_chars",),
        ),
    ] = CHARACTERS
    save_to_detail_mailbox: Annotated[
        Flag,
        About(
            meaning="mail for `user+detail` goes to the user's mailbox `detail`",
            dovecot=("lmtp_save_to_detail_mailbox",),
        ),
    ] = False
    mailbox_autocreate: Annotated[
        Flag,
        About(meaning="make a mailbox that is missing", dovecot=("lda_mailbox_autocreate",)),
    ] = False
    mailbox_autosubscribe: Annotated[
        Flag,
        About(
            meaning="subscribe the user to a mailbox that was made",
            dovecot=("lda_mailbox_autosubscribe",),
        ),
    ] = False
    mailbox_refuse_missing: Annotated[
        Flag,
        About(meaning="refuse mail for a mailbox that is missing; else the INBOX gets it"),
    ] = False
    mailbox_separator: Annotated[
        str,
        Field(pattern=r"^[ -~]$"),
        Allowed("one printable ASCII character"),
        About(
            meaning="what stands between the levels of a mailbox's name; on disk it is a dot",
            dovecot=("namespace: separator",),
        ),
    ] = "."
    mailbox_utf8: Annotated[
        Flag,
        About(
            meaning="names on disk in UTF-8, not in IMAP's modified UTF-7",
            dovecot=("maildir:...:UTF-8", "mailbox_list_utf8"),
        ),
    ] = False
    lock_timeout: Annotated[
        Seconds,
        About(
            meaning="how long to wait for a lock in a user's Maildir",
            dovecot=("mail_max_lock_timeout",),
        ),
    ] = 30.0
    fsync: Annotated[
        Literal["always", "optimized", "syncfs", "never"],
        Allowed("always, optimized, syncfs or never"),
        About(
            meaning="what is done before 250 is said: sync each file and directory, and with always"
            " the quota's count as well; sync the whole file system (for one that has mail alone);"
            " or nothing - then acknowledged mail can be lost",
            dovecot=("mail_fsync",),
        ),
    ] = "optimized"
    save_crlf: Annotated[
        Flag, About(meaning="lines end in CRLF on disk, not in LF", dovecot=("mail_save_crlf",))
    ] = False
    hard_links: Annotated[
        Flag,
        About(
            meaning="copies of one message are links to one file, where they are the same: that"
            ' takes `trace.delivered_to = "none"`',
            dovecot=("maildir_copy_with_hardlinks",),
        ),
    ] = False
    spool_directory: Annotated[
        Path | None,
        About(
            meaning="where messages above `spool_threshold` wait, in files without names",
            dovecot=("mail_temp_dir",),
            default="the directory above all Maildirs; for Maildirs in homes `/tmp`",
        ),
    ] = None
    spool_threshold: Annotated[
        Size, About(meaning="octets of a message up to which it waits in memory")
    ] = 128 * 1024
    user: Annotated[
        User | None,
        About(
            meaning="whom all mail belongs to and as whom the workers run; unset: each user's mail"
            " is its own",
            dovecot=("service lmtp: user", "mail_uid"),
        ),
    ] = None
    group: Annotated[
        Group | None,
        About(
            meaning="the group of that user, if not its own",
            dovecot=("service lmtp: group", "mail_gid"),
        ),
    ] = None
    network_user: Annotated[
        User | None,
        About(
            meaning="as whom the workers run where each user's mail is its own",
            dovecot=("default_internal_user",),
            default="`lmtp`, else `nobody`",
        ),
    ] = None
    first_valid_uid: Annotated[
        int,
        *count(1, _IDS),
        About(meaning="the lowest UID that gets mail", dovecot=("first_valid_uid",)),
    ] = 500
    last_valid_uid: Annotated[
        int,
        *count(0, _IDS),
        About(meaning="the highest UID that gets mail; 0: any", dovecot=("last_valid_uid",)),
    ] = 0
    first_valid_gid: Annotated[
        int,
        *count(1, _IDS),
        About(meaning="the lowest GID that gets mail", dovecot=("first_valid_gid",)),
    ] = 1
    last_valid_gid: Annotated[
        int,
        *count(0, _IDS),
        About(meaning="the highest GID that gets mail; 0: any", dovecot=("last_valid_gid",)),
    ] = 0
    listener: Annotated[
        list[ListenerTable],
        Allowed("tables [[listener]]"),
        About(meaning="where to listen, and how"),
    ] = Field(default_factory=list)
    tls: Annotated[TlsTable, About(meaning="certificates", dovecot=("ssl",))] = TlsTable.unset()
    userdb: Annotated[
        list[Annotated[UserdbTable, Field(discriminator="driver")]],
        Allowed("tables [[userdb]]"),
        About(
            meaning="who the users are; the first that knows one counts. Without any, every user"
            " that `mail` has a path for exists",
            dovecot=("userdb",),
        ),
    ] = Field(default_factory=list)
    quota: Annotated[QuotaTable, About(meaning="what users may hold")] = QuotaTable.unset()
    retries: Annotated[RetriesTable, About(meaning="messages that come again")] = (
        RetriesTable.unset()
    )
    trace: Annotated[TraceTable, About(meaning="header fields in front of messages")] = (
        TraceTable.unset()
    )
    content: Annotated[ContentTable, About(meaning="content that should not be")] = (
        ContentTable.unset()
    )
    limits: Annotated[LimitsTable, About(meaning="limits of sessions")] = LimitsTable.unset()
    metrics: Annotated[MetricsTable, About(meaning="what the server tells of itself")] = (
        MetricsTable.unset()
    )
    traces: Annotated[
        TracesTable | None, Allowed("a table"), About(meaning="traces of sessions, where it is set")
    ] = None
    worker: Annotated[WorkerTable, About(meaning="the life of a worker")] = WorkerTable.unset()
    log: Annotated[LogTable, About(meaning="logs and rawlogs")] = LogTable.unset()
    plugins: Annotated[
        list[str],
        Allowed("a list of names of plugins"),
        About(meaning="plugins, in the order in which they are asked"),
    ] = Field(default_factory=list)
    plugin: Annotated[
        dict[str, Annotated[dict[str, Any], AfterValidator(concealed)]],
        Allowed("tables [plugin.NAME]"),
        About(
            meaning="what plugins are told, in a table `[plugin.NAME]` for each; a text may be"
            " `{ file = PATH }` or `{ credential = NAME }`"
        ),
    ] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.mail.root is None and not self.userdb:
            raise TableFault(
                "mail", f"'{self.mail}' is in the users' homes, and no [[userdb]] says where"
            )
        if self.hard_links and self.trace.delivered_to != "none":
            raise TableFault(
                "hard_links", "copies name their recipients: set trace.delivered_to to none as well"
            )
        if self.group is not None and self.user is None:
            raise TableFault("group", "a group needs a user: set user as well")
        for kind in ("uid", "gid"):
            first = getattr(self, f"first_valid_{kind}")
            last = getattr(self, f"last_valid_{kind}")
            if last and last < first:
                raise TableFault(
                    f"last_valid_{kind}", f"{last} is below first_valid_{kind}, which is {first}"
                )
        for number, listener in enumerate(self.listener):
            if (
                listener.tls != "off"
                and listener.certificate is None
                and self.tls.certificate is None
            ):
                raise TableFault(
                    f"listener.{number}.tls",
                    "there is no certificate: set certificate here or in [tls]",
                )
        return self

    @property
    def control(self) -> str | None:
        """The path of the control socket, None where there is none."""
        if self.metrics.control is not None:
            return self.metrics.control
        return None if self.base_dir is None else f"{self.base_dir}/control"

    @property
    def folders(self) -> FolderOptions:
        """What a store takes."""
        return FolderOptions(
            separator=self.mailbox_separator,
            encoding=NameEncoding.UTF_8 if self.mailbox_utf8 else NameEncoding.MODIFIED_UTF_7,
            autocreate=self.mailbox_autocreate,
            autosubscribe=self.mailbox_autosubscribe,
            refuse_missing=self.mailbox_refuse_missing,
            lock_timeout=self.lock_timeout,
        )

    @property
    def sync(self) -> Sync:
        """What a store takes."""
        return Sync(self.fsync)

    @property
    def line_ending(self) -> LineEnding:
        """What a store takes."""
        return LineEnding.CRLF if self.save_crlf else LineEnding.LF

    @property
    def listeners(self) -> list[ListenerTable]:
        """All places to listen, in their order."""
        addresses = self.listen
        if addresses is None and not self.listener:
            addresses = (
                ["127.0.0.1:2424", "unix:./lmtp.sock"]
                if self.base_dir is None
                else [f"unix:{self.base_dir}/lmtp"]
            )
        short = [ListenerTable(address=address) for address in addresses or ()]
        return [*short, *self.listener]
