"""Dovecot 2.3's LMTP and IMAP servers, private to the process that starts them.

Nothing of the machine's own Dovecot is read or touched: configuration, sockets, state and log lie
in one folder. Every user exists unless some are listed, with any password, and all mail belongs to
one unprivileged user (Dovecot refuses mail owned by root).
"""

import grp
import os
import pwd
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import psutil

from benchmarks.peers.ports import free_ports

Fsync = Literal["optimized", "always", "never"]

_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.02

# {user} and {domain} as in `lmtp-server serve --mail`, in Dovecot 2.3's spelling.
_VARIABLES = {"user": "%n", "domain": "%d"}

_CONFIGURATION = """\
protocols = imap lmtp
listen = 127.0.0.1
base_dir = {folder}/run
state_dir = {folder}/state
instance_name = {folder.name}
log_path = {folder}/log
default_internal_user = {internal_user}
default_internal_group = {internal_group}
default_login_user = {login_user}
default_client_limit = {total_clients}

ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
first_valid_uid = 1
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  {userdb}
}}

mail_location = maildir:{mail}
mail_fsync = {fsync}
namespace inbox {{
  inbox = yes
}}

service lmtp {{
  process_limit = {process_limit}
  client_limit = {client_limit}
  unix_listener {folder}/lmtp {{
    mode = 0666
  }}
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp_port}
  }}
}}
service imap-login {{
  inet_listener imap {{
    port = {imap_port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
"""

_EVERY_USER = """\
driver = static
  args = uid={uid} gid={gid} home={folder}/home/%d/%n allow_all_users=yes"""

_LISTED_USERS = """\
driver = passwd-file
  args = {folder}/users
  default_fields = uid={uid} gid={gid} home={folder}/home/%d/%n"""

_DISCARD = """
protocol lmtp {{
  mail_plugins = sieve
}}
plugin {{
  sieve_before = {folder}/discard.sieve
}}
"""

# Only root may change the root folder.
_UNPRIVILEGED = "".join(
    f"""
service {name} {{
  chroot =
}}
"""
    for name in ("anvil", "imap-login", "stats")
)


class PrivateDovecot:
    """A Dovecot of one's own; a context manager that is ready inside and gone after.

    Started by root, it keeps the mail as the user `nobody`; otherwise as the user that starts it.

    Attributes:
        uid, gid: The user and group that own all mail.
        folder: Where everything lies.
        mail_template: A Maildir for each user, with {user} and {domain}.
        mail_root: The deepest folder that all those Maildirs share.
        lmtp_address: The TCP listener for LMTP, `127.0.0.1:PORT`.
        lmtp_socket: The UNIX listener for LMTP.
        imap_address: Host and port for IMAP; LOGIN in the clear, any password.
    """

    def __init__(
        self,
        *,
        mail: str | None = None,
        fsync: Fsync = "optimized",
        process_limit: int = 100,
        client_limit: int = 1,
        discard: bool = False,
        users: Sequence[str] | None = None,
        settings: str = "",
        folder: Path | None = None,
    ) -> None:
        """Describe a Dovecot; entering the context starts it.

        Args:
            mail: A Maildir for each user, with {user} and {domain}; by default below `folder`.
            fsync: Dovecot's mail_fsync.
            process_limit: LMTP processes at most; further connections are dropped.
            client_limit: Connections of one LMTP process at most.
            discard: Throw every message away with Sieve (Debian: dovecot-sieve).
            users: Lines of a passwd-file: the only users there are; by default every user exists.
            settings: Further settings, in the syntax of dovecot.conf.
            folder: An existing folder to work in, kept afterwards; by default a temporary one.
        """
        as_root = os.geteuid() == 0
        owner = pwd.getpwnam("nobody") if as_root else pwd.getpwuid(os.geteuid())
        self.uid, self.gid = owner.pw_uid, owner.pw_gid
        self._internal_user = "dovecot" if as_root else owner.pw_name
        self._internal_group = "dovecot" if as_root else grp.getgrgid(owner.pw_gid).gr_name
        self._login_user = "dovenull" if as_root else owner.pw_name
        self._as_root = as_root
        self._mail = mail
        self._fsync = fsync
        self._process_limit = process_limit
        self._client_limit = client_limit
        self._discard = discard
        self._users = users
        self._settings = settings
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def missing() -> str | None:
        """Return what this machine lacks, as a reason to skip; None when it lacks nothing."""
        for program, package in (
            (_executable("dovecot"), "dovecot-core"),
            ("/usr/lib/dovecot/lmtp", "dovecot-lmtpd"),
            ("/usr/lib/dovecot/imap", "dovecot-imapd"),
            (_executable("sievec"), "dovecot-sieve"),
        ):
            if not os.access(program, os.X_OK):
                return f"{program} is not installed (Debian package {package})"
        return None

    @staticmethod
    def version() -> str:
        """Return the version of Dovecot that is installed, such as `2.3.19.1`."""
        said = subprocess.run(
            [_executable("dovecot"), "--version"], capture_output=True, text=True, check=True
        ).stdout
        return said.split()[0]

    def __enter__(self) -> Self:
        self._keep = self._folder is not None
        self.folder = self._folder or Path(tempfile.mkdtemp(prefix="dovecot-"))
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def _start(self) -> None:
        # mkdtemp makes a folder only its owner may enter; Dovecot's users are others.
        self.folder.chmod(0o755)
        self.mail_template = self._mail or f"{self.folder}/mail/{{domain}}/{{user}}"
        self.mail_root = Path(os.path.dirname(self.mail_template.partition("{")[0]))
        for path in (self.mail_root, self.folder / "home"):
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, self.uid, self.gid)
        lmtp_port, imap_port = free_ports(2)
        self.lmtp_address = f"127.0.0.1:{lmtp_port}"
        self.lmtp_socket = self.folder / "lmtp"
        self.imap_address = ("127.0.0.1", imap_port)
        configuration = self.folder / "dovecot.conf"
        configuration.write_text(self._configuration(lmtp_port, imap_port), "utf-8")
        if self._users is not None:
            (self.folder / "users").write_text("\n".join(self._users) + "\n", "utf-8")
        if self._discard:
            script = self.folder / "discard.sieve"
            script.write_text("discard;\n", "utf-8")
            subprocess.run(
                [_executable("sievec"), "-c", str(configuration), str(script)], check=True
            )
            script.with_suffix(".svbin").chmod(0o644)
        # What is said before the log is open goes where the log will be.
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_executable("dovecot"), "-F", "-c", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A group of its own, so that what the master leaves behind can be ended with it.
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        self._wait_for(lambda: _greeting(("127.0.0.1", lmtp_port)), b"220 ", deadline)
        self._wait_for(lambda: _greeting(str(self.lmtp_socket)), b"220 ", deadline)
        self._wait_for(lambda: _greeting(self.imap_address), b"* OK ", deadline)

    def _configuration(self, lmtp_port: int, imap_port: int) -> str:
        userdb = _EVERY_USER if self._users is None else _LISTED_USERS
        text = _CONFIGURATION.format(
            folder=self.folder,
            userdb=userdb.format(folder=self.folder, uid=self.uid, gid=self.gid),
            internal_user=self._internal_user,
            internal_group=self._internal_group,
            login_user=self._login_user,
            # Authentication and bookkeeping serve every process at once, within the descriptors.
            total_clients=min(
                max(1000, 2 * self._process_limit * self._client_limit),
                resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            ),
            mail=re.sub(r"\{(user|domain)\}", lambda m: _VARIABLES[m[1]], self.mail_template),
            fsync=self._fsync,
            process_limit=self._process_limit,
            client_limit=self._client_limit,
            lmtp_port=lmtp_port,
            imap_port=imap_port,
        )
        if self._discard:
            text += _DISCARD.format(folder=self.folder)
        if not self._as_root:
            text += _UNPRIVILEGED
        return text + self._settings

    def _wait_for(self, greeting: Callable[[], bytes], start: bytes, deadline: float) -> None:
        assert self._process is not None
        while True:
            try:
                answer = greeting()
            except OSError as error:
                answer = str(error).encode()
            if answer.startswith(start):
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Dovecot did not start: {answer!r}\n{self.log()}")
            time.sleep(_POLL_SECONDS)

    def _stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._process = None
        if not self._keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        """Return all that Dovecot has logged so far."""
        try:
            return (self.folder / "log").read_text("utf-8", "backslashreplace")
        except FileNotFoundError:
            return ""

    def maildir(self, address: str) -> Path:
        """Return the Maildir of `address` (local-part@domain); it need not exist yet."""
        user, _, domain = address.rpartition("@")
        return Path(self.mail_template.replace("{user}", user).replace("{domain}", domain))

    def own(self, path: Path) -> None:
        """Give `path` and all below it to Dovecot's mail user, so that IMAP may read it.

        Needs root where the owner differs. Raises PermissionError otherwise.
        """
        for folder, _, files in os.walk(path):
            for name in ("", *files):
                file = os.path.join(folder, name)
                found = os.lstat(file)
                if (found.st_uid, found.st_gid) != (self.uid, self.gid):
                    os.chown(file, self.uid, self.gid, follow_symlinks=False)

    def pids(self) -> list[int]:
        """Return the process ids of the whole running Dovecot, the master first."""
        return [process.pid for process in self._processes()]

    def cpu_seconds(self) -> float:
        """Return user and system CPU seconds used so far by all its processes, ended ones too."""
        seconds = 0.0
        for process in self._processes():
            try:
                used = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            # What has ended counts in the parent that reaped it.
            seconds += used.user + used.system + used.children_user + used.children_system
        return seconds

    def resident_bytes(self) -> int:
        """Return the sum of the resident set sizes; what processes share counts in each."""
        octets = 0
        for process in self._processes():
            try:
                octets += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return octets

    def _processes(self) -> list[psutil.Process]:
        assert self._process is not None
        master = psutil.Process(self._process.pid)
        return [master, *master.children(recursive=True)]


def _executable(name: str) -> str:
    # /usr/sbin is not on the search path of every user.
    return shutil.which(name, path="/usr/sbin:/usr/bin") or f"/usr/sbin/{name}"


def _greeting(address: tuple[str, int] | str) -> bytes:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as connection:
        connection.settimeout(5)
        connection.connect(address)
        return connection.recv(1024)
