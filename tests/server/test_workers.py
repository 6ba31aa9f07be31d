"""Workers that are renewed, silent, too large or too many, and what the service manager is told."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.server._peer import Peer, deliver
from tests.server._program import COMMAND, SECONDS, Program, warnings

Start = Callable[..., Program]
Config = Callable[..., str]


def _settings(*worker: str, workers: int = 1) -> list[str]:
    return ['listen = ["127.0.0.1:0"]', f"workers = {workers}", "[worker]", *worker]


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("max_connections = 3", "has served 3 connections"),
        ("max_transactions = 3", "has had 3 transactions"),
    ],
)
def test_a_worker_that_has_done_enough_is_replaced(
    start: Start, config: Config, rule: str, why: str
) -> None:
    program = start("--config", config(*_settings(rule, "jitter = 0")))
    (address,) = program.addresses()
    (pid,) = program.workers()
    with Peer(address) as staying:
        staying.greet()
        for _ in range(2):
            assert deliver(address, "a@example.test")[0].startswith("250 ")
        # One that was there before may have its message.
        staying.begin("a@example.test")
        program.wait_for(rf"worker {pid} {why}: it is replaced")
        staying.write(b"Subject: x\r\n\r\nx\r\n.\r\n")
        assert staying.reply().startswith("250 ")
        assert staying.read_to_end().startswith(b"421 4.3.2 ")
    assert deliver(address, "a@example.test")[0].startswith("250 ")
    assert program.stop() == 0
    assert not warnings(program.stderr)


def test_a_worker_that_takes_too_much_memory_is_replaced_or_killed(
    start: Start, config: Config
) -> None:
    program = start("--config", config(*_settings('memory_limit = "1M"')))
    (address,) = program.addresses()
    program.wait_for(r"worker \d+ takes \d+ MiB of memory: it is replaced")
    assert deliver(address, "a@example.test")[0].startswith("250 ")
    config(*_settings('memory_hard_limit = "1M"'))
    program.send_signal(signal.SIGHUP)
    program.wait_for(r"worker \d+ takes \d+ MiB of memory: it is killed")
    program.wait_for(r"worker \d+ was ended by SIGKILL")
    assert program.stop() == 0


def test_a_stopped_worker_is_killed_and_replaced(start: Start, config: Config) -> None:
    program = start("--config", config(*_settings("heartbeat = 2")))
    (address,) = program.addresses()
    (pid,) = program.workers()
    os.kill(pid, signal.SIGSTOP)
    with Peer(address) as waiting:
        waiting.greet()
    program.wait_for(rf"worker {pid} has given no sign of life for 2 s: it is killed")
    program.wait_for(rf"worker {pid} was ended by SIG(ABRT|KILL)")
    assert program.stop() == 0


def test_a_worker_that_hangs_says_where(
    start: Start, config: Config, fake_uvloop: Callable[[str], None]
) -> None:
    fake_uvloop(
        "import asyncio, time\n"
        "def hang_here():\n"
        "    time.sleep(1000)\n"
        "def new_event_loop():\n"
        "    loop = asyncio.new_event_loop()\n"
        "    loop.call_later(0.5, hang_here)\n"
        "    return loop\n"
    )
    program = start("--config", config(*_settings("heartbeat = 2")), "--runtime", "uvloop")
    program.addresses()
    program.wait_for("no sign of life")
    program.wait_for(r'File ".*uvloop.py", line 3 in hang_here')
    program.wait_for("was ended by SIGABRT")
    assert program.stop() == 0


def test_the_supervisor_takes_its_own_time_for_its_own(start: Start, config: Config) -> None:
    program = start("--config", config(*_settings("heartbeat = 3", workers=2)))
    (address,) = program.addresses()
    workers = program.workers()
    program.send_signal_to_all(signal.SIGSTOP)
    with Peer(address) as peer:
        peer.socket.settimeout(4)
        with pytest.raises(TimeoutError):
            peer.reply()
    program.send_signal_to_all(signal.SIGCONT)
    assert deliver(address, "a@example.test")[0].startswith("250 ")
    assert program.workers() == workers
    assert program.stop() == 0


def test_more_and_fewer_workers_by_signals(start: Start) -> None:
    program = start("--listen", "127.0.0.1:0", "--workers", "1")
    (address,) = program.addresses()
    first = program.workers()
    program.send_signal(signal.SIGTTIN)
    program.wait_for("2 workers now")
    while len(program.workers()) < 2:
        pass
    program.send_signal(signal.SIGTTOU)
    program.wait_for("1 worker now")
    while program.workers() != first:
        pass
    # The last one stays.
    program.send_signal(signal.SIGTTOU)
    assert deliver(address, "a@example.test")[0].startswith("250 ")
    # All processes of that name are sent it, by logrotate and the like.
    program.send_signal_to_all(signal.SIGUSR1)
    assert deliver(address, "a@example.test")[0].startswith("250 ")
    assert program.stop() == 0
    assert not warnings(program.stderr)


def test_deliveries_to_one_user_are_limited_over_all_workers(start: Start, config: Config) -> None:
    program = start(
        "--config",
        config('listen = ["127.0.0.1:0"]', "workers = 2", "[limits]", "user_concurrency_limit = 2"),
    )
    (address,) = program.addresses()
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(address)) for _ in range(6)]
        for peer in peers:
            peer.greet()
            assert peer.say("MAIL FROM:<sender@example.test>").startswith("250 ")
        replies = [peer.say("RCPT TO:<a@example.test>") for peer in peers]
        assert sorted(reply[:3] for reply in replies) == ["250"] * 2 + ["451"] * 4
        assert "Too many concurrent deliveries for user" in max(replies)
        assert peers[0].say("RCPT TO:<b@example.test>").startswith("250 ")
    assert program.stop() == 0


def test_all_workers_together_have_a_limit(start: Start, config: Config) -> None:
    program = start(
        "--config",
        config('listen = ["unix:s"]', "workers = 3", "[limits]", "total_client_limit = 4"),
    )
    program.addresses()
    folder = os.readlink(f"/proc/{program.pid}/cwd")
    peers = [Peer(f"unix:{folder}/s") for _ in range(4)]
    try:
        for peer in peers:
            peer.greet()
        with Peer(f"unix:{folder}/s") as fifth:
            assert fifth.read_to_end() == b"421 4.3.2 too many connections\r\n"
        assert peers[0].say("QUIT").startswith("221 ")
        assert peers[0].read_to_end() == b""
        peers[0].close()
        while True:
            with Peer(f"unix:{folder}/s") as another:
                if another.reply().startswith("220 "):
                    break
    finally:
        for peer in peers:
            peer.close()
    assert program.stop() == 0


def test_processes_have_names(
    start: Start, folder: Path, fake_module: Callable[[str, str], None]
) -> None:
    plain = start("--listen", "unix:s", "--workers", "1")
    plain.addresses()
    (pid,) = plain.workers()
    assert Path(f"/proc/{pid}/comm").read_text() == "lmtp-worker\n"
    assert plain.stop() == 0
    fake_module(
        "setproctitle",
        "import os\n"
        "def setproctitle(title):\n"
        "    with open('titles', 'a') as file:\n"
        "        file.write(title + '\\n')\n",
    )
    program = start("--listen", "unix:s", "--workers", "1")
    program.addresses()
    with Peer(f"unix:{folder}/s") as peer:
        peer.greet()
        while "lmtp-worker: 1 connection\n" not in (titles := (folder / "titles").read_text()):
            assert peer.say("NOOP").startswith("250 ")
    assert "lmtp-server: supervisor, 1 workers\n" in titles
    assert program.stop() == 0


def test_the_service_manager_is_told(
    start: Start, folder: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.settimeout(SECONDS)
        monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "2000000")

        def hear(start: str) -> None:
            while not manager.recv(4096).startswith(start.encode()):
                pass

        program = start("--config", config(*_settings("heartbeat = 86400")))
        hear("STATUS=1 workers")
        hear("READY=1")
        hear("WATCHDOG=1")
        program.send_signal(signal.SIGHUP)
        hear("RELOADING=1\nMONOTONIC_USEC=")
        hear("READY=1")
        program.send_signal(signal.SIGTERM)
        hear("STOPPING=1")
        assert program.wait() == 0


def test_the_watchdog_is_fed_only_while_workers_live(
    start: Start, folder: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        # An abstract name is written with "@".
        name = f"lmtp-{os.getpid()}-{folder.name}"
        manager.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        monkeypatch.setenv("WATCHDOG_USEC", "3000000")
        # No end of a heartbeat within the test: the supervisor itself does nothing.
        program = start("--config", config(*_settings("heartbeat = 600")))
        program.addresses()
        (pid,) = program.workers()
        os.kill(pid, signal.SIGSTOP)
        manager.settimeout(6)
        with pytest.raises(TimeoutError):
            _drain(manager)
        os.kill(pid, signal.SIGCONT)
        manager.settimeout(SECONDS)
        assert manager.recv(4096) == b"WATCHDOG=1"
        assert program.stop() == 0


def _drain(sock: socket.socket) -> None:
    """Read for ever."""
    while True:
        sock.recv(4096)


@pytest.mark.interop
@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="needs systemd")
def test_sockets_are_taken_from_the_service_manager(folder: Path, config: Config) -> None:
    settings = config('listen = ["systemd"]', "workers = 1")
    command = [
        *("systemd-socket-activate", "-l", str(folder / "s")),
        *("-E", "PYTHONPATH", *COMMAND, "serve", "--config", settings),
    ]
    with subprocess.Popen(
        command, cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as manager:
        assert manager.stderr is not None
        try:
            assert "Listening on" in manager.stderr.readline()
            assert deliver(f"unix:{folder}/s", "a@example.test")[0].startswith("250 ")
            manager.send_signal(signal.SIGTERM)
            text = manager.stderr.read()
            assert manager.wait(SECONDS) == 0, text
        finally:
            if manager.poll() is None:
                os.killpg(manager.pid, signal.SIGKILL)
    assert f"listening on unix:{folder}/s\n" in text
    # It is the service manager's.
    assert (folder / "s").is_socket()
