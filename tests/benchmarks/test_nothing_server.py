"""The floor answers a client that makes no mistake, however its octets are cut."""

import socket
from pathlib import Path

import pytest

from benchmarks._cell import measure_running
from benchmarks._load import Load, connect
from benchmarks._servers import Nothing

_DIALOGUE = (
    b"LHLO client.example\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n"
    b"DATA\r\nSubject: x\r\n\r\n..\r\n.x\r\n.\r\n"
    # Content of nothing.
    b"MAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n.\r\nNOOP\r\nRSET\r\nQUIT\r\n"
)
_CODES = [b"220 ", b"250-", b"250-", b"250 ", *[b"250 "] * 3, b"354 ", *[b"250 "] * 2]
_CODES += [*[b"250 "] * 2, b"354 ", b"250 ", *[b"250 "] * 2, b"221 "]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "threads"])
@pytest.mark.parametrize("mode", ["pipelined", "unpipelined", "ahead"])
def test_every_reply_is_the_one_owed(loop: str, mode: str, tmp_path: Path) -> None:
    load = Load(connections=3, recipients=2, size=300_000, mode=mode, messages=30)
    with Nothing(loop).running("discard", tmp_path) as running:
        measurement = measure_running(running, load)
    assert measurement.problem is None
    assert measurement.messages == 30


def test_content_is_kept_where_it_is_to_be(tmp_path: Path) -> None:
    load = Load(connections=2, recipients=1, size=5_000_000, messages=2)
    with Nothing("threads").running("durable", tmp_path) as running:
        measurement = measure_running(running, load)
    assert measurement.problem is None
    kept = [path.read_bytes() for path in tmp_path.glob("u0/new/*")]
    assert len(kept) == 2
    assert {octets.endswith(b"\r\n.\r\n") and len(octets) > 5_000_000 for octets in kept} == {True}


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, len(_DIALOGUE)])
def test_the_cuts_do_not_matter(size: int, tmp_path: Path) -> None:
    with (
        Nothing("asyncio").running("discard", tmp_path) as running,
        connect(running.address, 20.0) as sock,
        sock.makefile("rb") as replies,
    ):
        for start in range(0, len(_DIALOGUE), size):
            sock.send(_DIALOGUE[start : start + size])
        assert [line[:4] for line in replies.readlines()] == _CODES


def test_anything_else_is_cut_off(tmp_path: Path) -> None:
    with (
        Nothing("asyncio").running("discard", tmp_path) as running,
        connect(running.address, 20.0) as sock,
    ):
        assert sock.recv(100).startswith(b"220 ")
        sock.sendall(b"LHLO client.example\r\nEXPN x\r\n")
        try:
            rest = sock.recv(100)
        except ConnectionResetError:
            rest = b""
        assert rest == b""
        assert isinstance(sock, socket.socket)
