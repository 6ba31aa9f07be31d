"""Faults of flags, the TOML file and what they name: all at once, exit 78, nothing started."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server._peer import Peer, deliver
from tests.server._program import Program, run

Start = Callable[..., Program]


def _faults(*arguments: str, cwd: Path) -> list[str]:
    """The faults `serve` tells of, without the name in front."""
    done = run("serve", *arguments, cwd=cwd)
    assert done.returncode == os.EX_CONFIG, done.stderr.decode()
    assert not done.stdout
    lines = done.stderr.decode().splitlines()
    assert all(line.startswith("lmtp-server: ") for line in lines)
    return [line.removeprefix("lmtp-server: ") for line in lines]


def test_all_faults_of_flags_and_file_at_once(folder: Path) -> None:
    (folder / "s.toml").write_text(
        'hostname = "a b"\nwrokers = 1\nmail = "/srv/mail"\nlisten = ["127.0.0.1:0", "nowhere"]\n'
    )

    faults = _faults(
        *("--workers", "0", "--drain", "soon", "--runtime", "twisted"),
        *("--recipient-delimiter", "x", "--nonsense", "--config", "s.toml"),
        cwd=folder,
    )

    expected = {
        "'--nonsense'": "no argument",
        "--workers: '0'": "from 1 to 1024",
        "--drain: 'soon'": "seconds from 0",
        "--runtime: 'twisted'": "asyncio, uvloop, gevent or blocking",
        "--recipient-delimiter: 'x'": "punctuation",
        "s.toml:1: hostname: 'a b'": "the name of a host",
        "s.toml:2: wrokers: ": "workers",
        "s.toml:3: mail: '/srv/mail'": "{user}",
        "s.toml:4: listen[1]: 'nowhere'": "HOST:PORT",
    }
    assert len(faults) == len(expected)
    for start, allowed in expected.items():
        (fault,) = [fault for fault in faults if start in fault]
        assert allowed in fault
    assert [path.name for path in folder.iterdir()] == ["s.toml"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--workers", "1.5"),
        ("--workers", "-1"),
        ("--workers", "9999"),
        ("--drain", "-1"),
        ("--drain", "nan"),
        ("--drain", "inf"),
        ("--hostname", ""),
        ("--hostname", "mx.example.org\r\nX"),
        ("--listen", "127.0.0.1:65536"),
        ("--listen", "unix:"),
        ("--mail", ""),
        ("--recipient-delimiter", "@"),
        ("--runtime", ""),
    ],
)
def test_bad_values_are_told_by_flag_and_value(arguments: tuple[str, str], folder: Path) -> None:
    flag, value = arguments
    (fault,) = _faults(*arguments, cwd=folder)
    assert fault.startswith(f"{flag}: ")
    assert repr(value).strip("'") in fault
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('workers = "2"', "s.toml:1: workers: '2'"),
        ("workers = true", "s.toml:1: workers: True"),
        ("workers = 2.0", "s.toml:1: workers: 2.0"),
        ("mail = 1", "s.toml:1: mail: 1"),
        ('listen = "127.0.0.1:0"', "s.toml:1: listen: '127.0.0.1:0'"),
        ("listen = []", "s.toml:1: listen: []"),
        ("listen = [24]", "s.toml:1: listen[0]: 24"),
        ("[server]\nworkers = 1", "s.toml:1: server: "),
        ("recipient-delimiter = '+'", "s.toml:1: recipient-delimiter: "),
    ],
)
def test_bad_values_are_told_by_file_and_key(text: str, place: str, folder: Path) -> None:
    (folder / "s.toml").write_text(text)
    (fault,) = _faults("--config", "s.toml", cwd=folder)
    assert fault.startswith(place)


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b'hostname = "a"\nworkers 4\n', "line 2, column 9"),
        (b'hostname = "a"\nhostname = "b"\n', "line 2"),
        (b"# \xff\n", "octet 2 is not UTF-8"),
    ],
)
def test_a_file_that_is_no_toml(octets: bytes, reason: str, folder: Path) -> None:
    (folder / "s.toml").write_bytes(octets)
    faults = _faults("--config", "s.toml", "--workers", "x", cwd=folder)
    assert len(faults) == 2
    assert faults[0].startswith("s.toml: ")
    assert reason in faults[0]
    assert faults[1].startswith("--workers: ")


@pytest.mark.parametrize(
    ("path", "reason"), [("missing.toml", "No such file"), (".", "Is a directory")]
)
def test_a_file_that_cannot_be_read(path: str, reason: str, folder: Path) -> None:
    (fault,) = _faults("--config", path, cwd=folder)
    assert fault.startswith(f"--config: cannot read '{path}': {reason}")


def test_what_the_settings_name_is_told_at_once_too(folder: Path) -> None:
    (folder / "file").write_text("not a directory")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        faults = _faults(
            *("--listen", f"127.0.0.1:{port}", "--listen", "unix:free", "--listen", "unix:file"),
            *("--mail", "file/{user}"),
            cwd=folder,
        )

    assert len(faults) == 3
    assert f"127.0.0.1:{port}" in faults[0]
    assert "another process listens there" in faults[0]
    assert "unix:file" in faults[1]
    assert "no socket" in faults[1]
    assert "mail: " in faults[2]
    assert str(folder / "file") in faults[2]
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_an_unwritable_mail_root(folder: Path) -> None:
    # /proc can be written by nobody, whatever his rights.
    (fault,) = _faults("--listen", "unix:s", "--mail", "/proc/mail/{user}", cwd=folder)
    assert "'/proc/mail'" in fault
    assert not list(folder.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_mail_root_without_permission(folder: Path) -> None:
    (folder / "mail").mkdir(mode=0o500)
    (fault,) = _faults("--listen", "unix:s", cwd=folder)
    assert fault == f"mail: cannot keep mail in {str(folder / 'mail')!r}: Permission denied"
    assert [path.name for path in folder.iterdir()] == ["mail"]


@pytest.mark.parametrize("runtime", ["uvloop", "gevent"])
def test_a_runtime_that_is_not_installed(runtime: str, folder: Path) -> None:
    program = f"""
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == {runtime!r} else find(name, *rest)
from lmtp_server.__main__ import main
sys.exit(main(["serve", "--runtime", {runtime!r}, "--listen", "unix:s"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, check=False, text=True
    )
    assert done.returncode == os.EX_CONFIG
    assert f"pip install 'lmtp-proto[{runtime}]'" in done.stderr
    assert not list(folder.iterdir())


def test_the_file_sets_and_flags_win(start: Start, folder: Path) -> None:
    (folder / "s.toml").write_text(
        'listen = ["127.0.0.1:1", "127.0.0.1:2"]\nmail = "post/{user}.{domain}"\n'.replace(
            ".{domain}", "@{domain}"
        )
        + 'runtime = "asyncio"\nworkers = 1\nhostname = "file.example.org"\n'
        'recipient_delimiter = "-"\ndrain = 5\n'
    )
    program = start(
        *("--config", "s.toml", "--listen", "127.0.0.1:0", "--hostname", "flag.example.org"),
        *("--recipient-delimiter", ""),
    )
    (address,) = program.addresses()
    with Peer(address) as peer:
        assert peer.reply().startswith("220 flag.example.org ")
    assert len(program.workers()) == 1
    assert deliver(address, "a-b@example.test")[0].startswith("250 ")
    assert len(list((folder / "post/a-b@example.test/new").iterdir())) == 1
    assert program.stop() == 0


def test_defaults(start: Start, folder: Path) -> None:
    # The port of the default may be taken on this machine.
    program = start("--listen", "unix:s")
    program.addresses()
    assert len(program.workers()) == len(os.sched_getaffinity(0))
    assert deliver(f"unix:{folder}/s", "a+b@example.test")[0].startswith("250 ")
    assert len(list((folder / "mail/example.test/a/new").iterdir())) == 1
    with Peer(f"unix:{folder}/s") as peer:
        assert peer.reply().startswith(f"220 {socket.gethostname()} ")
    assert program.stop() == 0


def test_port_25_is_not_for_lmtp(folder: Path) -> None:
    # RFC 2033 5.
    (fault,) = _faults("--listen", "127.0.0.1:25", cwd=folder)
    assert "--listen" in fault
    assert "port 25 is for SMTP" in fault
