"""Sockets that a service manager hands on, by systemd itself, and what may be wrong with that."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.peers.ports import free_ports
from lmtp_sockets import activated_sockets
from tests.adapters.harness import Client

_ROOT = Path(__file__).parents[2]
_SERVER = """
import asyncio, sys
import lmtp_asyncio, lmtp_blocking, lmtp_gevent
from benchmarks.peers.ports import free_ports
from lmtp_sockets import activated_sockets
from tests.adapters.harness import Mailbox
places = activated_sockets()
assert [name for name, _ in places] == ["lmtp", "lmtp"], places
assert activated_sockets() == []
assert not any(sock.get_inheritable() for _, sock in places)
sockets = [sock for _, sock in places]
match sys.argv[1]:
    case "blocking":
        lmtp_blocking.serve(Mailbox(), *sockets)
    case "gevent":
        lmtp_gevent.serve(Mailbox(), *sockets)
    case "asyncio":
        asyncio.run(lmtp_asyncio.serve(Mailbox(), *sockets))
    case "uvloop":
        import uvloop
        uvloop.run(lmtp_asyncio.serve(Mailbox(), *sockets))
"""


@pytest.mark.interop
@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="needs systemd")
def test_systemd_hands_its_sockets_on(runtime: str, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    path = tmp_path / "lmtp"
    manager = subprocess.Popen(
        [
            *("systemd-socket-activate", "-l", f"127.0.0.1:{port}", "-l", str(path)),
            *("--fdname=lmtp:lmtp", f"--setenv=PYTHONPATH={_ROOT}:{_ROOT / 'adapters'}"),
            *(sys.executable, "-W", "error", "-c", _SERVER, runtime),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    with manager:
        try:
            assert manager.stderr is not None
            # Once for each socket, before anything is started.
            for _ in range(2):
                assert "Listening on" in manager.stderr.readline()
            for address in (f"127.0.0.1:{port}", f"unix:{path}"):
                with Client(address) as client:
                    client.greeted().deliver("a")
                    client.expect(b"250 ")
            # The file is the manager's.
            manager.terminate()
            assert manager.wait(20) == 0
            assert path.exists()
        finally:
            manager.kill()


def _environment(**values: object) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}


def test_nothing_is_handed_on() -> None:
    assert activated_sockets({}) == []


def test_what_was_meant_for_a_parent_is_left() -> None:
    environment = _environment(LISTEN_PID=os.getpid() + 1, LISTEN_FDS=1, LISTEN_FDNAMES="a", HOME=1)
    assert activated_sockets(environment) == []
    assert environment == {"HOME": "1"}


@pytest.mark.parametrize("count", ["-1", "x", "1.0", "\N{SUPERSCRIPT TWO}"])
def test_a_count_that_is_none(count: str) -> None:
    with pytest.raises(ValueError, match="a number of sockets is awaited"):
        activated_sockets(_environment(LISTEN_PID=os.getpid(), LISTEN_FDS=count))


def test_names_that_are_not_as_many() -> None:
    values = _environment(LISTEN_PID=os.getpid(), LISTEN_FDS=2, LISTEN_FDNAMES="a:b:c")
    with pytest.raises(ValueError, match="2 names are awaited"):
        activated_sockets(values)


def test_a_descriptor_that_is_no_socket() -> None:
    code = (
        "import os, lmtp_sockets\n"
        "os.dup2(os.open('/dev/null', os.O_RDONLY), 3)\n"
        "environment = {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '1'}\n"
        "try:\n"
        "    lmtp_sockets.activated_sockets(environment)\n"
        "except OSError as error:\n"
        "    print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(_ROOT / "adapters")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Socket operation on non-socket" in ran.stdout
