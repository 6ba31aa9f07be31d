"""`python -m tests.packaging.boot`: the packaging on a Debian that systemd has booted.

Makes a Debian (debootstrap), installs the wheel and the files of packaging/ into it as
docs/deployment.md says, boots it as a container of its own (systemd-nspawn) and uses the service as
an administrator and an MTA do. Needs root, and the packages debootstrap and systemd-container.

The invariant: the Debian that was made once is kept as it is (--debian), for what a run writes is
in an overlay; nothing of it touches the services of this machine.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tests.packaging._project import ROOT

_PACKAGES: Final = (
    "systemd,systemd-sysv,dbus,python3,python3-venv,python-is-python3,logrotate,procps"
)
_SECONDS: Final = 60.0
_SOCKET: Final = "unix:/run/lmtp-server.sock"
_MESSAGE: Final = "Subject: hello\n\nworld\n"
# Where a file of packaging/ goes to: the table of docs/deployment.md.
_FILES: Final = {
    "systemd/lmtp-server.service": "etc/systemd/system/lmtp-server.service",
    "systemd/lmtp-server.socket": "etc/systemd/system/lmtp-server.socket",
    "systemd/lmtp-server.sysusers": "usr/lib/sysusers.d/lmtp-server.conf",
    "systemd/lmtp-server.tmpfiles": "usr/lib/tmpfiles.d/lmtp-server.conf",
    "lmtp-server.toml": "etc/lmtp-server/lmtp-server.toml",
    "lmtp-server.logrotate": "etc/logrotate.d/lmtp-server",
}
_UNIT: Final = "lmtp-server.service"
_RESTARTS: Final = 5
# Delivers, each message in a session of its own, until standard input ends; counts what it is told.
_LOAD: Final = """
import collections, json, select, socket, sys
counted = collections.Counter()
def once():
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(50)
        sock.connect("/run/lmtp-server.sock")
        with sock.makefile("rb") as replies:
            for command in (
                "", "LHLO client.example.org", "MAIL FROM:<me@example.org>",
                f"RCPT TO:<{sys.argv[1]}>", "DATA", "Subject: hello\\r\\n\\r\\nworld\\r\\n.",
            ):
                try:
                    sock.sendall(f"{command}\\r\\n".encode() if command else b"")
                except BrokenPipeError:
                    # It has said why.
                    pass
                while (reply := replies.readline())[3:4] == b"-":
                    pass
                if reply[:1] not in (b"2", b"3"):
                    return reply[:3].decode() or "no reply"
    return "accepted"
while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        told = once()
    except OSError as error:
        told = repr(error)
    counted[told] += 1
print(json.dumps(counted))
"""


def main() -> int:
    """Boot it and go through the proofs; 1 if one fails."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.packaging.boot",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--debian",
        type=Path,
        default=Path("/var/tmp/lmtp-proto-debian"),
        help="where the Debian is, and is made if need be (default: /var/tmp/lmtp-proto-debian)",
    )
    parser.add_argument("--suite", default="bookworm", help="which Debian (default: bookworm)")
    parser.add_argument("--only", default="", metavar="TEXT", help="proofs with this in the name")
    arguments = parser.parse_args()
    make_debian(arguments.debian, arguments.suite)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="lmtp-boot-") as text:
        folder = Path(text)
        with _overlay(arguments.debian, folder) as root, _booted(root, folder) as machine:
            for proof in PROOFS:
                if arguments.only in proof.__name__:
                    failed += not _proved(machine, proof)
    return min(failed, 1)


def make_debian(folder: Path, suite: str) -> None:
    """Make a minimal Debian in `folder`, unless there is one."""
    if (folder / "usr" / "bin" / "python3").exists():
        return
    sys.stdout.write(f"making a Debian in {folder}\n")
    sys.stdout.flush()
    options = ("--variant=minbase", f"--include={','.join(_PACKAGES)}")
    _run("debootstrap", *options, suite, folder, "http://deb.debian.org/debian")


def wheels(folder: Path, python: str) -> Path:
    """Build the wheel and fetch what it needs for the Python of that version, into `folder`: the
    Debian needs no network then."""
    _run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder, ROOT)
    (wheel,) = folder.glob("lmtp_proto-*.whl")
    _run(
        *(sys.executable, "-m", "pip", "download", "--quiet", "--dest", folder),
        *("--only-binary=:all:", f"--python-version={python}"),
        f"{wheel}[server,metrics,plugins]",
    )
    return wheel


def install(root: Path) -> None:
    """Install the wheel and the files into the Debian at `root`, as docs/deployment.md says."""
    python = _run(
        "chroot", root, "python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"
    )
    place = root / "wheels"
    place.mkdir()
    wheel = wheels(place, python.strip())
    inside = ("chroot", root)
    _run(*inside, "python3", "-m", "venv", "/opt/lmtp-server")
    pip = (*inside, "/opt/lmtp-server/bin/pip", "install", "--quiet", "--no-index")
    _run(*pip, "--find-links=/wheels", f"/wheels/{wheel.name}[server,metrics,plugins]")
    (root / "usr/bin/lmtp-server").symlink_to("/opt/lmtp-server/bin/lmtp-server")
    for source, target in _FILES.items():
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        (root / target).write_bytes((ROOT / "packaging" / source).read_bytes())
    # Postfix has it, where there is one.
    _run(*inside, "groupadd", "--system", "postfix")
    for user in ("alice", "bob"):
        _run(*inside, "useradd", "--create-home", user)
    (root / "root" / "message").write_text(_MESSAGE)


@contextlib.contextmanager
def _overlay(debian: Path, folder: Path) -> Iterator[Path]:
    """A copy of the Debian that costs what is changed in it."""
    root = folder / "root"
    for name in ("root", "upper", "work"):
        (folder / name).mkdir()
    layers = f"lowerdir={debian},upperdir={folder}/upper,workdir={folder}/work"
    _run("mount", "-t", "overlay", "overlay", "-o", layers, root)
    try:
        yield root
    finally:
        _run("umount", root)


class Machine:
    """A booted container: commands in it are run from outside, in all of its namespaces."""

    def __init__(self, root: Path, leader: int) -> None:
        self.root = root
        self._leader = leader

    def run(self, *command: str, code: int | None = 0, stdin: str = "") -> str:
        """What a command prints that ends with `code`, None for any."""
        inside = ("nsenter", f"--target={self._leader}", "--all", "--wdns=/root")
        return _run(*inside, *command, code=code, stdin=stdin)

    def popen(self, *command: str) -> "subprocess.Popen[str]":
        """Start a command to have a dialogue with."""
        inside = ("nsenter", f"--target={self._leader}", "--all", "--wdns=/root")
        return subprocess.Popen(
            [*inside, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def unit(self, name: str, unit: str = _UNIT) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def wait_for_unit(self, state: str) -> None:
        """Wait until the service is `active`, `inactive` and so on."""
        wait(lambda: self.unit("ActiveState") == state, f"{_UNIT} is not {state}", self.journal)

    def journal(self, *matches: str) -> str:
        """What the journal has of the service, or with these fields."""
        return self.run("journalctl", "--no-pager", *(matches or ("--unit", _UNIT)))

    def send(self, recipient: str, code: int = 0) -> str:
        """Deliver the message through the socket; the reply."""
        sender = ("lmtp-server", "send", "--to", _SOCKET, "--from", "me@example.org")
        return self.run(*sender, "--rcpt", recipient, "message", code=code)

    def configure(self, text: str) -> None:
        """Write the settings file."""
        (self.root / "etc/lmtp-server/lmtp-server.toml").write_text(text)

    def greeting(self) -> str:
        """What the server says to who connects."""
        code = (
            "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/lmtp-server.sock');"
            "print(s.makefile().readline())"
        )
        return self.run("python3", "-c", code)

    def mails(self, maildir: str) -> list[os.stat_result]:
        """The messages in a Maildir."""
        folder = self.root / maildir / "new"
        found = list(folder.iterdir()) if folder.exists() else []
        assert all(_MESSAGE.partition("\n\n")[2] in path.read_text() for path in found)
        return [path.stat() for path in found]

    def uid(self, user: str) -> int:
        """The UID of a user."""
        return int(self.run("id", "-u", user))


@contextlib.contextmanager
def _booted(root: Path, folder: Path) -> Iterator[Machine]:
    """The Debian at `root` with the service installed, running."""
    install(root)
    command = ("systemd-nspawn", "--boot", "--quiet", "--register=no", "--keep-unit")
    with (folder / "console").open("w") as console:
        container = subprocess.Popen(
            [*command, "--private-network", "--console=pipe", "-D", root],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
        )
    try:
        leader = 0

        def started() -> bool:
            nonlocal leader
            assert container.poll() is None, (folder / "console").read_text()
            children = Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text()
            leader = int(children.split()[-1]) if children else 0
            return leader > 0 and Path(f"/proc/{leader}/comm").read_text() == "systemd\n"

        wait(started, "the container does not start")
        machine = Machine(root, leader)

        def booted() -> bool:
            state = machine.run("systemctl", "is-system-running", code=None).strip()
            return state in ("running", "degraded")

        wait(booted, "the container does not boot")
        yield machine
    finally:
        # SIGTERM shuts it down, the second one at once.
        for _ in range(2):
            container.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                container.wait(30)
        container.kill()
        container.wait()


def _run(*command: str | Path, code: int | None = 0, stdin: str = "") -> str:
    result = subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=1800, check=False
    )
    said = result.stdout + result.stderr
    assert code is None or result.returncode == code, f"{command}: {result.returncode}\n{said}"
    return result.stdout


def wait(until: Callable[[], bool], complaint: str, why: Callable[[], str] | None = None) -> None:
    """Wait until that is so. Raises AssertionError with the complaint after a minute."""
    deadline = time.monotonic() + _SECONDS
    while not until():
        if time.monotonic() > deadline:
            raise AssertionError(f"{complaint}\n{why() if why is not None else ''}")
        time.sleep(0.05)


def _proved(machine: Machine, proof: Callable[[Machine], None]) -> bool:
    about = (proof.__doc__ or "").strip()
    try:
        proof(machine)
    except (AssertionError, ValueError, OSError, subprocess.SubprocessError) as error:
        sys.stdout.write(f"FAILED {proof.__name__}: {about}\n{error!r}\n")
        sys.stdout.write(machine.run("journalctl", "--no-pager", "--lines=20"))
        return False
    finally:
        sys.stdout.flush()
    sys.stdout.write(f"ok {proof.__name__}: {about}\n")
    return True


# --- what is proved, in this order ----------------------------------------------------------------


def users_and_directories(machine: Machine) -> None:
    """systemd-sysusers and systemd-tmpfiles make the users, and the directory of the mail."""
    machine.run("systemd-sysusers")
    machine.run("systemd-tmpfiles", "--create")
    users = machine.run("getent", "passwd", "vmail", "lmtp")
    assert re.findall(r"^(\w+):.*:(\S+):\S+/nologin$", users, re.MULTILINE) == [
        ("vmail", "/var/vmail"),
        ("lmtp", "/nonexistent"),
    ]
    assert machine.run("stat", "-c", "%U %G %a", "/var/vmail") == "vmail vmail 700\n"
    machine.run("lmtp-server", "config", "check", "-c", "/etc/lmtp-server/lmtp-server.toml")


def socket_activation(machine: Machine) -> None:
    """The socket is there first; the first mail starts the service, and is stored as vmail's."""
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "enable", "lmtp-server.socket", _UNIT)
    machine.run("systemctl", "start", "lmtp-server.socket")
    assert machine.unit("ActiveState") == "inactive"
    assert machine.run("stat", "-c", "%U %G %a", "/run/lmtp-server.sock") == "vmail postfix 660\n"
    machine.send("first@example.org")
    machine.wait_for_unit("active")
    (mail,) = machine.mails("var/vmail/example.org/first")
    assert mail.st_uid == machine.uid("vmail")
    assert machine.unit("Type") == "notify"


def confined(machine: Machine) -> None:
    """No process of the service is root or has a capability, and system calls are filtered."""
    for status in _statuses(machine):
        assert status["Uid"].split() == [str(machine.uid("vmail"))] * 4
        assert (status["CapEff"], status["CapBnd"]) == ("0" * 16, "0" * 16)
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def reload(machine: Machine) -> None:
    """`systemctl reload` puts new settings in force."""
    settings = (ROOT / "packaging" / "lmtp-server.toml").read_text()
    machine.configure(f'hostname = "reloaded.example.org"\n{settings}')
    pid = machine.unit("MainPID")
    machine.run("systemctl", "reload", _UNIT)
    wait(lambda: "reloaded.example.org" in machine.greeting(), "the old settings are in force")
    assert machine.unit("MainPID") == pid
    machine.send("reloaded@example.org")


def reload_of_wrong_settings(machine: Machine) -> None:
    """At a reload with wrong settings the service goes on, and the journal says what is wrong."""
    machine.configure('listen = ["systemd"]\nmial = "/var/vmail/{user}"\n')
    machine.run("systemctl", "reload", _UNIT)
    wait(lambda: "mial" in machine.journal(), "the journal does not say it")
    assert machine.unit("ActiveState") == "active"
    machine.send("unharmed@example.org")
    assert len(machine.mails("var/vmail/example.org/unharmed")) == 1


def restarts_under_load(machine: Machine) -> None:
    """`systemctl restart` while mail flows: nobody is refused or left without a reply, and what
    was accepted is there."""
    machine.configure((ROOT / "packaging" / "lmtp-server.toml").read_text())
    _restart_under_load(machine, "load", "var/vmail/example.org/load")


def _restart_under_load(machine: Machine, user: str, maildir: str) -> None:
    (machine.root / "root/load.py").write_text(_LOAD)
    before = len(machine.mails(maildir))
    load = machine.popen("python3", "load.py", f"{user}@example.org")
    try:
        for _ in range(_RESTARTS):
            # So many in so short a time would be too many.
            machine.run("systemctl", "reset-failed", _UNIT)
            machine.run("systemctl", "restart", _UNIT)
            assert machine.unit("Result") == "success"
        said, _ = load.communicate("", timeout=_SECONDS)
    finally:
        load.kill()
        load.wait()
    counted: dict[str, int] = json.loads(said)
    assert counted.keys() <= {"accepted", "421"}, counted
    assert counted["accepted"] > _RESTARTS, counted
    assert len(machine.mails(maildir)) - before == counted["accepted"], counted


def stop(machine: Machine) -> None:
    """`systemctl stop` of both units: the service ends without a fault, the socket is gone."""
    machine.run("systemctl", "stop", "lmtp-server.socket", _UNIT)
    assert machine.unit("ActiveState") == "inactive"
    assert (machine.unit("Result"), machine.unit("ExecMainStatus")) == ("success", "0")
    machine.send("nobody@example.org", code=75)


def wrong_settings_at_the_start(machine: Machine) -> None:
    """A service with wrong settings fails with 78 and is not started again and again."""
    machine.configure('listen = ["systemd"]\nmial = "/var/vmail/{user}"\n')
    machine.run("systemctl", "start", _UNIT, code=1)
    assert machine.unit("ActiveState") == "failed"
    assert (machine.unit("ExecMainStatus"), machine.unit("NRestarts")) == ("78", "0")
    machine.run("systemctl", "reset-failed", _UNIT, "lmtp-server.socket")


def journal_fields(machine: Machine) -> None:
    """The journal has the fields of a delivery, its priority and its unit."""
    machine.configure((ROOT / "packaging" / "lmtp-server.toml").read_text())
    machine.run("systemctl", "start", "lmtp-server.socket", _UNIT)
    machine.send("logged@example.org")
    match = "LMTP_USER=logged@example.org"
    machine.run("journalctl", "--sync")
    (line,) = machine.run("journalctl", "-o", "json", "--no-pager", match).splitlines()
    fields: dict[str, Any] = json.loads(line)
    assert fields["_SYSTEMD_UNIT"] == _UNIT, line
    assert fields["LMTP_MAILBOX"] == "INBOX", line
    assert fields["LMTP_FROM_ENVELOPE"] == "me@example.org", line
    assert "saved mail to INBOX" in fields["MESSAGE"], line
    assert fields["PRIORITY"] == "6", line


def logrotate(machine: Machine) -> None:
    """logrotate with its snippet: lines after it are in the new file, and no line is lost."""
    settings = (ROOT / "packaging" / "lmtp-server.toml").read_text()
    machine.configure(f'{settings}info_path = "/var/log/lmtp-server/deliveries.log"\n')
    machine.run("systemctl", "reload", _UNIT)
    log = machine.root / "var/log/lmtp-server/deliveries.log"
    wait(log.exists, "there is no log")
    _rotate(machine, log, "example.org")


def _rotate(machine: Machine, log: Path, domain: str) -> None:
    users = ["alice", "bob"] if domain else []
    for user in users:
        machine.send(f"{user}@{domain}")
    wait(lambda: all(f"lmtp({user}" in log.read_text() for user in users), "it is not logged")
    before = log.stat().st_ino
    machine.run("logrotate", "--force", "/etc/logrotate.d/lmtp-server")
    wait(lambda: log.exists() and log.stat().st_ino != before, "no new log", machine.journal)
    machine.send(f"alice@{domain}")
    old = log.with_name(log.name + ".1")
    wait(
        lambda: (log.read_text() + old.read_text()).count("saved mail") >= 3,
        "a line is lost",
        lambda: log.read_text() + old.read_text(),
    )
    # A worker opens it a moment after the supervisor has; at last it has.
    wait(lambda: bool(machine.send(f"bob@{domain}")) and "lmtp(bob" in log.read_text(), "old log")


def own_uids(machine: Machine) -> None:
    """With own-uids.conf mail is written as its users, and who reads the network is `lmtp`."""
    machine.run("systemctl", "stop", _UNIT)
    drop_ins = machine.root / "etc/systemd/system/lmtp-server.service.d"
    drop_ins.mkdir(exist_ok=True)
    drop_in = ROOT / "packaging/systemd/own-uids.conf"
    (drop_ins / "own-uids.conf").write_bytes(drop_in.read_bytes())
    machine.configure(
        'listen = ["systemd"]\nmail = "~/Maildir"\nmailbox_autocreate = true\n'
        'save_to_detail_mailbox = true\n[[userdb]]\ndriver = "system"\n'
        '[log]\npath = "/var/log/lmtp-server/own-uids.log"\n[quota]\nrules = ["*:storage=10M"]\n'
    )
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", _UNIT)
    for user in ("alice", "bob"):
        machine.send(f"{user}@example.org")
        machine.send(f"{user}+detail@example.org")
        for maildir in ("Maildir", "Maildir/.detail"):
            (mail,) = machine.mails(f"home/{user}/{maildir}")
            assert (mail.st_uid, mail.st_gid) == (machine.uid(user), machine.uid(user))
            assert mail.st_mode & 0o777 == 0o600
    machine.send("nobody-of-that-name@example.org", code=69)


def own_uids_confined(machine: Machine) -> None:
    """Beside the broker no process is root, and all have their system calls filtered."""
    statuses = _statuses(machine)
    assert all(status["Seccomp"] == "2" for status in statuses)
    uids = [status["Uid"].split()[0] for status in statuses]
    assert uids.count("0") == 1, statuses
    assert uids.count(str(machine.uid("lmtp"))) >= 2
    main = machine.unit("MainPID")
    (supervisor,) = (status for status in statuses if status["Pid"] == main)
    assert supervisor["Uid"].split() == [str(machine.uid("lmtp"))] * 4


def own_uids_restarts_under_load(machine: Machine) -> None:
    """The same with the broker: agents finish what they have."""
    _restart_under_load(machine, "alice", "home/alice/Maildir")


def own_uids_managed(machine: Machine) -> None:
    """Reload and logrotate with the broker: both work as before."""
    pid = machine.unit("MainPID")
    settings = (machine.root / "etc/lmtp-server/lmtp-server.toml").read_text()
    machine.configure(f'hostname = "own-uids.example.org"\n{settings}')
    machine.run("systemctl", "reload", _UNIT)
    wait(lambda: "own-uids.example.org" in machine.greeting(), "old settings", machine.journal)
    assert machine.unit("MainPID") == pid
    _rotate(machine, machine.root / "var/log/lmtp-server/own-uids.log", "example.org")
    machine.run("systemctl", "stop", _UNIT)
    assert (machine.unit("Result"), machine.unit("ExecMainStatus")) == ("success", "0")


def watchdog(machine: Machine) -> None:
    """The watchdog is armed and fed; a service that is frozen is killed by it and started again."""
    drop_ins = machine.root / "etc/systemd/system/lmtp-server.service.d"
    (drop_ins / "watchdog.conf").write_text("[Service]\nWatchdogSec=5\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", _UNIT)
    assert machine.unit("WatchdogUSec") == "5s"
    first = machine.unit("WatchdogTimestampMonotonic")
    wait(lambda: machine.unit("WatchdogTimestampMonotonic") != first, "it is not fed")
    machine.run("kill", "-STOP", machine.unit("MainPID"))
    wait(lambda: machine.unit("NRestarts") == "1", "it is not started again", machine.journal)
    machine.wait_for_unit("active")
    machine.send("alice@example.org")


def _statuses(machine: Machine) -> list[dict[str, str]]:
    """/proc/PID/status of all processes of the service, with the PIDs that they have there."""
    group = machine.unit("ControlGroup")
    place = "/sys/fs/cgroup"
    found = machine.run(
        "sh", "-c", f"cat {place}{group}/cgroup.procs {place}/*{group}/cgroup.procs", code=None
    )
    assert found, group
    statuses = []
    for pid in sorted(set(found.split())):
        text = machine.run("cat", f"/proc/{pid}/status")
        statuses.append({key: value.strip() for key, value in re.findall(r"(\w+):(.*)", text)})
    return statuses


PROOFS: Final = (
    users_and_directories,
    socket_activation,
    confined,
    reload,
    reload_of_wrong_settings,
    restarts_under_load,
    stop,
    wrong_settings_at_the_start,
    journal_fields,
    logrotate,
    own_uids,
    own_uids_confined,
    own_uids_restarts_under_load,
    own_uids_managed,
    watchdog,
)


if __name__ == "__main__":
    sys.exit(main())
