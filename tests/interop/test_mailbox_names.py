"""Names of mailboxes: Dovecot's delivery agent and ours make the same of each."""

import grp
import os
import pwd
import subprocess
from collections.abc import Callable
from pathlib import Path, PurePath

import pytest

from benchmarks.peers.dovecot import PrivateDovecot
from mailstore import Destination, FolderOptions, NameEncoding
from tests.mailstore.support import codes, deliver, opened

_LDA = Path("/usr/lib/dovecot/dovecot-lda")

_CONFIGURATION = """\
base_dir = {folder}/run
state_dir = {folder}/run
log_path = {folder}/log
ssl = no
first_valid_uid = 1
mail_location = maildir:{folder}/theirs/user{encoding}
lda_mailbox_autocreate = yes
lda_mailbox_autosubscribe = yes
postmaster_address = postmaster@example.test
hostname = store.test
namespace inbox {{
  inbox = yes
  separator = {separator}
}}
"""

_NAMES = [
    *("INBOX", "inBox", "a", "a.b", "a/b", "a^b", "inbox.a", "inbox/a", "INBOXa", "\u0131nbox"),
    *(".", "..", ".a", "a.", "a..b", "/", "/a", "a/", "a//b", "^", "^a", "a/../b", "../a"),
    *("~", "~a", "a~", "a.~b", "a/~b", "cur", "new", "tmp", "a.cur", "dovecot", "subscriptions"),
    *("a b", " a", "a ", "*", "%", "\\", '"', "'", "-", "+,", "a&b", "&-", "&APw-", "a\x01"),
    *(
        "a\tb",
        "a\nb",
        "a\x7f",
        "\x85",
        "\u2028",
        "\xfc",
        "a.\xfc",
        "a\u0308",
        "\ufffe",
        "\U0001f600",
    ),
    *("\u65e5\u672c\u8a9e/\xe4&\xf6", "x" * 254, "x" * 255, "\xfc" * 94, "\xfc" * 96, "\xfc" * 127),
    *("\xfc" * 128, ".".join("a" * 127), ".".join("a" * 128), "/".join("a" * 127), "\u20ac" * 100),
]


def _messages(maildir: Path) -> list[str]:
    """The directories below `maildir`, one for each message in new/."""
    return [str(path.parent.parent.relative_to(maildir)) for path in maildir.glob("**/new/*")]


@pytest.fixture
def theirs(folder: Path, dovecot: type[PrivateDovecot]) -> Callable[[str, str, str], Path]:
    """Lets Dovecot deliver to a mailbox of a fresh Maildir, which it gives."""
    if not _LDA.exists():
        pytest.skip(f"{_LDA} is not installed (Debian package dovecot-core)")
    as_root = os.geteuid() == 0
    owner = pwd.getpwnam("nobody") if as_root else pwd.getpwuid(os.geteuid())
    for name in ("run", "home"):
        (folder / name).mkdir()
        os.chown(folder / name, owner.pw_uid, owner.pw_gid)
    (folder / "log").touch(mode=0o666)
    (folder / "log").chmod(0o666)
    count = 0

    def run(name: str, separator: str, encoding: str) -> Path:
        nonlocal count
        count += 1
        place = folder / f"theirs{count}"
        place.mkdir()
        os.chown(place, owner.pw_uid, owner.pw_gid)
        configuration = folder / "dovecot.conf"
        text = _CONFIGURATION.format(folder=folder, separator=separator, encoding=encoding)
        configuration.write_text(text.replace(f"{folder}/theirs/", f"{place}/"))
        subprocess.run(
            [_LDA, "-c", configuration, "-m", name.encode()],
            input=b"Subject: x\n\nbody\n",
            user=owner.pw_uid if as_root else None,
            group=grp.getgrgid(owner.pw_gid).gr_gid if as_root else None,
            extra_groups=[] if as_root else None,
            env={"HOME": f"{folder}/home", "USER": "user"},
            check=True,
        )
        return place / "user"

    return run


@pytest.mark.timeout(120)
@pytest.mark.parametrize("encoding", NameEncoding)
@pytest.mark.parametrize("separator", ["/", ".", "^"])
def test_dovecot_makes_the_same_of_a_name(
    folder: Path,
    theirs: Callable[[str, str, str], Path],
    separator: str,
    encoding: NameEncoding,
) -> None:
    options = FolderOptions(
        separator=separator, encoding=encoding, autocreate=True, autosubscribe=True
    )
    (folder / "ours").mkdir()
    with opened(folder / "ours", folders=options) as store:
        for number, name in enumerate(_NAMES):
            ours = folder / "ours" / str(number)
            assert codes(deliver(store, b"", [Destination(PurePath(ours), name)])) == [250]
            other = theirs(name, separator, ":UTF-8" if encoding is NameEncoding.UTF_8 else "")
            assert _messages(ours) == _messages(other), name
            subscribed = [maildir / "subscriptions" for maildir in (ours, other)]
            texts = [path.read_bytes() if path.exists() else None for path in subscribed]
            assert texts[0] == texts[1], name
