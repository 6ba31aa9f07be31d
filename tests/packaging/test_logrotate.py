"""What logrotate makes of its snippet: of the text alone, and of a server's log."""

import gzip
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.packaging._project import ROOT
from tests.server._program import SECONDS, Program, run

pytestmark = pytest.mark.interop

_SNIPPET = ROOT / "packaging" / "lmtp-server.logrotate"


def _logrotate(*arguments: str | Path) -> str:
    program = shutil.which("logrotate", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("logrotate is not installed")
    result = subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=20, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "error" not in result.stderr
    return result.stderr


def _write_snippet(folder: Path, text: str) -> Path:
    """It takes none that others may write to."""
    snippet = folder / "lmtp-server"
    snippet.write_text(text)
    snippet.chmod(0o644)
    return snippet


def test_the_snippet_is_right(tmp_path: Path) -> None:
    snippet = _write_snippet(tmp_path, _SNIPPET.read_text())
    said = _logrotate("--debug", "--state", tmp_path / "state", snippet)
    assert "rotating pattern: /var/log/lmtp-server/*.log  weekly (8 rotations)" in said


def test_a_log_is_rotated(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir(mode=0o755)
    log = logs / "lmtp-server.log"
    settings = tmp_path / "settings.toml"
    settings.write_text(
        f'listen = ["unix:{tmp_path}/lmtp"]\nmail = "{tmp_path}/mail/{{user}}"\nworkers = 1\n'
        f'[log]\npath = "{log}"\n'
    )
    message = tmp_path / "message"
    message.write_text("Subject: hello\n\nworld\n")
    program = Program("--config", str(settings), cwd=tmp_path)
    try:
        # There is no systemd that would know the service: the signal is sent to the server itself.
        text = _SNIPPET.read_text().replace("/var/log/lmtp-server", str(logs))
        text, count = re.subn(r"systemctl kill .*\|\| true", f"kill -USR1 {program.pid}", text)
        assert count == 1
        snippet = _write_snippet(tmp_path, text)
        program.addresses()
        for number in range(3):
            _send(tmp_path, f"user{number}")
            _logrotate("--force", "--state", tmp_path / "state", snippet)
            _wait_until_opened(program, log)
        _send(tmp_path, "user3")
        assert program.stop() == 0
    finally:
        program.kill()
    # One more is kept as it is, for a server that writes to it a moment longer.
    logged = [log.read_text(), (logs / "lmtp-server.log.1").read_text()]
    packed = [logs / f"lmtp-server.log.{number}.gz" for number in (2, 3)]
    logged += [gzip.decompress(path.read_bytes()).decode() for path in packed]
    lines = [re.findall(r"lmtp\((user\d)@.*saved mail to INBOX", text) for text in logged]
    assert lines == [["user3"], ["user2"], ["user1"], ["user0"]]


def _send(folder: Path, user: str) -> None:
    command = ["send", "--to", f"unix:{folder}/lmtp", "--from", "a@example.org"]
    sent = run(*command, "--rcpt", f"{user}@example.org", str(folder / "message"), cwd=folder)
    assert sent.returncode == 0, sent.stderr


def _wait_until_opened(program: Program, log: Path) -> None:
    """Wait until all processes have the file open that lies there now."""
    deadline = time.monotonic() + SECONDS
    for process in {program.pid, *program.workers()}:
        while not any(_target(link) == log for link in Path(f"/proc/{process}/fd").iterdir()):
            assert time.monotonic() < deadline, f"{process} does not open {log}"
            time.sleep(0.01)


def _target(descriptor: Path) -> Path | None:
    try:
        return descriptor.readlink()
    except FileNotFoundError:
        # Closed meanwhile.
        return None
