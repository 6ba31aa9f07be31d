"""Quotas where mail is delivered: refusals at RCPT and after the content, races, warnings."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path, PurePath

import pytest

from lmtp_proto import Mail, MailParameters, RcptParameters, Recipient, Reply
from mailstore import (
    Destination,
    FolderOptions,
    MaildirQuotas,
    MaildirStore,
    Quota,
    QuotaPolicy,
    QuotaUnavailable,
    StoreHandler,
    Sync,
    Usage,
)
from tests.mailstore.support import (
    HOSTNAME,
    address,
    answers,
    client,
    codes,
    envelope,
    files_below,
    fill,
    mail_in,
    opened,
)

_SMALL = b"Subject: x\r\n\r\n" + b"body\r\n" * 100
_LARGE = b"Subject: x\r\n\r\n" + b"body\r\n" * 50_000
_FULL = "Quota exceeded (mailbox for user is full)"


class _Server:
    """A handler with a store and quotas, without a network."""

    def __init__(self, handler: StoreHandler) -> None:
        self._handler = handler
        self._session = client()

    def send(
        self,
        *users: str,
        content: bytes = _SMALL,
        size: int | None = None,
        parameters: RcptParameters | None = None,
    ) -> tuple[list[Reply | None], list[Reply]]:
        """The replies to RCPT, then those to the content."""
        transaction = envelope(session=self._session)
        transaction.mail = Mail(
            reverse_path=address("from@example.net"), parameters=MailParameters(size=size)
        )
        self._handler.mail(self._session, transaction.mail)
        replies = []
        for user in users:
            recipient = Recipient(
                address=address(f"{user}@example.org"),
                parameters=parameters or RcptParameters(),
            )
            answer = self._handler.rcpt(transaction, recipient)
            reply = answer() if callable(answer) else answer
            if isinstance(reply, Future):
                reply = reply.result()
            assert reply is None or isinstance(reply, Reply)
            replies.append(reply)
            if reply is None:
                transaction.recipients.append(recipient)
        sink = self._handler.open(transaction)
        fill(sink, [content])
        final = answers(sink, transaction)
        sink.close()
        return replies, final


@contextmanager
def _server(root: Path, policies: Mapping[str, QuotaPolicy]) -> Iterator[_Server]:
    quotas = MaildirQuotas(root)

    def quota(recipient: Recipient) -> Quota | None:
        user = recipient.address.local_part
        return quotas.of(PurePath(user), policies[user]) if user in policies else None

    with opened(root, sync=Sync.NEVER) as store:
        yield _Server(
            StoreHandler(store, lambda one: PurePath(one.address.local_part), quota=quota)
        )
    quotas.close()


@pytest.mark.parametrize("content", [_SMALL, _LARGE])
def test_a_full_mailbox_is_refused_after_the_content_and_then_at_rcpt(
    tmp_path: Path, content: bytes
) -> None:
    policies = {"a": QuotaPolicy.parse("*:messages=2")}
    with _server(tmp_path, policies) as server:
        for _ in range(2):
            replies, final = server.send("a", "b", content=content)
            assert replies == [None, None]
            assert codes(final) == [250, 250]
        replies, final = server.send("a", "b", content=content)
        assert replies == [Reply(552, f"<a@example.org> {_FULL}", enhanced="5.2.2"), None]
        assert codes(final) == [250]
    assert len(mail_in(tmp_path / "a")) == 2
    assert len(mail_in(tmp_path / "b")) == 3


@pytest.mark.parametrize("content", [_SMALL, _LARGE])
def test_a_message_larger_than_declared_is_refused_after_the_content(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    policies = {"a": QuotaPolicy.parse("*:bytes=500", grace="0")}
    with _server(tmp_path, policies) as server:
        for size in (None, 500):
            replies, final = server.send("a", "b", content=content, size=size)
            assert replies == [None, None]
            assert final[0] == Reply(552, f"<a@example.org> {_FULL}", enhanced="5.2.2")
            assert final[1].code == 250
        replies, final = server.send("a", content=content, size=501)
        assert codes([reply for reply in replies if reply]) == [552]
    assert not (tmp_path / "a").exists()
    # It is nobody's fault.
    assert caplog.records == []


def test_tempfail_and_message_are_settings(tmp_path: Path) -> None:
    policy = QuotaPolicy.parse("*:bytes=10", full_tempfail=True, exceeded_message="no room")
    with _server(tmp_path, {"a": policy}) as server:
        expected = Reply(452, "<a@example.org> no room", enhanced="4.2.2")
        assert server.send("a")[1] == [expected]
        assert server.send("a", size=100)[0] == [expected]


def test_the_largest_mail_size(tmp_path: Path) -> None:
    # Whatever is tried again will be as large.
    policy = QuotaPolicy.parse("*:storage=1G", mail_size="1K", full_tempfail=True)
    text = "Mail size is larger than the maximum size allowed by server configuration"
    expected = Reply(552, f"<a@example.org> {text}", enhanced="5.2.3")
    with _server(tmp_path, {"a": policy}) as server:
        assert server.send("a", size=1025)[0] == [expected]
        assert server.send("a", content=_LARGE)[1] == [expected]
        assert codes(server.send("a")[1]) == [250]


def test_one_message_may_use_the_grace(tmp_path: Path) -> None:
    policies = {"a": QuotaPolicy.parse("*:bytes=1000", grace="50%")}
    with _server(tmp_path, policies) as server:
        # Some 700 octets each.
        outcomes = [server.send("a") for _ in range(3)]
    assert [codes(final) for _, final in outcomes] == [[250], [250], []]
    assert [reply.code for replies, _ in outcomes for reply in replies if reply] == [552]


def test_ignorequota_is_counted_but_not_refused(tmp_path: Path) -> None:
    policies = {"a": QuotaPolicy.parse("*:messages=1", mail_size="100")}
    ignoring = RcptParameters(ignore_quota=True)
    with _server(tmp_path, policies) as server:
        for _ in range(3):
            assert codes(server.send("a", parameters=ignoring)[1]) == [250]
    assert (tmp_path / "a/maildirsize").read_bytes().startswith(b"1C\n")
    quotas = MaildirQuotas(tmp_path)
    assert quotas.of(PurePath("a"), policies["a"]).usage().messages == 3
    quotas.close()


def test_recipients_that_share_a_maildir_share_its_quota(tmp_path: Path) -> None:
    policies = {"a": QuotaPolicy.parse("*:messages=1")}
    with _server(tmp_path, policies) as server:
        assert codes(server.send("a", "a")[1]) == [250, 250]
        assert codes([reply for reply in server.send("a", "a")[0] if reply]) == [552, 552]
    assert len(mail_in(tmp_path / "a")) == 1


def test_recipients_of_one_quota_are_refused_where_it_is_met(tmp_path: Path) -> None:
    quotas = MaildirQuotas(tmp_path)
    # Two Maildirs of one user.
    shared = quotas.of(PurePath("a"), QuotaPolicy.parse("*:messages=1"))
    with opened(tmp_path) as store:
        place = {"a": "a", "b": "other"}
        handler = StoreHandler(
            store,
            lambda one: PurePath(place[one.address.local_part]),
            quota=lambda one: shared,
        )
        replies, final = _Server(handler).send("a", "b")
        assert replies == [None, None]
        assert codes(final) == [250, 552]
    quotas.close()


def test_what_the_name_says_is_what_is_counted(tmp_path: Path) -> None:
    policies = {"a": QuotaPolicy.parse("*:storage=1G")}
    with _server(tmp_path, policies) as server:
        for content in (_SMALL, _LARGE, _SMALL):
            server.send("a", content=content)
    sizes = [path.stat().st_size for path in (tmp_path / "a/new").iterdir()]
    head, *lines = (tmp_path / "a/maildirsize").read_bytes().splitlines()
    assert head == b"1073741824S"
    assert sum(int(line.split()[0]) for line in lines) == sum(sizes)
    assert sum(int(line.split()[1]) for line in lines) == 3


class _Broken:
    """A quota whose counter is away."""

    mailbox_count = 0

    def check(self, size: int, *, folder: str = "INBOX") -> None:
        raise QuotaUnavailable("the counter is away")

    def reserve(self, size: int, *, folder: str = "INBOX", enforced: bool = True) -> "_Broken":
        raise QuotaUnavailable("the counter is away")

    def usage(self) -> Usage:
        raise NotImplementedError

    recalculate = usage

    def commit(self) -> None:
        raise NotImplementedError

    cancel = commit


def test_a_counter_that_is_away_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path) as store:
        handler = StoreHandler(
            store,
            lambda one: PurePath(one.address.local_part),
            quota=lambda one: _Broken() if one.address.local_part == "a" else None,
        )
        server = _Server(handler)
        replies, final = server.send("a", "b")
        assert [reply and (reply.code, reply.enhanced) for reply in replies] == [
            (451, "4.3.0"),
            None,
        ]
        assert codes(final) == [250]
        assert "a@example.org" in caplog.text
        # And where it is away only when the content has come.
        _, final = server.send("a", parameters=RcptParameters(ignore_quota=True))
        assert codes(final) == [451]
    assert not (tmp_path / "a").exists()


def test_what_is_not_stored_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_args: object, **_options: object) -> None:
        raise OSError(5, "I/O error")

    policies = {"a": QuotaPolicy.parse("*:messages=1")}
    with _server(tmp_path, policies) as server:
        with monkeypatch.context() as patch:
            patch.setattr(os, "link", link)
            for content in (_SMALL, _LARGE):
                assert codes(server.send("a", content=content)[1]) == [451]
        # The room is free again.
        assert codes(server.send("a")[1]) == [250]
    assert [path for path in files_below(tmp_path) if "/tmp/" in path] == []


def test_threads_of_one_process_do_not_overshoot(tmp_path: Path) -> None:
    policies = {"a": QuotaPolicy.parse("*:messages=40")}
    replies: list[int] = []
    start = threading.Barrier(8)
    with _server(tmp_path, policies) as server:
        handler = server._handler

        def run() -> None:
            own = _Server(handler)
            start.wait()
            for _ in range(10):
                replies.extend(codes(own.send("a")[1]))

        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert replies.count(250) == len(mail_in(tmp_path / "a")) <= 40
        # Nobody is refused for long for what was counted twice in the throng.
        for _ in range(40 - replies.count(250)):
            assert codes(server.send("a")[1]) == [250]
        assert codes([reply for reply in server.send("a")[0] if reply]) == [552]
    assert len(mail_in(tmp_path / "a")) == 40


_RACER = """
import sys
from pathlib import Path, PurePath
from mailstore import MaildirQuotas, MaildirStore, QuotaPolicy, Sync
from tests.mailstore.support import envelope, fill, answers
root = Path(sys.argv[1])
quota = MaildirQuotas(root).of(PurePath("user"), QuotaPolicy.parse("*:messages=900"))
store = MaildirStore(root, hostname="mx", sync=Sync.NEVER)
print("ready", flush=True)
sys.stdin.readline()
stored = 0
while True:
    transaction = envelope("a@example.org")
    (recipient,) = transaction.recipients
    sink = store.open(transaction, {recipient: PurePath("user")}, {recipient: quota})
    fill(sink, [b"Subject: x\\r\\n\\r\\nbody\\r\\n"])
    (reply,) = answers(sink, transaction)
    sink.close()
    if reply.code != 250:
        break
    stored += 1
print(reply.code, stored)
"""


@pytest.mark.timeout(120)
def test_processes_overshoot_by_no_more_than_they_have_in_flight(tmp_path: Path) -> None:
    # More messages than fit into a file of 5120 octets: it is counted anew amid the race.
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACER, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    results = []
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    for racer in racers:
        output, _ = racer.communicate()
        assert racer.returncode == 0
        results.append([int(word) for word in output.split()])
    assert {code for code, _ in results} == {552}
    there = len(os.listdir(tmp_path / "user/new"))
    assert sum(stored for _, stored in results) == there
    assert 900 - len(racers) < there < 900 + len(racers)


def _waits_for(path: Path) -> Callable[[], str]:
    """A FIFO at `path`; reads what one writer has to say, then the next."""
    os.mkfifo(path)

    def read() -> str:
        with path.open() as fifo:
            return fifo.read()

    return read


def _says(path: Path, text: str) -> list[str]:
    return [sys.executable, "-c", f"open({str(path)!r}, 'w').write({text!r})"]


def test_a_warning_runs_once_for_each_crossing(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    read = _waits_for(fifo)
    policy = QuotaPolicy.parse(
        "*:messages=10",
        warnings=[
            ("messages=60%", _says(fifo, "60 ")),
            ("messages=40%", _says(fifo, "40 ")),
            ("-messages=30%", _says(fifo, "under ")),
        ],
    )
    root = tmp_path / "root"
    root.mkdir()
    with _server(root, {"a": policy}) as server:
        # A command that cannot say what it has to is not waited for.
        for _ in range(5):
            assert codes(server.send("a")[1]) == [250]
        assert read() == "40 "
        assert codes(server.send("a")[1]) == [250]
        assert read() == "60 "
        for path in (root / "a/new").iterdir():
            path.unlink()
        quotas = MaildirQuotas(root)
        quotas.of(PurePath("a"), policy).recalculate()
        assert read() == "under "
        quotas.close()


def test_a_warning_gets_no_descriptor_and_no_shell(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    read = _waits_for(fifo)
    program = (
        "import os, sys; listed = sorted(int(one) for one in os.listdir('/proc/self/fd'));"
        f"open({str(fifo)!r}, 'w').write(repr((listed[:-1], sys.argv[1:])))"
    )
    argument = "$(touch x); 'y' *"
    policy = QuotaPolicy.parse(
        "*:messages=1", warnings=[("messages=100%", [sys.executable, "-c", program, argument])]
    )
    root = tmp_path / "root"
    root.mkdir()
    with _server(root, {"a": policy}) as server:
        # The first message makes the Maildir; there is no file to add it to.
        assert codes(server.send("a")[1]) == [250]
        assert read() == repr(([0, 1, 2], [argument]))


def test_one_of_many_runs_the_warning(tmp_path: Path) -> None:
    log = tmp_path / "log"
    write = f"open({str(log)!r}, 'a').write('crossed ')"
    policy = QuotaPolicy.parse(
        "*:messages=100", warnings=[("messages=20%", [sys.executable, "-c", write])]
    )
    for part in ("new", "cur", "tmp"):
        (tmp_path / "a" / part).mkdir(parents=True)
    (tmp_path / "a/maildirsize").write_bytes(b"100C\n0 0\n")
    start = threading.Barrier(4)

    def run() -> None:
        # As a process of its own has them.
        quotas = MaildirQuotas(tmp_path)
        quota = quotas.of(PurePath("a"), policy)
        start.wait()
        for _ in range(10):
            quota.reserve(1).commit()
        quotas.close()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _join_warnings()
    assert log.read_text() == "crossed "


def _join_warnings() -> None:
    for thread in threading.enumerate():
        if thread.name == "mailstore-quota-warning":
            thread.join()


def test_a_warning_that_cannot_be_run_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = QuotaPolicy.parse("*:messages=2", warnings=[("messages=1", [str(tmp_path / "none")])])
    quotas = MaildirQuotas(tmp_path)
    for part in ("new", "cur", "tmp"):
        (tmp_path / "a" / part).mkdir(parents=True)
    quotas.of(PurePath("a"), policy).reserve(5).commit()
    _join_warnings()
    assert "none" in caplog.text
    quotas.close()


def test_across_fork(tmp_path: Path) -> None:
    quotas = MaildirQuotas(tmp_path)
    quota = quotas.of(PurePath("a"), QuotaPolicy.parse("*:messages=2"))
    quota.reserve(1)
    child = os.fork()
    if child == 0:
        # What its parent has in flight is not its own.
        quota.reserve(1)
        quota.reserve(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    quotas.close()


def test_without_quota_the_store_is_as_it_was(tmp_path: Path) -> None:
    store = MaildirStore(tmp_path, hostname=HOSTNAME)
    server = _Server(StoreHandler(store, lambda one: PurePath(one.address.local_part)))
    assert codes(server.send("a")[1]) == [250]
    store.close()
    assert not (tmp_path / "a/maildirsize").exists()


@pytest.mark.parametrize("content", [_SMALL, _LARGE])
@pytest.mark.parametrize("refuse", [False, True])
def test_no_more_mailboxes_are_made_than_a_user_may_have(
    tmp_path: Path, content: bytes, refuse: bool
) -> None:
    user = tmp_path / "user"
    (user / ".Old").mkdir(parents=True)
    # These are no mailboxes.
    (user / "attachments").mkdir()
    (user / ".hidden").write_text("")
    (user / ".link").symlink_to(".Old")
    quotas = MaildirQuotas(tmp_path)
    quota = quotas.of(PurePath("user"), QuotaPolicy.parse("*:bytes=9M", mailbox_count=3))
    folders = FolderOptions(autocreate=True, refuse_missing=refuse)

    def send(name: str) -> int:
        transaction = envelope("user@example.org")
        (recipient,) = transaction.recipients
        place = Destination(PurePath("user"), name)
        sink = store.open(transaction, {recipient: place}, {recipient: quota})
        fill(sink, [content])
        (reply,) = answers(sink, transaction)
        sink.close()
        return reply.code

    with opened(tmp_path, folders=folders) as store:
        # The INBOX, Old and this one.
        assert send("New") == 250
        assert send("Newer") == (550 if refuse else 250)
        assert [send("Old"), send("New"), send("INBOX")] == [250] * 3
    quotas.close()
    assert not (user / ".Newer").exists()
    mailboxes = [user / ".Old", user / ".New", user]
    assert [len(mail_in(mailbox)) for mailbox in mailboxes] == [1, 2, 1 if refuse else 2]


def test_a_number_of_mailboxes_is_not_negative() -> None:
    with pytest.raises(ValueError, match="negative"):
        QuotaPolicy.parse("*:bytes=9M", mailbox_count=-1)
