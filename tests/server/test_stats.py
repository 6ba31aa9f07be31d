"""The commands that ask a running server: ping, who and stats."""

import json
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.server._metrics import settings
from tests.server._peer import Peer, deliver
from tests.server._program import Program, run

Start = Callable[..., Program]
Config = Callable[..., str]


def test_stats_are_those_of_all_workers(start: Start, folder: Path, config: Config) -> None:
    path = config(f'base_dir = "{folder}"', 'listen = ["127.0.0.1:0"]', "workers = 2")
    program = start("--config", path)
    (address,) = program.addresses()
    for _ in range(3):
        deliver(address, "a@example.test")
    table = run("stats", "-c", path, cwd=folder)
    assert (table.returncode, table.stderr) == (0, b"")
    lines = [line.split() for line in table.stdout.decode().splitlines()]
    assert lines[0] == ["METRIC", "VALUE", "PER", "SECOND"]
    assert ["transactions", "3"] in [line[:2] for line in lines]
    answer = json.loads(run("stats", "--json", "-c", path, cwd=folder).stdout)
    values = {each["name"]: each for each in answer["metrics"]}
    assert values["lmtp_transactions"]["samples"] == [{"labels": {}, "value": 3}]
    assert values["lmtp_rcpt_duration_seconds"]["count"] == 3


def test_who_shows_each_session_and_obeys_none(start: Start, folder: Path, config: Config) -> None:
    path = config(*settings(folder))
    program = start("--config", path)
    (address,) = program.addresses()
    with Peer(address) as amid, Peer(address) as idle:
        amid.greet()
        amid.begin("a@example.test", "b@example.test")
        idle.greet()
        shown = run("who", "-c", path, cwd=folder)
        assert (shown.returncode, shown.stderr) == (0, b"")
        header, *lines = shown.stdout.decode().splitlines()
        assert header.split()[:3] == ["PEER", "TLS", "STATE"]
        (content,) = [line for line in lines if " content " in line]
        assert "a@example.test b@example.test" in content
        assert content.startswith("127.0.0.1:")
        assert len(lines) == 2
        answer = json.loads(run("who", "--json", "-c", path, cwd=folder).stdout)
        assert sorted(each["state"] for each in answer["sessions"]) == ["LHLO", "content"]
        assert answer["silent"] == []


def test_many_sessions_are_all_told(start: Start, folder: Path, config: Config) -> None:
    path = config(*settings(folder, workers=1))
    (address,) = start("--config", path).addresses()
    peers = [Peer(address) for _ in range(60)]
    try:
        for peer in peers:
            peer.greet()
        answer = json.loads(run("who", "--json", "-c", path, cwd=folder).stdout)
        assert len({each["id"] for each in answer["sessions"]}) == len(peers)
    finally:
        for peer in peers:
            peer.close()


@pytest.mark.parametrize("command", ["who", "stats"])
def test_a_server_that_is_not_there(folder: Path, config: Config, command: str) -> None:
    path = config(f'base_dir = "{folder}"')
    ended = run(command, "-c", path, cwd=folder)
    assert ended.returncode == os.EX_UNAVAILABLE
    assert ended.stderr.startswith(b"lmtp-server: the server is not running: nobody answers at ")
    ended = run(command, "-c", config("workers = 1"), cwd=folder)
    assert ended.returncode == os.EX_CONFIG
    assert b"set base_dir or metrics.control" in ended.stderr


def test_ping(start: Start, folder: Path, config: Config) -> None:
    path = config(f'base_dir = "{folder}"', "workers = 1")
    program = start("--config", path)
    (address,) = program.addresses()
    for arguments in (["--to", address], ["-c", path]):
        pinged = run("ping", *arguments, cwd=folder)
        assert (pinged.returncode, pinged.stdout, pinged.stderr) == (0, b"", b"")
    assert program.stop() == 0
    gone = run("ping", "--to", address, cwd=folder)
    assert gone.returncode == os.EX_TEMPFAIL
    assert gone.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("said", "code", "why"),
    [
        (b"421 4.3.2 too many\r\n", os.EX_TEMPFAIL, b"greeting: 421 4.3.2 too many"),
        (b"554 no\x1b[2J\r\n", os.EX_UNAVAILABLE, b"greeting: 554 no?[2J"),
        (b"SSH-2.0-x\r\n", os.EX_UNAVAILABLE, b"this is not LMTP"),
        (b"220-" + b"x" * 10_000, os.EX_UNAVAILABLE, b"this is not LMTP"),
        (b"", os.EX_TEMPFAIL, b"the connection is closed"),
        (None, os.EX_TEMPFAIL, b"no answer in 0.5 s"),
    ],
)
def test_ping_of_what_is_no_working_server(
    folder: Path, said: bytes | None, code: int, why: bytes
) -> None:
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            sock, _ = listener.accept()
            with sock:
                if said is None:
                    over.wait()
                else:
                    sock.sendall(said)
                    sock.shutdown(socket.SHUT_WR)
                    with suppress(ConnectionResetError):
                        while sock.recv(4096):
                            pass

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            timeout = "0.5" if said is None else "20"
            address = f"127.0.0.1:{listener.getsockname()[1]}"
            ended = run("ping", "--to", address, "--timeout", timeout, cwd=folder)
        finally:
            over.set()
            thread.join()
    assert ended.returncode == code
    assert why in ended.stderr
    assert b"\x1b" not in ended.stderr
