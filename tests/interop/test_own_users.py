"""Postfix hands over, users of different UIDs read their mail with Dovecot's IMAP.

Started by root, the daemon writes each user's mail as that user, or all of it as one user. Either
way no process of root's has a descriptor of the network while mail flows.
"""

import imaplib
import os
import pwd
import smtplib
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.peers.dovecot import PrivateDovecot
from tests.interop.lmtp import Client, split_trace
from tests.interop.postfix import PrivatePostfix
from tests.privileges.watch import Watch
from tests.server._program import Program

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(os.geteuid() != 0, reason="changing users needs root"),
]

_USERS = [f"u{number:02}" for number in range(20)]
_FIRST_UID = 23_000
_UIDS = {name: _FIRST_UID + number for number, name in enumerate(_USERS)}
_NETWORK_USER = "nobody"
# Beyond what travels in a packet: agents are handed a file.
_LARGE = b"0123456789abcdef" * 4 + b"\r\n"
_TO_ALL = 7
_TO_EACH = 3

_SETTINGS = """
listen = ["unix:{folder}/lmtp", "127.0.0.1:0"]
hostname = "store.test"
workers = 2
"""
_SYSTEM_USERS = """
mail = "~/Maildir"
auth_username_format = "%Ln"
network_user = "nobody"
[[userdb]]
driver = "system"
"""
_ONE_USER = """
mail = "{folder}/homes/{{user}}/Maildir"
user = "nobody"
"""
# Who reads /etc/passwd in here has the users, and nobody outside has.
_WITH_ACCOUNTS = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/passwd && exec "$@"')


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    """Those that are to be ended with the test."""
    started: list[Program] = []
    yield started
    for program in started:
        program.kill()


def _make_users(folder: Path) -> None:
    """Homes that everybody may enter: what is in them has to be closed by itself."""
    (folder / "homes").mkdir()
    for name, uid in _UIDS.items():
        home = folder / "homes" / name
        home.mkdir()
        home.chmod(0o755)
        os.chown(home, uid, uid)
    (folder / "passwd").write_text("\n".join(_lines(folder)) + "\n")
    accounts = [
        f"{name}:x:{uid}:{uid}::{folder}/homes/{name}:/bin/false" for name, uid in _UIDS.items()
    ]
    (folder / "accounts").write_text(Path("/etc/passwd").read_text() + "\n".join(accounts) + "\n")


def _lines(folder: Path) -> list[str]:
    """The users as a passwd-file, ours and Dovecot's."""
    return [
        f"{name}@example.test:x:{uid}:{uid}::{folder}/homes/{name}::" for name, uid in _UIDS.items()
    ]


def _send(address: tuple[str, int]) -> dict[str, dict[bytes, bytes]]:
    """Send to all and to each; what each has to get, by Message-ID."""
    expected: dict[str, dict[bytes, bytes]] = {name: {} for name in _USERS}
    with smtplib.SMTP(*address) as client:
        for number in range(_TO_ALL + _TO_EACH * len(_USERS)):
            names = _USERS
            if number >= _TO_ALL:
                names = [_USERS[number % len(_USERS)]]
            identity = b"<%d@client.test>" % number
            # Every fifth is large.
            body = b"%d\r\n.\r\n" % number + _LARGE * (0 if number % 5 else 2_000)
            content = b"Message-ID: %b\r\n\r\n%b" % (identity, body)
            to = [f"{name}@example.test" for name in names]
            assert not client.sendmail("sender@example.test", to, content)
            for name in names:
                expected[name][identity] = content
    return expected


def _read(reader: PrivateDovecot, name: str) -> dict[bytes, bytes]:
    """The mail of a user over IMAP, by Message-ID; the first message is flagged, and the user's
    own trash is made, as the mailbox is the user's to change."""
    with imaplib.IMAP4(*reader.imap_address) as client:
        client.login(f"{name}@example.test", "any")
        assert client.select("INBOX")[0] == "OK"
        _, parts = client.fetch("1:*", "(BODY.PEEK[])")
        assert client.store("1", "+FLAGS", r"(\Flagged)")[0] == "OK"
        assert client.create("Trash")[0] == "OK"
        assert client.copy("1", "Trash")[0] == "OK"
    contents = [split_trace(part[1])[1] for part in parts if isinstance(part, tuple)]
    found = {content.partition(b"\r\n")[0].partition(b": ")[2]: content for content in contents}
    assert len(found) == len(contents)
    return found


def _check_owner(maildir: Path, uid: int) -> None:
    found = [maildir, *maildir.rglob("*")]
    assert len(found) > _TO_ALL
    for path in found:
        status = path.lstat()
        assert (status.st_uid, status.st_gid) == (uid, uid), path
        assert stat.S_IMODE(status.st_mode) & 0o077 == 0, path


# As the user in argv[1]: which of the directories in argv[2:] can it look into or write to?
_TRESPASS = """
import os, sys
uid = int(sys.argv[1])
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
for path in sys.argv[2:]:
    for attempt in (lambda: os.listdir(path), lambda: os.open(path + "/x", os.O_CREAT)):
        try:
            attempt()
        except PermissionError:
            continue
        print(path)
"""


def _trespasses(folder: Path, name: str) -> list[str]:
    """The mailboxes that a user can look into or write to."""
    paths = [f"{folder}/homes/{other}/Maildir{below}" for other in _USERS for below in ("", "/new")]
    done = subprocess.run(
        [sys.executable, "-c", _TRESPASS, str(_UIDS[name]), *paths],
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(set(done.stdout.split()))


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("settings", "prefix"),
    [(_SYSTEM_USERS, _WITH_ACCOUNTS), (_ONE_USER, ())],
    ids=["system", "one-user"],
)
def test_each_user_reads_what_postfix_handed_over(
    folder: Path,
    programs: list[Program],
    settings: str,
    prefix: tuple[str, ...],
    postfix: type[PrivatePostfix],
    dovecot: type[PrivateDovecot],
) -> None:
    _make_users(folder)
    network = pwd.getpwnam(_NETWORK_USER)
    one_user = settings is _ONE_USER
    if one_user:
        for path in (folder / "homes", *(folder / "homes" / name for name in _USERS)):
            os.chown(path, network.pw_uid, network.pw_gid)
    (folder / "settings.toml").write_text((_SETTINGS + settings).format(folder=folder))
    daemon = Program(
        *("--config", "settings.toml"),
        cwd=folder,
        prefix=[*prefix, str(folder / "accounts")] if prefix else [],
    )
    programs.append(daemon)
    daemon.addresses(2)
    with (
        Watch(daemon.pid, f"{folder}/lmtp") as watch,
        postfix(f"lmtp:unix:{folder}/lmtp") as running,
    ):
        expected = _send(running.smtp_address)
        try:
            running.wait_until_queue_empty(60)
        except TimeoutError as error:
            error.add_note(daemon.stderr)
            raise
        log = running.log()
    copies = _TO_ALL * len(_USERS) + _TO_EACH * len(_USERS)
    assert log.count("status=sent") == copies, log

    # Whoever hears the network is the network's user and nobody else.
    assert not watch.faults
    assert watch.rounds > 1
    assert {uid for uid, count in watch.listened.items() if count} == {network.pw_uid}
    # The two listeners and, at some moment, a connection.
    assert watch.listened[network.pw_uid] > 2
    if one_user:
        assert watch.uids == {network.pw_uid}
    else:
        assert watch.uids == {0, network.pw_uid, *_UIDS.values()}

    for name in _USERS:
        maildir = folder / "homes" / name / "Maildir"
        _check_owner(maildir, network.pw_uid if one_user else _UIDS[name])
    if not one_user:
        own = [f"{folder}/homes/u07/Maildir{below}" for below in ("", "/new")]
        assert _trespasses(folder, "u07") == own
        for one in own:
            Path(one, "x").unlink()

    with dovecot(
        mail=f"{folder}/homes/{{user}}/Maildir", users=None if one_user else _lines(folder)
    ) as reader:
        # Dovecot gives what lies above the users' homes to its own user.
        for name in _USERS:
            assert _read(reader, name) == expected[name]
        faults = [line for line in reader.log().splitlines() if ": Info: " not in line]
    assert not faults
    for name in _USERS:
        assert _deliver_once(f"unix:{folder}/lmtp", name) == "250"
    assert daemon.stop() == 0


def _deliver_once(address: str, name: str) -> str:
    """Deliver to a user whose mailbox Dovecot has used; the code of the reply."""
    with Client(address) as client:
        [reply] = client.deliver("s@example.test", [f"{name}@example.test"], b"Subject: x\r\n\r\n")
    return reply[:3].decode()


def test_the_watch_sees_a_root_that_listens(
    folder: Path, programs: list[Program], start_root: Callable[[Path], Program]
) -> None:
    daemon = start_root(folder)
    programs.append(daemon)
    daemon.addresses(2)
    with Watch(daemon.pid, f"{folder}/lmtp") as watch, Client(f"unix:{folder}/lmtp"):
        pass
    # The supervisor's and the workers', each with both listeners.
    assert len(watch.faults) >= 6
    assert watch.uids == {0}
    assert daemon.stop() == 0


@pytest.fixture
def start_root() -> Callable[[Path], Program]:
    """A daemon that stays root, all of it."""

    def start(folder: Path) -> Program:
        (folder / "settings.toml").write_text(_SETTINGS.format(folder=folder))
        return Program("--config", "settings.toml", cwd=folder)

    return start
