"""Mail for many system users: who the processes are while it flows, and what goes wrong."""

import ctypes
import os
import select
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from lmtp_blocking import Client
from lmtp_proto import Recipient, Reply, parse_mailbox
from tests.privileges.conftest import FIRST_UID, NETWORK_UID, SECONDS, Site, Started
from tests.privileges.processes import of_the_network, user_ids, wait_until

Start = Callable[[str], Started]

CONTENT = b"Subject: x\r\n\r\nx\r\n"


def deliver(started: Started, *users: str, content: bytes = CONTENT) -> list[Reply]:
    """Deliver one message over a connection of its own; the replies."""
    recipients = [Recipient(address=parse_mailbox(f"{user}@example.org")) for user in users]
    with Client(started.said["address"], domain="client.test") as client:
        results = client.submit(parse_mailbox("from@example.net"), recipients, [content])
    return [result.reply for result in results]


def codes(started: Started, *users: str, content: bytes = CONTENT) -> list[int]:
    return [reply.code for reply in deliver(started, *users, content=content)]


def agents(started: Started, uid: int) -> list[int]:
    """The processes of a user."""
    found = []
    for pid in started.pids():
        try:
            if user_ids(pid) == {str(uid)}:
                found.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def is_waited_for(pid: int) -> bool:
    """Whether one of the channels of a process, stopped, has something to read."""
    # Nothing short of a descriptor of its own tells.
    process = os.pidfd_open(pid)
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            if os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                with socket.socket(fileno=_get(process, int(name))) as channel:
                    return bool(select.select([channel], [], [], 0)[0])
    finally:
        os.close(process)
    return False


def _get(process: int, number: int) -> int:
    """pidfd_getfd(2)."""
    descriptor: int = ctypes.CDLL(None, use_errno=True).syscall(438, process, number, 0)
    assert descriptor >= 0, os.strerror(ctypes.get_errno())
    return descriptor


def test_while_mail_flows_no_process_of_roots_has_a_descriptor_of_the_network(
    site: Site, start: Start
) -> None:
    for number in range(3, 20):
        site.add(f"u{number}", FIRST_UID + number)
    started = start("program")
    users = [f"u{number}" for number in range(20)]
    found: list[int] = []
    stop = threading.Event()

    def send(first: int) -> None:
        # One after the other, and all in one message.
        for number in range(20):
            found.extend(codes(started, users[(first + number) % 20]))
        found.extend(codes(started, *users))

    senders = [threading.Thread(target=send, args=(number * 5,)) for number in range(4)]
    for sender in senders:
        sender.start()
    seen: dict[str, set[int]] = {"root": set(), "network": set()}
    while not stop.is_set():
        for pid in started.pids():
            try:
                is_root = "0" in user_ids(pid)
                leads_out = any(of_the_network(pid))
            except (FileNotFoundError, ProcessLookupError):
                continue
            if leads_out:
                seen["network"].add(pid)
                assert user_ids(pid) == {str(NETWORK_UID)}
            if is_root:
                seen["root"].add(pid)
        if not any(sender.is_alive() for sender in senders):
            stop.set()
    assert found == [250] * (4 * 40)
    # An agent is root's for a moment, before it has become its user; the broker always is.
    assert started.said["broker"] in seen["root"]
    assert seen["network"] == {started.said["supervisor"], *started.said["workers"]}
    assert seen["root"] & seen["network"] == set()
    for number in range(20):
        uid = FIRST_UID + number
        mail = site.mail(f"u{number}")
        assert len(mail) == 8
        assert {(path.stat().st_uid, path.stat().st_gid) for path in mail} == {(uid, uid)}
        assert {path.stat().st_mode & 0o777 for path in mail} == {0o600}
    assert started.stop() == 0
    assert started.pids() == []


def test_each_recipient_gets_the_reply_of_its_own(site: Site, start: Start) -> None:
    users = site.settings["users"]
    users["root"] = {**users["u0"], "uid": 0}
    users["homeless"] = {**users["u0"], "mail": "/nonexistent/Maildir"}
    site.add("limited", FIRST_UID + 50, quota="*:storage=1K")
    started = start("program")
    replies = deliver(
        started, "u0", "nobody", "nosuch", "root", "homeless", "u1+sub", "limited", "u0"
    )
    assert [reply.code for reply in replies] == [250, 550, 451, 451, 451, 250, 250, 250]
    # One mailbox gets one copy.
    assert len(site.mail("u0")) == 1
    assert len(list((site.maildir("u1") / ".sub" / "new").iterdir())) == 1
    header = site.mail("u0")[0].read_text()
    assert header.startswith("Return-Path: <from@example.net>\nDelivered-To: u0@example.org\n")
    assert "Received: from client.test ([127.0.0.1])\n\tby mx.example.org with LMTP id" in header
    assert "for <" not in header
    assert codes(started, "slow-u2", "slow-nobody", "slow-limited") == [250, 550, 250]
    large = b"Subject: x\r\n\r\n" + b"x\r\n" * 500
    assert [str(reply)[:9] for reply in deliver(started, "limited", content=large)] == ["552 5.2.2"]
    assert "homeless" in started.log
    assert "UID 0 (root)" in started.log


def test_a_full_mailbox_is_told_at_rcpt(site: Site, start: Start) -> None:
    site.add("limited", FIRST_UID + 50, quota="*:storage=1K")
    started = start("program")
    host, _, port = started.said["address"].rpartition(":")
    with (
        socket.create_connection((host, int(port)), SECONDS) as client,
        client.makefile("rb") as lines,
    ):
        client.sendall(
            b"LHLO c.test\r\nMAIL FROM:<> SIZE=2000\r\nRCPT TO:<limited@example.org>\r\n"
            b"RCPT TO:<slow-limited@example.org>\r\nRCPT TO:<u0@example.org>\r\nQUIT\r\n"
        )
        said = [line for line in lines if line[3:4] == b" "]
    assert [line[:9] for line in said[3:6]] == [b"552 5.2.2", b"552 5.2.2", b"250 2.1.5"]


def test_large_messages_reach_every_user_whole(site: Site, start: Start) -> None:
    started = start("program")
    body = b"".join(b"line %d\r\n" % number for number in range(300_000))
    content = b"Return-Path: <forged@example.net>\r\nSubject: x\r\n\r\n" + body
    assert codes(started, "u0", "u1", "u2+sub", content=content) == [250, 250, 250]
    for path in (*site.mail("u0"), *site.mail("u1"), *site.maildir("u2").rglob("*S=*")):
        stored = path.read_bytes()
        assert stored.endswith(b"\nSubject: x\n\n" + body.replace(b"\r\n", b"\n"))
        assert stored.count(b"Return-Path:") == 1
    assert list((site.path / "spool").iterdir()) == []


def test_large_messages_for_one_user_at_a_time_are_all_stored(site: Site, start: Start) -> None:
    # Those that wait for their turn in the Maildir still have their content then.
    site.settings["workers"] = 1
    started = start("program")
    content = b"Subject: x\r\n\r\n" + b"0123456789abcdef" * 60 * 1024
    with ThreadPoolExecutor(8) as pool:
        said = [pool.submit(codes, started, "u0", content=content * 3) for _ in range(24)]
        assert [each.result() for each in said] == [[250]] * 24
    assert len(site.mail("u0")) == 24
    assert len({path.stat().st_size for path in site.mail("u0")}) == 1


def test_hundreds_of_recipients_of_one_user_get_one_copy(site: Site, start: Start) -> None:
    started = start("program")
    users = ["u0+" + "x" * 150] * 400
    assert codes(started, *users) == [250] * 400
    assert len(list(site.maildir("u0").rglob("*S=*"))) == 1


def test_an_agent_that_was_killed_is_followed_by_another(site: Site, start: Start) -> None:
    site.settings["workers"] = 1
    started = start("program")
    assert codes(started, "u0") == [250]
    [agent] = agents(started, FIRST_UID)
    os.kill(agent, signal.SIGKILL)
    wait_until(lambda: "was ended by SIGKILL" in started.log)
    assert codes(started, "u0") == [250]
    assert agents(started, FIRST_UID) != [agent]


def test_an_agent_that_hangs_fails_its_own_delivery_alone(site: Site, start: Start) -> None:
    site.settings |= {"workers": 1, "pool": {"timeout": 3.0}, "broker": {"grace": 0.0}}
    started = start("program")
    assert codes(started, "u0", "u1") == [250, 250]
    [agent] = agents(started, FIRST_UID)
    os.kill(agent, signal.SIGSTOP)
    assert codes(started, "u0", "u1") == [451, 250]
    wait_until(lambda: "does not end: it is killed" in started.log)
    assert codes(started, "u0") == [250]
    assert len(site.mail("u1")) == 2


def test_an_agent_that_takes_too_long_ends_itself(site: Site, start: Start) -> None:
    site.settings |= {"workers": 1, "agent": {"time": 1.0}}
    started = start("program")
    assert codes(started, "u0") == [250]
    lock = site.maildir("u0") / "dovecot-uidlist.lock"
    lock.touch()
    assert codes(started, "u0+keyword", "u1") == [451, 250]
    wait_until(lambda: "was ended by SIGALRM" in started.log)
    lock.unlink()
    assert codes(started, "u0+keyword") == [250]


def test_more_users_than_agents(site: Site, start: Start) -> None:
    site.settings |= {"workers": 1, "pool": {"limit": 2}}
    site.settings["broker"] = {"most_agents": 2}
    for number in range(3, 8):
        site.add(f"u{number}", FIRST_UID + number)
    started = start("program")
    assert codes(started, *[f"u{number}" for number in range(8)]) == [250] * 8
    assert codes(started, *[f"u{number}" for number in range(8)]) == [250] * 8


def test_agents_with_nothing_to_do_end(site: Site, start: Start) -> None:
    site.settings |= {"workers": 1, "pool": {"idle": 0.1}}
    started = start("program")
    assert codes(started, "u0") == [250]
    wait_until(lambda: agents(started, FIRST_UID) == [])
    assert codes(started, "u0") == [250]


def test_a_maildir_that_was_taken_away_is_made_again(site: Site, start: Start) -> None:
    site.settings["workers"] = 1
    started = start("program")
    assert codes(started, "u0") == [250]
    site.maildir("u0").rename(site.path / "u0" / "gone")
    assert codes(started, "u0") == [250]
    assert len(site.mail("u0")) == 1


def test_a_user_who_is_in_the_way_of_its_own_mail_harms_nobody(site: Site, start: Start) -> None:
    target = site.path / "target"
    target.mkdir(mode=0o700)
    site.maildir("u0").symlink_to(target)
    site.maildir("u1").write_text("a file")
    started = start("program")
    assert codes(started, "u0", "u1", "u2") == [451, 451, 250]
    assert list(target.iterdir()) == []


def test_without_a_broker_there_are_no_more_agents(site: Site, start: Start) -> None:
    site.settings["workers"] = 1
    started = start("program")
    assert codes(started, "u0") == [250]
    os.kill(started.said["broker"], signal.SIGKILL)
    wait_until(lambda: "the broker has ended" in started.log)
    assert codes(started, "u0", "u1") == [250, 451]
    assert site.mail("u1") == []


def test_what_was_begun_when_the_worker_is_killed_is_finished(site: Site, start: Start) -> None:
    site.settings["workers"] = 1
    started = start("program")
    assert codes(started, "u0") == [250]
    [agent] = agents(started, FIRST_UID)
    os.kill(agent, signal.SIGSTOP)
    host, _, port = started.said["address"].rpartition(":")
    with socket.create_connection((host, int(port))) as client:
        lines = client.makefile("rb")
        client.sendall(b"LHLO c.test\r\nMAIL FROM:<>\r\nRCPT TO:<u0@example.org>\r\nDATA\r\n")
        while not lines.readline().startswith(b"354"):
            pass
        client.sendall(CONTENT + b".\r\n")
        # What the worker has sent waits in the agent's channel.
        wait_until(lambda: is_waited_for(agent))
        os.kill(started.said["workers"][0], signal.SIGKILL)
        lines.close()
    os.kill(agent, signal.SIGCONT)
    wait_until(lambda: len(site.mail("u0")) == 2)
    wait_until(lambda: agents(started, FIRST_UID) == [])
