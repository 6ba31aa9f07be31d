"""Folders, flags, keywords and subscriptions that were delivered, as Dovecot's IMAP has them."""

import base64
import imaplib
import os
import re
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath

import pytest

from benchmarks.peers.dovecot import PrivateDovecot
from mailstore import Destination, FolderOptions, MaildirStore, NameEncoding, Sync
from tests.interop.daemon import Daemon
from tests.interop.lmtp import Client
from tests.mailstore.support import codes, deliver

_OPTIONS = FolderOptions(autocreate=True, autosubscribe=True)
_CONTENT = b"Subject: x\r\n\r\nbody\r\n"
_NAMES = [
    "Entw\xfcrfe",
    "\u65e5\u672c\u8a9e.\U0001f600",
    "a&b",
    "Lists.Python.dev",
    "INBOX.child",
    "~x"[::-1],
    'with blanks % and "quotes\\',
]


def _wire(name: str) -> str:
    """`name` as IMAP has it (RFC 3501 5.1.3), quoted."""

    def encode(match: re.Match[str]) -> str:
        if match[0] == "&":
            return "&-"
        octets = base64.b64encode(match[0].encode("utf-16-be"), b"+,")
        return f"&{octets.rstrip(b'=').decode()}-"

    encoded = re.sub(r"&|[^ -~]+", encode, name)
    return '"' + re.sub(r'(["\\])', r"\\\1", encoded) + '"'


def _names(answer: tuple[str, Sequence[object]]) -> set[str]:
    """The names in the answer to LIST or LSUB, quoted."""
    names = set()
    for line in answer[1]:
        if isinstance(line, tuple):
            # A name with quotes is a literal.
            name = line[1].decode()
        elif isinstance(line, bytes) and line:
            name = line.decode().split(") ", 1)[1].split(" ", 1)[1]
        else:
            continue
        if not name.startswith('"'):
            name = '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'
        names.add(name)
    return names


@contextmanager
def _imap(reader: PrivateDovecot) -> Iterator[imaplib.IMAP4]:
    with imaplib.IMAP4(*reader.imap_address) as client:
        client.login("user@example.test", "any")
        yield client


def _flags(client: imaplib.IMAP4, name: str) -> list[set[str]]:
    """The flags of each message in a mailbox, but for the one that says it is recent."""
    status, _ = client.select(_wire(name), readonly=True)
    assert status == "OK", name
    _, lines = client.fetch("1:*", "(FLAGS)")
    flags = []
    for line in lines:
        match = re.search(rb"FLAGS \(([^)]*)\)", line) if isinstance(line, bytes) else None
        if match is not None:
            flags.append(set(match[1].decode().split()) - {"\\Recent"})
    return flags


def _deliver_as(reader: PrivateDovecot, *places: tuple[str, str, Iterable[str]]) -> None:
    """Deliver to these mailboxes, with flags and keywords, as the user whose mail it is."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(reader.gid)
                os.setuid(reader.uid)
            store = MaildirStore(
                reader.mail_root, hostname="store.test", folders=_OPTIONS, sync=Sync.NEVER
            )
            user = PurePath(reader.maildir("user@example.test"))
            for mailbox, flags, keywords in places:
                place = Destination(user, mailbox, flags, tuple(keywords))
                assert codes(deliver(store, _CONTENT, [place])) == [250]
            store.close()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_folders_flags_and_keywords(dovecot: type[PrivateDovecot]) -> None:
    with dovecot() as reader:
        _deliver_as(
            reader,
            *((name, "", ()) for name in _NAMES),
            (_NAMES[0], "SFRT", ["Junk", "$Label1"]),
            ("INBOX", "D", []),
            ("INBOX", "", ["$label1"]),
        )
        with _imap(reader) as client:
            wanted = {_wire(name) for name in _NAMES}
            assert _names(client.list()) >= wanted | {'"INBOX"'}
            assert _names(client.lsub()) == wanted
            for name in _NAMES[1:]:
                assert _flags(client, name) == [set()]
            seen = {"\\Seen", "\\Flagged", "\\Answered", "\\Deleted", "Junk", "$Label1"}
            assert sorted(_flags(client, _NAMES[0]), key=len) == [set(), seen]
            assert sorted(_flags(client, "INBOX"), key=str) == [{"$label1"}, {"\\Draft"}]
        log = reader.log()
    assert not [line for line in log.splitlines() if ": Info: " not in line]


def test_names_in_utf_8(folder: Path, dovecot: type[PrivateDovecot]) -> None:
    options = FolderOptions(encoding=NameEncoding.UTF_8, autocreate=True, autosubscribe=True)
    template = f"{folder}/mail/{{domain}}/{{user}}:UTF-8"
    (folder / "mail").mkdir()
    store = MaildirStore(folder / "mail", hostname="store.test", folders=options)
    places = [Destination(PurePath("example.test/user"), name) for name in _NAMES]
    assert set(codes(deliver(store, _CONTENT, places))) == {250}
    store.close()
    with dovecot(mail=template) as reader:
        reader.own(folder / "mail")
        with _imap(reader) as client:
            wanted = {_wire(name) for name in _NAMES}
            assert _names(client.list()) >= wanted
            assert _names(client.lsub()) == wanted
            for name in _NAMES:
                assert _flags(client, name) == [set()]


def test_keywords_that_both_have_written(dovecot: type[PrivateDovecot]) -> None:
    with dovecot() as reader:
        _deliver_as(reader, ("a", "S", ["ours"]))
        with _imap(reader) as client:
            assert _flags(client, "a") == [{"\\Seen", "ours"}]
            client.select("a")
            client.store("1", "+FLAGS", "(theirs)")
            client.expunge()
            client.close()
        _deliver_as(reader, ("a", "", ["Theirs"]), ("a", "", ["more", "OURS"]))
        with _imap(reader) as client:
            assert sorted(_flags(client, "a"), key=len) == [
                {"theirs"},
                {"ours", "more"},
                {"\\Seen", "ours", "theirs"},
            ]
            client.select("a")
            client.store("1:*", "+FLAGS", "(last)")
            assert all("last" in flags for flags in _flags(client, "a"))
        keywords = (reader.maildir("user@example.test") / ".a" / "dovecot-keywords").read_text()
        assert keywords == "0 ours\n1 theirs\n2 more\n3 last\n"
        log = reader.log()
    assert not [line for line in log.splitlines() if ": Info: " not in line]


@pytest.mark.parametrize("old", [None, b"first\nfirst.child\n"])
def test_subscriptions_that_both_write_at_once(
    dovecot: type[PrivateDovecot], old: bytes | None
) -> None:
    ours = [f"ours{number}.\xfc" for number in range(30)]
    theirs = [f"theirs{number}.\xfc" for number in range(30)]
    with dovecot() as reader:
        _deliver_as(reader, ("INBOX", "", ()))
        if old is not None:
            (reader.maildir("user@example.test") / "subscriptions").write_bytes(old)
            reader.own(reader.mail_root)
        with _imap(reader) as client:

            def subscribe() -> None:
                for name in theirs:
                    client.create(_wire(name))
                    client.subscribe(_wire(name))

            thread = threading.Thread(target=subscribe)
            thread.start()
            _deliver_as(reader, *((name, "", ()) for name in ours))
            thread.join()
            wanted = {_wire(name) for name in (*ours, *theirs)}
            if old is not None:
                wanted |= {'"first"', '"first.child"'}
            assert {name for name in _names(client.lsub()) if "&" in name or old} >= wanted
        # A session may go on with the list of mailboxes that it has read before.
        with _imap(reader) as client:
            assert _names(client.list()) >= {_wire(name) for name in (*ours, *theirs)}
        maildir = reader.maildir("user@example.test")
        assert not list(maildir.glob("*.lock"))
        log = reader.log()
    assert not [line for line in log.splitlines() if ": Info: " not in line]


def test_the_detail_of_an_address(
    daemon: Callable[..., Daemon],
    folder: Path,
    template: str,
    dovecot: type[PrivateDovecot],
) -> None:
    started = daemon(
        "asyncio",
        flags=[
            *("--save-to-detail-mailbox", "--mailbox-autocreate"),
            "--mailbox-autosubscribe",
        ],
    )
    recipients = ["user+Lists.dev@example.test", "user+@example.test", '"user+a/b"@example.test']
    with Client(started.addresses[0]) as client:
        replies = list(client.deliver("sender@example.test", recipients, _CONTENT))
    assert [reply[:9] for reply in replies] == [b"250 2.0.0"] * 3
    with dovecot(mail=template) as reader:
        reader.own(folder / "mail")
        with _imap(reader) as imap:
            assert _flags(imap, "Lists.dev") == [set()]
            # One address has no detail, the other one that is no mailbox: one copy for both.
            assert _flags(imap, "INBOX") == [set()]
            assert _names(imap.lsub()) == {'"Lists.dev"'}
