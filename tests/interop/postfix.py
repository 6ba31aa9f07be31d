"""A Postfix of one's own, and the two programs that mail administrators try LMTP servers with.

Nothing of the machine's own Postfix is read or touched but its programs: configuration, queue,
state and log lie in one folder. No name is looked up in the DNS and no port but the private
loopback one is listened on.
"""

import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Sequence
from os import geteuid
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.peers.ports import free_ports

_SEARCH_PATH = "/usr/sbin:/usr/bin"
_RUN_SECONDS = 120.0
_POLL_SECONDS = 0.02

# The queues that hold mail on its way, in the order in which it moves through them.
_QUEUES = ("maildrop", "incoming", "active", "deferred", "hold")

_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}

myhostname = mx.test
mydestination =
local_transport = error:5.1.1 no local mail
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.1/32
alias_maps =
alias_database =

# No name of a client or of a next hop is looked up.
smtpd_peername_lookup = no
smtp_dns_support_level = disabled
lmtp_dns_support_level = disabled
smtp_host_lookup = native
lmtp_host_lookup = native

# What comes in goes out unchanged.
local_header_rewrite_clients =

virtual_mailbox_domains = {domains}
virtual_mailbox_maps = static:all
virtual_transport = {transport}
"""

_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup    unix  n  -  n  60   1  pickup
cleanup   unix  n  -  n  -    0  cleanup
qmgr      unix  n  -  n  300  1  qmgr
rewrite   unix  -  -  n  -    -  trivial-rewrite
bounce    unix  -  -  n  -    0  bounce
defer     unix  -  -  n  -    0  bounce
trace     unix  -  -  n  -    0  bounce
flush     unix  n  -  n  1000? 0 flush
proxymap  unix  -  -  n  -    -  proxymap
showq     unix  n  -  n  -    -  showq
error     unix  -  -  n  -    -  error
retry     unix  -  -  n  -    -  error
lmtp      unix  -  -  n  -    -  lmtp
anvil     unix  -  -  n  -    1  anvil
scache    unix  -  -  n  -    1  scache
postlog   unix-dgram n - n - 1  postlogd
"""


class PrivatePostfix:
    """A Postfix of one's own; a context manager that accepts SMTP inside and is gone after.

    Attributes:
        folder: Where everything lies; Postfix's own user can enter it.
        smtp_address: Host and port of the SMTP listener.
    """

    def __init__(self, transport: str, *, domains: Sequence[str] = ("example.test",)) -> None:
        """Describe a Postfix; entering the context starts it.

        Args:
            transport: Its virtual_transport: `lmtp:unix:PATH` or `lmtp:inet:[127.0.0.1]:PORT`.
                Postfix connects as its own user, which needs the right to write to the socket.
            domains: The domains whose every address goes to the transport.
        """
        self._transport = transport
        self._domains = domains

    @staticmethod
    def missing() -> str | None:
        """Return what this machine lacks, as a reason to skip; None when it lacks nothing."""
        if shutil.which("postfix", path=_SEARCH_PATH) is None:
            return "postfix is not installed (Debian package postfix)"
        if geteuid() != 0:
            return "only root can start postfix"
        return None

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="postfix-"))
        try:
            self._start()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._postfix("stop")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self) -> None:
        self.folder.chmod(0o755)
        for name in ("etc", "queue", "data"):
            (self.folder / name).mkdir()
        shutil.chown(self.folder / "data", "postfix")
        (port,) = free_ports(1)
        self.smtp_address = ("127.0.0.1", port)
        (self.folder / "etc/main.cf").write_text(
            _MAIN.format(
                folder=self.folder, domains=" ".join(self._domains), transport=self._transport
            ),
            "utf-8",
        )
        (self.folder / "etc/master.cf").write_text(_MASTER.format(port=port), "utf-8")
        # Returns once the master process listens.
        self._postfix("start")

    def _postfix(self, command: str) -> None:
        finished = subprocess.run(
            [_program("postfix"), "-c", str(self.folder / "etc"), command],
            stdin=subprocess.DEVNULL,
            # Not pipes: the master process keeps what it inherits open.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_RUN_SECONDS,
            check=False,
        )
        if finished.returncode != 0:
            raise RuntimeError(f"postfix {command}: exit {finished.returncode}\n{self._written()}")

    def log(self, seconds: float = 20.0) -> str:
        """Return all that Postfix has logged so far.

        Raises TimeoutError, with what is there, when the last of it is not within `seconds`.
        """
        # Its programs hand their lines to another that writes them; it takes them in their order.
        mark = uuid.uuid4().hex
        subprocess.run(
            [_program("postlog"), "-c", str(self.folder / "etc"), mark],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_RUN_SECONDS,
            check=True,
        )
        deadline = time.monotonic() + seconds
        while mark not in (written := self._written()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"Postfix does not log:\n{written}")
            time.sleep(_POLL_SECONDS)
        return written

    def _written(self) -> str:
        try:
            return (self.folder / "log").read_text("utf-8", "backslashreplace")
        except FileNotFoundError:
            return ""

    def queued(self) -> list[str]:
        """Return the queue ids of the messages on their way or waiting."""
        return [
            file.name
            for queue in _QUEUES
            for file in (self.folder / "queue" / queue).rglob("*")
            if file.is_file()
        ]

    def flush(self) -> None:
        """Have what is deferred tried again."""
        self._postfix("flush")

    def wait_until_queue_empty(self, seconds: float = 20.0) -> None:
        """Wait until every message has been delivered or bounced.

        Raises TimeoutError, with the log, when that takes longer than `seconds`.
        """
        deadline = time.monotonic() + seconds
        # Twice, since mail moves, and breeds bounces, while the queues are being read.
        while self.queued() or self.queued():
            if time.monotonic() > deadline:
                raise TimeoutError(f"in Postfix's queue: {self.queued()}\n{self._written()}")
            time.sleep(_POLL_SECONDS)


def smtp_source(
    address: str,
    *,
    messages: int,
    recipients: int = 1,
    connections: int = 1,
    octets: int = 1024,
    recipient: str = "user@example.test",
) -> None:
    """Send mail over LMTP with Postfix's smtp-source.

    With several recipients each but one is `recipient` with a number in front, from 2 up. Raises
    CalledProcessError when a reply was not the expected one or a message did not go out.

    Args:
        address: `HOST:PORT` or `unix:PATH`.
        messages: Messages in all, over all connections.
        recipients: Recipients of each message.
        connections: Connections at a time; each message takes a new one.
        octets: Size of the body.
        recipient: The address of the (last) recipient.
    """
    subprocess.run(
        [
            _program("smtp-source"),
            "-L",
            f"-s{connections}",
            f"-m{messages}",
            f"-r{recipients}",
            f"-l{octets}",
            *("-f", "sender@example.test"),
            *("-t", recipient),
            *("-M", "client.test"),
            address,
        ],
        stdin=subprocess.DEVNULL,
        timeout=_RUN_SECONDS,
        check=True,
    )


def swaks(address: str, *, recipients: Sequence[str], body: str = "body") -> tuple[int, list[str]]:
    """Send one message over LMTP with swaks.

    Args:
        address: `HOST:PORT` or `unix:PATH`.
        recipients: Addresses without a comma.
        body: Text of the message.

    Returns:
        swaks's exit status, and every line that the server sent.
    """
    if address.startswith("unix:"):
        target = ["--socket", address.removeprefix("unix:")]
    else:
        host, _, port = address.rpartition(":")
        target = ["--server", host, "--port", port]
    finished = subprocess.run(
        [
            _program("swaks"),
            *("--protocol", "LMTP"),
            *target,
            *("--from", "sender@example.test"),
            *("--to", ",".join(recipients)),
            *("--helo", "client.test"),
            *("--body", body),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_RUN_SECONDS,
        check=False,
    )
    # swaks marks a reply it likes with `<-`, another with `<**`.
    replies = [
        line.partition(" ")[2].strip()
        for line in finished.stdout.splitlines()
        if line.startswith(("<- ", "<**"))
    ]
    return finished.returncode, replies


def missing_program(name: str, package: str) -> str | None:
    """Return the reason to skip when the program `name` of Debian's `package` is not there."""
    if shutil.which(name, path=_SEARCH_PATH) is None:
        return f"{name} is not installed (Debian package {package})"
    return None


def _program(name: str) -> str:
    # /usr/sbin is not on the search path of every user.
    return shutil.which(name, path=_SEARCH_PATH) or name
