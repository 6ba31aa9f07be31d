"""Rawlogs: files of what is read and written on a connection."""

import re
from collections.abc import Callable, Generator
from ipaddress import ip_network
from pathlib import Path

import pytest

from lmtp_proto import Effect, Receive, Send, Session
from lmtp_server._logs import RawlogOptions, Rawlogs
from tests.server._peer import Peer
from tests.server._program import Program

Start = Callable[..., Program]

Turn = bytes | tuple[bytes]
"""What the client says; in a tuple what the server says."""


def _hold(options: RawlogOptions, *turns: Turn, client_ip: str | None = None) -> None:
    """Hold a conversation around which there may be rawlogs."""

    def converse() -> Generator[Effect, None, None]:
        for turn in turns:
            if isinstance(turn, tuple):
                send = Send()
                send.data = turn[0]
                yield send
            else:
                yield Receive()

    rawlogs = Rawlogs(options)
    said = [turn for turn in turns if isinstance(turn, bytes)]
    for effect in rawlogs.around(Session(peer="x", client_ip=client_ip), converse()):
        if isinstance(effect, Receive):
            effect.outcome = said.pop(0)
    rawlogs.close()


def _text(folder: Path, suffix: str) -> str:
    """The octets of the one file, without times."""
    (file,) = folder.glob(f"*.{suffix}")
    assert re.fullmatch(r"\d{8}-\d{6}\.\d+\.\d+\.\w+", file.name)
    lines = file.read_bytes().decode().splitlines(keepends=True)
    assert all(re.match(r"\d+\.\d{6} ", line) for line in lines)
    return "".join(line.partition(" ")[2] for line in lines)


def test_a_session_of_a_daemon(
    start: Start, folder: Path, config: Callable[..., str], runtime: str
) -> None:
    (folder / "raw").mkdir()
    settings = config(
        *('listen = ["127.0.0.1:0"]', "workers = 1", f'runtime = "{runtime}"', "[log]"),
        'rawlog_dir = "raw"',
    )
    program = start("--config", settings)
    with Peer(program.addresses()[0]) as peer:
        peer.greet()
        assert peer.say("NOOP").startswith("250 ")
        assert peer.say("AUTH PLAIN AHNlY3JldABzZWNyZXQ=").startswith("502 ")
        peer.begin("u@example.test")
        peer.write(b"Subject: x\r\n\r\nAUTH is a word\r\n.\r\n")
        assert peer.reply().startswith("250 ")
        assert peer.say("QUIT").startswith("221 ")
    assert program.stop() == 0
    read = _text(folder / "raw", "in")
    assert "\r\nNOOP\r\nAUTH <left out>\r\nMAIL FROM:" in read
    assert read.endswith("DATA\r\nSubject: x\r\n\r\nAUTH is a word\r\n.\r\nQUIT\r\n")
    written = _text(folder / "raw", "out")
    assert written.startswith("220 ")
    assert " Saved\r\n221 2.0.0 bye\r\n" in written
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in (folder / "raw").iterdir())


_GREETING: Turn = (b"220 x\r\n",)


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_secrets_are_left_out_however_they_come(folder: Path, size: int) -> None:
    def cut(data: bytes) -> list[Turn]:
        return [data[at : at + size] for at in range(0, len(data), size)]

    _hold(
        RawlogOptions(directory=str(folder)),
        _GREETING,
        *cut(b"NOOP\r\nauth login\r\nc2VjcmV0\r\n"),
        (b"250 ok\r\n334 x\r\n",),
        *cut(b"c2VjcmV0\r\n"),
        (b"334 y\r\n",),
        *cut(b"c2VjcmV0\r\n"),
        (b"235 ok\r\n",),
        *cut(b"DATA\r\n"),
        (b"354 go\r\n",),
        *cut(b"AUTH as text\r\n.\r\nAUTH PLAIN c2VjcmV0\r\n"),
        (b"250 ok\r\n503 no\r\n",),
        *cut(b"AU"),
    )
    text = _text(folder, "in")
    assert text == ("NOOP\r\nAUTH <left out>\r\nDATA\r\nAUTH as text\r\n.\r\nAUTH <left out>\r\nAU")


def test_networks_and_users_choose(folder: Path) -> None:
    options = RawlogOptions(
        directory=str(folder),
        networks=[ip_network("192.0.2.0/24")],
        users=frozenset({"u@example.org", "v"}),
        delimiters="+",
    )
    _hold(options, _GREETING, b"NOOP\r\n", client_ip="198.51.100.1")
    _hold(options, _GREETING, b"RCPT TO:<w@example.org>\r\nRCPT TO:<u@example.net>\r\n")
    assert not list(folder.iterdir())
    _hold(options, _GREETING, b"NOOP\r\n", client_ip="192.0.2.1")
    assert _text(folder, "in") == "NOOP\r\n"
    for rcpt in (b"<U+x@example.org>", b"<@a,@b:v@example.net>", b" <v>"):
        for file in folder.iterdir():
            file.unlink()
        _hold(options, _GREETING, b"NOOP\r\n", b"rcpt to:" + rcpt + b"\r\n", (b"250 ok\r\n",))
        assert _text(folder, "in") == f"NOOP\r\nrcpt to:{rcpt.decode()}\r\n"
        assert _text(folder, "out") == "220 x\r\n250 ok\r\n"


def test_what_is_long_before_the_user_is_named_is_not_kept(folder: Path) -> None:
    options = RawlogOptions(directory=str(folder), users=frozenset({"u"}))
    _hold(options, _GREETING, b"x" * 100_000 + b"\n", b"RCPT TO:<u@example.org>\r\n")
    assert re.fullmatch(r"<\d+ octets left out>\nRCPT TO:<u@example.org>\r\n", _text(folder, "in"))


def test_without_a_directory_nothing_is_said(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _hold(RawlogOptions(directory=str(folder / "none")), _GREETING, b"NOOP\r\n")
    assert not caplog.records


def test_a_full_disk_ends_the_rawlog_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # The device stands for each file: those of rawlogs are made, never found.
    monkeypatch.setattr(
        "lmtp_server._logs._rawlog.Rawlogs._path", lambda _self: str(folder / "full")
    )
    monkeypatch.setattr("lmtp_server._logs._rawlog_writer._FLAGS", 1)
    (folder / "full.in").symlink_to("/dev/full")
    (folder / "full.out").touch()
    turns: list[Turn] = [b"NOOP\r\n", (b"250 ok\r\n",)]
    _hold(RawlogOptions(directory=str(folder)), *turns * 100)
    assert len(caplog.records) == 1
    assert "ends: No space left on device" in caplog.text
    assert (folder / "full.out").read_bytes().count(b"250 ok") == 100
