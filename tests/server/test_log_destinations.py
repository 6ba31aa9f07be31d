"""Where log lines go: files, syslog, the journal; and what happens when they cannot."""

import json
import logging
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lmtp_server._logs import Log, LogOptions
from tests.server._peer import deliver
from tests.server._program import SECONDS, Program, run

Start = Callable[..., Program]

_logger = logging.getLogger("lmtp_server")


OpenLog = Callable[..., Log]


@pytest.fixture
def open_log() -> Iterator[OpenLog]:
    """Open logs for this process; afterwards the root logger is what it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    opened: list[Log] = []

    def open_log(**options: Any) -> Log:
        log = Log(LogOptions(**options))
        opened.append(log)
        log.install()
        return log

    yield open_log
    root.handlers = handlers
    root.setLevel(level)
    for log in opened:
        log.close()


@pytest.fixture
def listener(folder: Path) -> Iterator[socket.socket]:
    """A socket as that of a syslog daemon."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(folder / "dev-log"))
        sock.settimeout(SECONDS)
        yield sock


def test_levels_have_files_of_their_own(
    start: Start, folder: Path, config: Callable[..., str]
) -> None:
    program = start(
        "--config",
        config(
            *('listen = ["unix:./s"]', "workers = 1", "[log]", 'path = "err"', "debug = true"),
            *('info_path = "info"', 'debug_path = "debug"', 'timestamp = "%H"'),
        ),
    )
    program.addresses()
    deliver(f"unix:{folder}/s", "a@example.test")
    assert program.stop() == 0
    assert program.stderr == "listening on unix:./s\n"
    info, debug = (folder / "info").read_text(), (folder / "debug").read_text()
    assert re.search(
        r"^\d\d INFO \d+ lmtp\(a@example.test\).*saved mail to INBOX$", info, re.MULTILINE
    )
    assert re.search(
        r"^\d\d DEBUG \d+ \S+ unix: RCPT answered '250 .*' in [0-9.]+ s$", debug, re.MULTILINE
    )
    assert "saved" not in (folder / "err").read_text() + debug
    assert (folder / "err").stat().st_mode & 0o777 == 0o600


def test_rotation(start: Start, folder: Path, config: Callable[..., str]) -> None:
    settings = config('listen = ["unix:./s"]', "workers = 1", "[log]", 'path = "log"')
    program = start("--config", settings)
    program.addresses()
    deliver(f"unix:{folder}/s", "a@example.test")
    (folder / "log").rename(folder / "log.1")
    program.send_signal(signal.SIGUSR1)
    tries = 0
    while "b@example.test" not in (folder / "log").read_text() if (folder / "log").exists() else 1:
        # The worker hears of it a little later.
        deliver(f"unix:{folder}/s", "b@example.test")
        tries += 1
        assert tries < 1000
    assert program.stop() == 0
    assert "a@example.test" in (folder / "log.1").read_text()
    assert "a@example.test" not in (folder / "log").read_text()


def test_json(folder: Path, open_log: OpenLog) -> None:
    log = open_log(path=str(folder / "log"), format="json")
    try:
        raise ValueError("two\nlines \u202e")
    except ValueError:
        _logger.exception("failed: %s", "a\x1bb")
    log.close()
    _, line = map(json.loads, (folder / "log").read_text().splitlines())
    assert line["level"] == "error"
    assert line["message"].startswith("failed: a?b | Traceback ")
    assert line["message"].endswith("ValueError: two | lines ?")


def test_what_cannot_be_logged_to_is_a_fault_at_the_start(
    folder: Path, config: Callable[..., str]
) -> None:
    settings = config(
        *('listen = ["unix:./s"]', "[log]", 'path = "missing/log"', 'info_path = "syslog"'),
        *('syslog_socket = "x"', "debug = true", 'debug_path = "/dev/full"'),
    )
    ended = run("serve", "--config", settings, cwd=folder)
    assert ended.returncode == os.EX_CONFIG
    assert ended.stderr.decode().splitlines() == [
        "lmtp-server: log: nobody listens at x: No such file or directory; lines are lost for now",
        "lmtp-server: log.path: cannot log to 'missing/log': No such file or directory",
        "lmtp-server: log.debug_path: cannot log to '/dev/full': No space left on device",
    ]
    assert not (folder / "s").exists()


def test_a_journal_that_is_not_there_yet(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "journal"
    log = Log(LogOptions(path="journal", journal_socket=str(path)))
    assert capsys.readouterr().err == (
        f"lmtp-server: log: nobody listens at {path}: No such file or directory;"
        " lines are lost for now\n"
    )
    log.close()


def test_a_log_that_cannot_be_opened_keeps_the_old_settings(
    start: Start, folder: Path, config: Callable[..., str]
) -> None:
    program = start("--config", config('listen = ["unix:./s"]', "workers = 1"))
    program.addresses()
    config('listen = ["unix:./s"]', "workers = 1", "[log]", 'path = "/dev/full"')
    program.send_signal(signal.SIGHUP)
    program.wait_for("not reloaded")
    assert deliver(f"unix:{folder}/s", "a@example.test")[0].startswith("250 ")
    config('listen = ["unix:./s"]', "workers = 1", "[log]", 'path = "log"')
    program.send_signal(signal.SIGHUP)
    program.wait_for("listening")
    while "reloaded" not in ((folder / "log").read_text() if (folder / "log").exists() else ""):
        assert deliver(f"unix:{folder}/s", "a@example.test")[0].startswith("250 ")
    assert program.stop() == 0


def test_what_a_full_disk_loses_is_counted(folder: Path, open_log: OpenLog) -> None:
    path = folder / "log"
    log = open_log(path=str(path))
    # A full disk in the place of the file, and back.
    path.rename(folder / "kept")
    path.symlink_to("/dev/full")
    log.reopen()
    for number in range(3):
        _logger.warning("lost %d", number)
    path.unlink()
    (folder / "kept").rename(path)
    log.reopen()
    _logger.warning("written")
    _logger.warning("and this")
    log.close()
    assert [line.split(" ", 4)[4] for line in path.read_text().splitlines()[1:]] == [
        "3 lines could not be written here: No space left on device",
        "written",
        "and this",
    ]


def test_syslog_as_logger_writes_it(
    folder: Path, listener: socket.socket, open_log: OpenLog
) -> None:
    path = str(folder / "dev-log")
    open_log(path="syslog", syslog_socket=path, syslog_facility="local3")
    _logger.warning("a line\nof two")
    ours = listener.recv(4096).decode()
    subprocess.run(
        [
            *("logger", "-u", path, "--rfc3164", "-p", "local3.warning", "-t", "lmtp-server"),
            *(f"--id={os.getpid()}", "a line | of two"),
        ],
        check=True,
        timeout=SECONDS,
    )
    theirs = listener.recv(4096).decode()
    form = rf"<156>[A-Z][a-z]{{2}} [ \d]\d \d\d:\d\d:\d\d (?:\S+ )?lmtp-server\[{os.getpid()}\]: "
    assert re.fullmatch(form + r"a line \| of two", ours)
    assert re.fullmatch(form + r"a line \| of two", theirs)


def test_a_dead_syslog_is_found_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, open_log: OpenLog
) -> None:
    monkeypatch.setattr("lmtp_server._logs._socket._PAUSE", 0.0)
    path = str(folder / "dev-log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as first:
        first.bind(path)
        open_log(path="syslog", syslog_socket=path, repeats=0)
        _logger.warning("heard")
        assert first.recv(4096).endswith(b"heard")
    _logger.warning("lost 1")
    os.unlink(path)
    _logger.warning("lost 2")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as second:
        second.bind(path)
        second.settimeout(SECONDS)
        _logger.warning("heard again")
        assert b"2 lines could not be written here: " in second.recv(4096)
        assert second.recv(4096).endswith(b"heard again")
        # Nobody reads any more: who logs does not wait, and the rest is counted.
        for number in range(10_000):
            _logger.warning("line %d", number)
        count = 0
        second.setblocking(False)
        with suppress(BlockingIOError):
            while second.recv(4096):
                count += 1
        assert 0 < count < 10_000
        _logger.warning("last")
        assert f"{10_000 - count} lines could not be written".encode() in second.recv(4096)


def test_a_syslog_of_streams(folder: Path, open_log: OpenLog) -> None:
    path = str(folder / "dev-log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(path)
        listening.listen()
        open_log(path="syslog", syslog_socket=path)
        _logger.info("one")
        _logger.error("two")
        with listening.accept()[0] as accepted, accepted.makefile() as lines:
            assert re.fullmatch(r"<22>.*: one\n", lines.readline())
            assert re.fullmatch(r"<19>.*: two\n", lines.readline())


def test_the_journal_has_fields(
    start: Start, folder: Path, config: Callable[..., str], listener: socket.socket
) -> None:
    settings = config(
        *('listen = ["unix:./s"]', "workers = 1", "[log]", 'path = "journal"'),
        'journal_socket = "dev-log"',
    )
    program = start("--config", settings)
    program.addresses()
    deliver(f"unix:{folder}/s", "a@example.test", content=b"Message-ID: <1@x>\r\n\r\n")
    while b"saved mail" not in (datagram := listener.recv(65536)):
        pass
    fields = dict(line.split("=", 1) for line in datagram.decode().splitlines())
    assert fields["PRIORITY"] == "6"
    assert fields["SYSLOG_IDENTIFIER"] == "lmtp-server"
    assert fields["LMTP_USER"] == "a@example.test"
    assert fields["LMTP_MSGID"] == "<1@x>"
    assert fields["LMTP_REPLY"].startswith("250 2.0.0 <a@example.test> ")
    assert fields["LMTP_SESSION"] in fields["MESSAGE"]
    assert program.stop() == 0


def test_repeated_lines_are_suppressed_and_counted(folder: Path, open_log: OpenLog) -> None:
    path = folder / "log"
    log = open_log(path=str(path), repeats=2)
    wire = logging.getLogger("lmtp_asyncio")
    for number in range(7):
        wire.warning("%s", f"id{number} 192.0.2.{number}:1: the TLS handshake failed: {number}")
        _logger.warning("other %d", number)
        logging.getLogger("lmtp_server.deliveries").info("%s", f"delivery {number}")
    log.tell()
    log.close()
    text = path.read_text()
    assert text.count("handshake failed: ") == text.count(" other ") == 2
    assert text.count(" delivery ") == 7
    assert "5 more suppressed of: 'the TLS handshake failed'" in text
    assert "5 more suppressed of: 'other %d'" in text
