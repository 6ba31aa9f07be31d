"""The commands beside Dovecot's: `deliver` and `dovecot-lda`, `user` and `quota` and `doveadm`."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.peers.dovecot import PrivateDovecot
from tests.server._program import run_anew

pytestmark = pytest.mark.interop

_LDA = "/usr/lib/dovecot/dovecot-lda"
_SECONDS = 30.0
_MESSAGE = (
    b"From you@z Thu Jan  1 00:00:00 1970\nReturn-Path: <a@b>\r\nSubject: x\r\n\r\n.\nbody\r\n"
)

_USERS = [
    "joe@example.org:::::::",
    "full@example.org:::::::userdb_quota_rule=*:bytes=10",
    "alias@example.org:::::::userdb_user=joe@example.org",
    "justpass@example.org:{PLAIN}x",
    "bad@example.org:x:many:many::/",
]
_SETTINGS = """
mail_plugins = quota
sendmail_path = /bin/true
plugin {
  quota = maildir:User quota
  quota_rule = *:messages=20
}
"""


def _lda(dovecot: PrivateDovecot, *arguments: str) -> tuple[int, list[str]]:
    """The exit code of dovecot-lda, and what it says to the sender."""
    done = subprocess.run(
        [_LDA, "-c", f"{dovecot.folder}/dovecot.conf", *arguments],
        input=_MESSAGE,
        capture_output=True,
        timeout=_SECONDS,
        check=False,
    )
    return done.returncode, done.stderr.decode().splitlines()


def _doveadm(dovecot: PrivateDovecot, *arguments: str) -> tuple[int, list[list[str]]]:
    """The exit code of doveadm and the words that it prints."""
    done = subprocess.run(
        ["doveadm", "-c", f"{dovecot.folder}/dovecot.conf", *arguments],
        capture_output=True,
        timeout=_SECONDS,
        check=False,
    )
    return done.returncode, [line.split() for line in done.stdout.decode().splitlines()]


def _deliver(folder: Path, *arguments: str) -> tuple[int, list[str]]:
    done = run_anew("deliver", "-c", "ours.toml", *arguments, cwd=folder, stdin=_MESSAGE)
    return done.returncode, done.stderr.decode().splitlines()


def _lines(log: str) -> list[str]:
    """The lines of deliveries, without time, process and session."""
    found = re.findall(r"(lda\([^)]+\))<\d+><[^<>]+>: (?:Info: )?(msgid=.*)", log)
    # Two that it has more: what it does about the sender, which is the caller's business here, and
    # that a mailbox is missing, which follows from what the next line says.
    more = ("rejected:", "rejection", "failed to open")
    return [f"{user}: {text}" for user, text in found if not any(one in text for one in more)]


def _ask(folder: Path, *arguments: str) -> tuple[int, list[list[str]]]:
    done = run_anew(*arguments, "-c", "ours.toml", cwd=folder)
    return done.returncode, [line.split() for line in done.stdout.decode().splitlines()]


def _mail(maildir: Path) -> list[bytes]:
    return sorted(file.read_bytes() for file in (maildir / "new").iterdir())


_SAME: Sequence[tuple[str, ...]] = [
    ("-d", "joe@example.org"),
    ("-d", "JOE@Example.org", "-f", "you@example.net", "-a", "old@example.org", "-e", "-k"),
    ("-d", "joe@example.org", "-m", "No.Such", "-f", "", "-r", "other@example.org"),
    ("-d", "joe@example.org", "-f", "no <address"),
    ("-d", "alias@example.org"),
    ("-d", "full@example.org", "-e"),
    ("-d", "nobody@example.org"),
    ("-d", "joe+x@example.org"),
    ("-d", "justpass@example.org"),
    ("-d", "joe@example.org", "-p", "/nowhere"),
    ("-d", "joe@example.org", "-x"),
]
_OTHER = {
    # No mail is sent here: who calls tells the sender.
    ("-d", "full@example.org"): (os.EX_OK, os.EX_NOPERM),
    # Whom a broken line names is not unknown.
    ("-d", "bad@example.org"): (os.EX_NOUSER, os.EX_TEMPFAIL),
}


# Many programs, one after the other.
@pytest.mark.timeout(180)
def test_the_commands_of_dovecot_side_by_side(dovecot: type[PrivateDovecot], folder: Path) -> None:
    if not os.access(_LDA, os.X_OK):
        pytest.skip(f"{_LDA} is not installed (Debian package dovecot-core)")
    with dovecot(users=_USERS, settings=_SETTINGS) as theirs:
        ours = theirs.folder / "ours"
        ours.mkdir()
        os.chown(ours, theirs.uid, theirs.gid)
        (folder / "ours.toml").write_text(
            f"""
            mail = "{ours}/%u"
            first_valid_uid = 1
            [[userdb]]
            driver = "passwd-file"
            path = "{theirs.folder}/users"
            default_fields = {{ uid = "{theirs.uid}", gid = "{theirs.gid}" }}
            [quota]
            rules = ["*:messages=20"]
            [log]
            path = "{folder}/log"
            """
        )
        for arguments in _SAME:
            code, said = _lda(theirs, *arguments)
            our_code, we_said = _deliver(folder, *arguments)
            assert our_code == code, arguments
            if "full@example.org" in arguments:
                assert said == we_said == ["Quota exceeded (mailbox for user is full)"]
        lines = _lines((folder / "log").read_text())
        assert lines == _lines(theirs.log())
        assert "lda(joe@example.org): msgid=unspecified: saved mail to INBOX" in lines
        assert sum("full@example.org" in line for line in lines) == 1
        for arguments, codes in _OTHER.items():
            assert (_lda(theirs, *arguments)[0], _deliver(folder, *arguments)[0]) == codes
        # The same octets in as many messages.
        stored = _mail(ours / "joe@example.org")
        assert len(stored) == 5
        assert stored == _mail(theirs.maildir("joe@example.org"))

        # Our counter beside theirs, of the same mail.
        shutil.rmtree(ours / "joe@example.org")
        theirs.maildir("joe@example.org").rename(ours / "joe@example.org")
        theirs.maildir("joe@example.org").symlink_to(ours / "joe@example.org")
        for action in ("recalc", "get"):
            said_by_us = _ask(folder, "quota", action, "joe@example.org")
            assert said_by_us == _doveadm(theirs, "quota", action, "-u", "joe@example.org")
        code, fields = _doveadm(theirs, "user", "full@example.org")
        our_code, our_fields = _ask(folder, "user", "full@example.org")
        assert our_code == code == os.EX_OK
        # Where mail lies differs here, and theirs are given homes.
        same = {"field", "uid", "gid", "quota_rule"}
        assert [one for one in our_fields if one and one[0] in same] == [
            one for one in fields if one and one[0] in same
        ]
        assert _doveadm(theirs, "user", "nobody")[0] == _ask(folder, "user", "nobody")[0]
