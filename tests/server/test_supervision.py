"""Signals and the death of processes: the service drains when told and goes on when not."""

import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from tests.server._peer import Peer, connect, deliver
from tests.server._program import SECONDS, Program, without_log

Start = Callable[..., Program]


def _refused(address: str) -> bool:
    try:
        connect(address).close()
    except OSError:
        return True
    return False


def test_stop_drains_and_exits_0(start: Start, folder: Path, runtime: str) -> None:
    program = start(
        *("--listen", "127.0.0.1:0", "--listen", "unix:s"),
        *("--runtime", runtime, "--workers", "2"),
    )
    address, _ = program.addresses(2)
    with Peer(address) as idle, Peer(f"unix:{folder}/s") as writing:
        idle.greet()
        writing.greet()
        writing.begin("a@example.test")
        writing.write(b"Subject: half of a mess")
        program.send_signal(signal.SIGTERM)

        assert idle.read_to_end().startswith(b"421 4.3.2 ")
        assert writing.read_to_end().startswith(b"421 4.3.2 ")
        assert program.wait() == 0
    assert _refused(address)
    assert not (folder / "s").exists()
    assert not list((folder / "mail").rglob("new/*"))
    assert "Traceback" not in program.stderr
    assert "is killed" not in program.stderr


def test_what_was_acknowledged_before_the_stop_is_there(start: Start, folder: Path) -> None:
    program = start("--listen", "127.0.0.1:0", "--workers", "1")
    (address,) = program.addresses()
    with Peer(address) as peer:
        peer.greet()
        peer.begin("a@example.test")
        peer.write(b"Subject: x\r\n\r\nx\r\n.\r\n")
        assert peer.reply().startswith("250 2.0.0 ")
        program.send_signal(signal.SIGTERM)
        assert peer.reply().startswith("421 4.3.2 ")
    assert program.wait() == 0
    assert len(list((folder / "mail/example.test/a/new").iterdir())) == 1


class _Sender(threading.Thread):
    """Delivers one message after the other until the server does not take any more."""

    def __init__(self, address: str, sent: threading.Semaphore) -> None:
        super().__init__()
        self._address = address
        self._sent = sent
        self.acknowledged = 0

    def run(self) -> None:
        try:
            self._deliver()
        except ConnectionError:
            # The server went between two messages.
            pass

    def _deliver(self) -> None:
        with Peer(self._address) as peer:
            peer.greet()
            while True:
                # One write: what is begun when the stop comes is the server's to decide.
                peer.write(
                    b"MAIL FROM:<>\r\nRCPT TO:<a@example.test>\r\nRCPT TO:<b@example.test>\r\n"
                    b"DATA\r\nSubject: x\r\n\r\nx\r\n.\r\n"
                )
                for _ in range(6):
                    reply = peer.reply()
                    if not reply or reply.startswith("421 "):
                        return
                    if reply.startswith("250 2.0.0 "):
                        self.acknowledged += 1
                        self._sent.release()


def test_every_delivery_of_a_stopping_server_is_answered(
    start: Start, folder: Path, runtime: str
) -> None:
    program = start("--listen", "127.0.0.1:0", "--workers", "2", "--runtime", runtime)
    (address,) = program.addresses()
    sent = threading.Semaphore(0)
    senders = [_Sender(address, sent) for _ in range(6)]
    for sender in senders:
        sender.start()
    for _ in range(50):
        assert sent.acquire(timeout=SECONDS)
    assert program.stop() == 0
    for sender in senders:
        sender.join(SECONDS)
    stored = len(list((folder / "mail").rglob("new/*")))
    assert stored == sum(sender.acknowledged for sender in senders)
    assert not list((folder / "mail").rglob("tmp/*"))


def test_a_terminals_interrupt_stops_it_like_sigterm(start: Start, runtime: str) -> None:
    program = start("--listen", "127.0.0.1:0", "--workers", "2", "--runtime", runtime)
    (address,) = program.addresses()
    with Peer(address) as peer:
        peer.greet()
        program.send_signal_to_all(signal.SIGINT)
        assert peer.read_to_end().startswith(b"421 4.3.2 ")
    assert program.wait() == 0
    assert "Traceback" not in program.stderr


def test_a_killed_worker_is_replaced(start: Start, folder: Path, runtime: str) -> None:
    program = start("--listen", "127.0.0.1:0", "--workers", "2", "--runtime", runtime)
    (address,) = program.addresses()
    before = program.workers()
    for killed, pid in enumerate(sorted(before), 1):
        os.kill(pid, signal.SIGKILL)
        program.wait_for(rf"worker {pid} was ended by SIGKILL")
        program.wait_for("another worker is started at once", killed)
        assert deliver(address, "a@example.test")[0].startswith("250 ")
    after = program.workers()
    assert len(after) == 2
    assert not after & before
    assert len(list((folder / "mail/example.test/a/new").iterdir())) == 2
    assert program.stop() == 0
    assert len(without_log(program.stderr)) == 1


def test_a_worker_told_to_end_drains_and_is_replaced(start: Start, runtime: str) -> None:
    program = start("--listen", "127.0.0.1:0", "--workers", "1", "--runtime", runtime)
    (address,) = program.addresses()
    (pid,) = program.workers()
    with Peer(address) as peer:
        peer.greet()
        os.kill(pid, signal.SIGTERM)
        assert peer.read_to_end().startswith(b"421 4.3.2 ")
    program.wait_for(rf"worker {pid} ended with exit code 0")
    assert deliver(address, "a@example.test")[0].startswith("250 ")
    assert program.stop() == 0


def test_workers_that_fail_at_once_are_restarted_ever_more_slowly(
    start: Start, folder: Path
) -> None:
    program = start("--listen", "127.0.0.1:0", "--workers", "1")
    (address,) = program.addresses()
    (folder / "mail").rename(folder / "away")
    (pid,) = program.workers()
    os.kill(pid, signal.SIGKILL)
    delays = program.wait_for(r"another worker is started (.*)", 3)
    assert delays[:3] == ["at once", "in 0.5 s", "in 1 s"]

    (folder / "away").rename(folder / "mail")
    assert deliver(address, "a@example.test")[0].startswith("250 ")
    assert program.stop() == 0


def test_workers_drain_when_the_supervisor_has_died(start: Start, runtime: str) -> None:
    program = start("--listen", "127.0.0.1:0", "--workers", "2", "--runtime", runtime)
    (address,) = program.addresses()
    with Peer(address) as first, Peer(address) as second:
        first.greet()
        second.greet()
        program.send_signal(signal.SIGKILL)
        assert first.read_to_end().startswith(b"421 4.3.2 ")
        assert second.read_to_end().startswith(b"421 4.3.2 ")
    program.wait_for_end()
    assert _refused(address)
    assert "Traceback" not in program.stderr


def test_workers_that_cannot_start_end_the_start(
    start: Start, folder: Path, fake_uvloop: Callable[[str], None]
) -> None:
    fake_uvloop("raise ImportError('broken in two')")
    program = start("--listen", "unix:s", "--workers", "2", "--runtime", "uvloop")
    assert program.wait() == os.EX_SOFTWARE
    program.wait_for("broken in two")
    assert not without_log(program.stderr)
    assert not (folder / "s").exists()


def test_a_worker_that_does_not_stop_is_killed(
    start: Start, folder: Path, fake_uvloop: Callable[[str], None]
) -> None:
    fake_uvloop("import signal, sys\nsys.stderr.write('busy\\n')\nwhile True: signal.pause()")
    program = start(
        *("--listen", "unix:s", "--workers", "1", "--runtime", "uvloop", "--drain", "0")
    )
    program.wait_for("busy")
    (pid,) = program.workers()
    assert program.stop() == 0
    program.wait_for(rf"worker {pid} does not stop: it is killed")
    assert without_log(program.stderr) == ["busy"]
    assert not (folder / "s").exists()


def test_connections_that_wait_for_a_worker_are_served(start: Start) -> None:
    program = start("--listen", "127.0.0.1:0", "--workers", "1")
    (address,) = program.addresses()
    (pid,) = program.workers()
    os.kill(pid, signal.SIGSTOP)
    with Peer(address) as peer:
        os.kill(pid, signal.SIGKILL)
        peer.greet()
    assert program.stop() == 0


def test_a_restarted_worker_is_no_second_ready_line(start: Start) -> None:
    program = start("--listen", "127.0.0.1:0", "--workers", "1")
    (address,) = program.addresses()
    (pid,) = program.workers()
    os.kill(pid, signal.SIGKILL)
    assert deliver(address, "a@example.test")[0].startswith("250 ")
    assert program.stop() == 0
    assert without_log(program.stderr) == [f"listening on {address}"]


def test_sockets_of_others_are_left_alone(start: Start, folder: Path) -> None:
    program = start("--listen", "unix:s", "--workers", "1")
    program.addresses()
    (folder / "s").unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(folder / "s"))
        assert program.stop() == 0
        assert (folder / "s").is_socket()
