"""Quotas counted together with others: Dovecot and maildrop on `maildirsize`, Dovecot on Redis."""

import imaplib
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path, PurePath

import pytest

from benchmarks.peers.dovecot import PrivateDovecot
from benchmarks.peers.ports import free_ports
from lmtp_proto import Reply
from mailstore import (
    MaildirQuotas,
    MaildirStore,
    Quota,
    QuotaExceeded,
    QuotaPolicy,
    QuotaUnavailable,
    RedisQuotas,
    Usage,
)
from tests.interop.lmtp import Client
from tests.interop.redis import PrivateRedis
from tests.mailstore.support import answers, envelope, fill

redis = pytest.importorskip("redis", reason="redis is not installed (extra redis)")

_USER = "user@example.test"
_PLACE = PurePath("example.test/user")
_CONTENT = b"Subject: x\r\n\r\n" + b"0123456789\r\n" * 80
_RULES = ("*:bytes=10000:messages=8", "Spam:ignore", "Trash:messages=+2")

_SETTINGS = """
mail_plugins = quota
protocol imap {{
  mail_plugins = quota imap_quota
}}
recipient_delimiter = +
lmtp_save_to_detail_mailbox = yes
lda_mailbox_autocreate = yes
plugin {{
  quota = {quota}
  quota_rule = {rules[0]}
  quota_rule2 = {rules[1]}
  quota_rule3 = {rules[2]}
}}
"""


def _settings(quota: str) -> str:
    return _SETTINGS.format(quota=quota, rules=_RULES)


def _deliver(root: Path, quota: Quota) -> Reply:
    """Deliver one message to the user, through the store."""
    transaction = envelope(_USER)
    (recipient,) = transaction.recipients
    store = MaildirStore(root, hostname="store.test")
    sink = store.open(transaction, {recipient: _PLACE}, {recipient: quota})
    fill(sink, [_CONTENT])
    (reply,) = answers(sink, transaction)
    sink.close()
    store.close()
    return reply


def _deliver_to_dovecot(server: PrivateDovecot, folder: str = "") -> bytes:
    user, _, domain = _USER.partition("@")
    with Client(server.lmtp_address) as lmtp:
        recipient = f"{user}+{folder}@{domain}" if folder else _USER
        (reply,) = lmtp.deliver("from@example.test", [recipient], _CONTENT)
    return reply


def _doveadm(server: PrivateDovecot) -> Usage:
    """What `doveadm quota get` says, in KiB rounded up and messages."""
    output = subprocess.run(
        ["doveadm", "-c", server.folder / "dovecot.conf", "-f", "tab", "quota", "get", "-u", _USER],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    values = {line.split("\t")[1]: line.split("\t")[2] for line in output.splitlines()[1:]}
    return Usage(int(values["STORAGE"]), int(values["MESSAGE"]))


def _imap(server: PrivateDovecot, *commands: tuple[str, ...]) -> bytes:
    """What GETQUOTAROOT says, after some commands on INBOX."""
    with imaplib.IMAP4(*server.imap_address) as client:
        client.login(_USER, "any")
        client.select("INBOX")
        for command, *arguments in commands:
            getattr(client, command)(*arguments)
        _, (_, quota) = client.getquotaroot("INBOX")
        assert isinstance(quota[0], bytes)
        return quota[0]


def _kib(usage: Usage) -> int:
    return -(-usage.octets // 1024)


@pytest.fixture
def server(dovecot: type[PrivateDovecot]) -> Iterator[PrivateDovecot]:
    """A Dovecot with the same rules and Maildirs, its quota in `maildirsize`."""
    with dovecot(settings=_settings("maildir:User quota")) as running:
        yield running


@pytest.fixture
def quota(server: PrivateDovecot) -> Iterator[Quota]:
    """Our quota of the user."""
    quotas = MaildirQuotas(server.mail_root)
    yield quotas.of(_PLACE, QuotaPolicy.parse(*_RULES))
    quotas.close()


def _recorded(server: PrivateDovecot) -> bytes:
    return (server.maildir(_USER) / "maildirsize").read_bytes()


def test_dovecot_reads_what_we_counted(server: PrivateDovecot, quota: Quota) -> None:
    for _ in range(3):
        assert _deliver(server.mail_root, quota).code == 250
    usage = quota.usage()
    assert usage.messages == 3
    ours = _recorded(server)
    server.own(server.mail_root)
    assert _doveadm(server) == Usage(_kib(usage), 3)
    assert _imap(server) == (b'"User quota" (STORAGE %d 10 MESSAGE 3 8)' % -(-usage.octets // 1024))
    # It has believed it: nothing was counted anew.
    assert _recorded(server) == ours


def test_we_read_what_dovecot_counted(server: PrivateDovecot, quota: Quota) -> None:
    for folder in ("", "Trash", "Spam", ""):
        assert _deliver_to_dovecot(server, folder).startswith(b"250 ")
    theirs = _recorded(server)
    usage = quota.usage()
    assert usage.messages == 3
    assert Usage(_kib(usage), 3) == _doveadm(server)
    assert _recorded(server) == theirs
    # The same where we count.
    assert quota.recalculate() == usage
    server.own(server.mail_root)
    assert _doveadm(server) == Usage(_kib(usage), 3)


def test_both_count_on(server: PrivateDovecot, quota: Quota) -> None:
    """Each delivers and is stopped by what the other has delivered; IMAP makes room for both."""
    assert _deliver_to_dovecot(server).startswith(b"250 ")
    for _ in range(3):
        assert _deliver(server.mail_root, quota).code == 250
        server.own(server.mail_root)
        assert _deliver_to_dovecot(server).startswith(b"250 ")
    assert _deliver(server.mail_root, quota).code == 250
    server.own(server.mail_root)
    refused = _deliver(server.mail_root, quota)
    server.own(server.mail_root)
    theirs = _deliver_to_dovecot(server)
    assert theirs.decode().strip() == str(refused)
    assert refused.code == 552
    # A folder with more room has it for both.
    quota.check(100, folder="Trash")
    assert _deliver_to_dovecot(server, "Trash").startswith(b"250 ")
    with pytest.raises(QuotaExceeded):
        quota.check(100)
    server.own(server.mail_root)
    said = _imap(server, ("store", "1:4", "+FLAGS", "\\Deleted"), ("expunge",))
    assert b"MESSAGE 5 8" in said
    assert quota.usage().messages == 5
    assert quota.recalculate().messages == 5
    assert _deliver(server.mail_root, quota).code == 250


@pytest.fixture
def _maildrop() -> None:
    for program in ("deliverquota", "maildirmake"):
        if shutil.which(program, path="/usr/sbin:/usr/bin") is None:
            pytest.skip(f"{program} is not installed (Debian package maildrop)")


@pytest.mark.usefixtures("_maildrop")
def test_maildrop_counts_on(tmp_path: Path) -> None:
    maildir = tmp_path / _PLACE
    quotas = MaildirQuotas(tmp_path)
    # maildrop does not count Trash.
    quota = quotas.of(_PLACE, QuotaPolicy.parse("*:bytes=10000:messages=4", "Trash:ignore"))

    def maildrop() -> int:
        return subprocess.run(
            ["/usr/sbin/deliverquota", str(maildir), "10000S,4C"],
            input=_CONTENT.replace(b"\r\n", b"\n"),
            stdout=subprocess.DEVNULL,
            check=False,
        ).returncode

    # The first makes the Maildir, the second the file.
    for _ in range(2):
        assert _deliver(tmp_path, quota).code == 250
    ours = (maildir / "maildirsize").read_bytes()
    assert maildrop() == 0
    # It has believed the file, and added to it.
    assert (maildir / "maildirsize").read_bytes().startswith(ours)
    there = sum(path.stat().st_size for path in (maildir / "new").iterdir())
    assert quota.usage() == Usage(there, 3)
    (maildir / "maildirsize").unlink()
    assert maildrop() == 0
    theirs = (maildir / "maildirsize").read_bytes()
    there = sum(path.stat().st_size for path in (maildir / "new").iterdir())
    assert quota.usage() == Usage(there, 4)
    assert (maildir / "maildirsize").read_bytes() == theirs
    assert maildrop() == 77
    assert _deliver(tmp_path, quota).code == 552
    assert quota.recalculate() == Usage(there, 4)
    assert maildrop() == 77
    quotas.close()


@pytest.fixture
def _redis() -> None:
    if PrivateRedis.program() is None:
        pytest.skip("no redis-server is installed (Debian package redis-server)")


class _Counted:
    """A mailbox as far as a counter elsewhere knows it."""

    def __init__(self, usage: Usage) -> None:
        self.usage = usage
        self.calls = 0

    def __call__(self) -> Usage:
        self.calls += 1
        return self.usage


@pytest.mark.usefixtures("_redis")
class TestRedis:
    """Quotas in Redis."""

    def test_counting(self) -> None:
        count = _Counted(Usage(100, 1))
        with PrivateRedis() as server:
            quotas = RedisQuotas(server.url, prefix="quota/")
            quota = quotas.of(
                _USER, QuotaPolicy.parse("*:bytes=1000:messages=3", grace="10"), count
            )
            quota.check(910)
            with pytest.raises(QuotaExceeded):
                quota.check(911)
            with pytest.raises(QuotaExceeded):
                quota.reserve(911)
            first = quota.reserve(900)
            with pytest.raises(QuotaExceeded):
                quota.reserve(11)
            first.cancel()
            first = quota.reserve(910)
            first.commit()
            # Beyond the limit there is no grace, and no room for nothing at all.
            with pytest.raises(QuotaExceeded):
                quota.check(0)
            quota.reserve(5, enforced=False).commit()
            assert quota.usage() == Usage(1015, 3)
            assert count.calls == 1
            count.usage = Usage(7, 1)
            assert quota.recalculate() == quota.usage() == Usage(7, 1)
            quota.reserve(1).commit()
            quota.reserve(1).commit()
            with pytest.raises(QuotaExceeded):
                quota.reserve(1)
            client = redis.Redis.from_url(server.url)
            assert client.get(f"quota/{_USER}/quota/storage") == b"9"
            assert client.get(f"quota/{_USER}/quota/messages") == b"3"
            for key in ("storage", "messages"):
                for value in (b"junk", b"-5", b"1e3", b"", b"9" * 30):
                    client.set(f"quota/{_USER}/quota/{key}", value)
                    assert quota.usage() == Usage(7, 1)
            client.close()
            ignoring = QuotaPolicy.parse("*:bytes=1", "Spam:ignore", mail_size="10")
            spam = quotas.of("other", ignoring, count)
            spam.reserve(9, folder="Spam").commit()
            spam.check(9, folder="Spam")
            with pytest.raises(QuotaExceeded, match="size"):
                spam.reserve(11, folder="Spam")
            quotas.close()

    def test_what_comes_while_it_is_counted_is_not_lost(self) -> None:
        with PrivateRedis() as server:
            quotas = RedisQuotas(server.url)
            policy = QuotaPolicy.parse("*:bytes=1000")

            def count() -> Usage:
                quotas.of(_USER, policy, lambda: Usage(100, 1)).reserve(10).commit()
                return Usage(100, 1)

            quota = quotas.of(_USER, policy, count)
            assert quota.usage() == Usage(110, 2)
            assert quota.recalculate() == Usage(110, 2)
            quotas.close()

    def test_no_limit_is_passed_by_many_at_once(self) -> None:
        with PrivateRedis() as server:
            stored = []
            start = threading.Barrier(8)

            def run() -> None:
                quotas = RedisQuotas(server.url)
                quota = quotas.of(_USER, QuotaPolicy.parse("*:messages=100"), lambda: Usage(0, 0))
                start.wait()
                for number in range(30):
                    try:
                        room = quota.reserve(1)
                    except QuotaExceeded:
                        continue
                    if number % 5:
                        room.commit()
                        stored.append(1)
                    else:
                        room.cancel()
                quotas.close()

            threads = [threading.Thread(target=run) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            quotas = RedisQuotas(server.url)
            quota = quotas.of(_USER, QuotaPolicy.parse("*:messages=100"), lambda: Usage(0, 0))
            while len(stored) < 100:
                quota.reserve(1).commit()
                stored.append(1)
            with pytest.raises(QuotaExceeded):
                quota.reserve(1)
            assert quota.usage() == Usage(100, 100) == Usage(len(stored), len(stored))
            quotas.close()

    def test_a_server_that_is_away_is_no_refusal_and_no_room(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with PrivateRedis() as server:
            quotas = RedisQuotas(server.url, timeout=5)
            quota = quotas.of(_USER, QuotaPolicy.parse("*:messages=5"), lambda: Usage(0, 0))
            room = quota.reserve(1)
            server.stop()
            room.cancel()
            assert "did not come" in caplog.text
            for call in (quota.usage, quota.recalculate, lambda: quota.check(1)):
                with pytest.raises(QuotaUnavailable):
                    call()
            assert _deliver(tmp_path, quota).code == 451
            assert not (tmp_path / _PLACE).exists()
            with server:
                assert _deliver(tmp_path, quota).code == 250
                assert quota.usage().messages == 1
            quotas.close()

    def test_a_server_that_says_nothing_is_not_waited_for(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            quotas = RedisQuotas(f"redis://127.0.0.1:{silent.getsockname()[1]}", timeout=0.1)
            quota = quotas.of(_USER, QuotaPolicy.parse("*:messages=5"), lambda: Usage(0, 0))
            with pytest.raises(QuotaUnavailable):
                quota.reserve(1)
            quotas.close()

    def test_dovecot_counts_on(self, dovecot: type[PrivateDovecot]) -> None:
        """Dovecot's dict quota has the same keys: what IMAP deletes makes room for us."""
        (port,) = free_ports(1)
        settings = _settings(f"dict:User quota::redis:host=127.0.0.1:port={port}:prefix=quota/")
        with PrivateRedis(port=port) as counter, dovecot(settings=settings) as server:
            places = MaildirQuotas(server.mail_root)
            policy = QuotaPolicy.parse(*_RULES)
            quotas = RedisQuotas(counter.url, prefix="quota/")
            quota = quotas.of(_USER, policy, places.of(_PLACE, policy).count)
            for _ in range(4):
                assert _deliver_to_dovecot(server).startswith(b"250 ")
                assert _deliver(server.mail_root, quota).code == 250
                server.own(server.mail_root)
            assert _deliver(server.mail_root, quota).code == 552
            assert _deliver_to_dovecot(server).startswith(b"552 5.2.2 ")
            assert quota.usage() == places.of(_PLACE, policy).count()
            assert _doveadm(server) == Usage(_kib(quota.usage()), 8)
            said = _imap(server, ("store", "1:4", "+FLAGS", "\\Deleted"), ("expunge",))
            assert b"MESSAGE 4 8" in said
            assert quota.usage() == places.of(_PLACE, policy).count()
            assert quota.recalculate() == places.of(_PLACE, policy).count()
            assert _doveadm(server) == Usage(_kib(quota.usage()), 4)
            quotas.close()
            places.close()
