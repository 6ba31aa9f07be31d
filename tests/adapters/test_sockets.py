"""Addresses as text and listening sockets."""

import errno
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lmtp_sockets import (
    Stream,
    TcpAddress,
    UnixAddress,
    accept,
    format_address,
    listen,
    parse_address,
    peer_name,
    refuse,
    unlink_if_ours,
)


class TestAddresses:
    @pytest.mark.parametrize(
        ("text", "address"),
        [
            ("127.0.0.1:24", TcpAddress("127.0.0.1", 24)),
            ("0.0.0.0:0", TcpAddress("0.0.0.0", 0)),
            ("mail.example.org:65535", TcpAddress("mail.example.org", 65535)),
            ("[::1]:2424", TcpAddress("::1", 2424)),
            ("[fe80::1%eth0]:24", TcpAddress("fe80::1%eth0", 24)),
            ("unix:/run/lmtp", UnixAddress("/run/lmtp")),
            ("unix:lmtp:1", UnixAddress("lmtp:1")),
        ],
    )
    def test_round_trip(self, text: str, address: TcpAddress | UnixAddress) -> None:
        assert parse_address(text) == address
        assert str(address) == text

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("", "no port"),
            ("localhost", "no port"),
            ("localhost:", "'' is no port"),
            ("localhost:lmtp", "'lmtp' is no port"),
            ("localhost:65536", "'65536' is no port"),
            ("localhost:-1", "'-1' is no port"),
            ("localhost:\u0662\u0664", "is no port"),
            (":24", r"no host: 127\.0\.0\.1:24"),
            ("::1:24", "brackets"),
            ("[::1]", "is no port"),
            ("[]:24", "is no IPv6 address"),
            ("[127.0.0.1]:24", "is no IPv6 address"),
            ("a b:24", "is no host"),
            ("-a:24", "is no host"),
            ("*:24", "is no host"),
            ("unix:", "no path"),
            ("unix:a\0b", "NUL"),
            (f"unix:/{'a' * 107}", "108 octets"),
            ("unix:/" + "\u00fc" * 54, "109 octets"),
        ],
    )
    def test_what_is_none(self, text: str, complaint: str) -> None:
        with pytest.raises(ValueError, match=complaint):
            parse_address(text)

    @pytest.mark.parametrize(
        ("address", "name"),
        [
            (("192.0.2.1", 4711), ("192.0.2.1:4711", "192.0.2.1")),
            (("2001:db8::1", 4711, 0, 0), ("[2001:db8::1]:4711", "2001:db8::1")),
            (("fe80::1%eth0", 4711, 0, 2), ("[fe80::1%eth0]:4711", "fe80::1")),
            ("", ("unix", None)),
            (b"\0abstract", ("unix", None)),
            (None, ("unix", None)),
        ],
    )
    def test_names_of_peers(self, address: object, name: tuple[str, str | None]) -> None:
        assert peer_name(address) == name


class TestTcp:
    @pytest.mark.parametrize("text", ["127.0.0.1:0", "[::1]:0", "localhost:0"])
    def test_options(self, text: str) -> None:
        with listen(parse_address(text)) as sock:
            assert sock.proto == socket.IPPROTO_TCP
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
            assert not sock.get_inheritable()
            with socket.create_connection(sock.getsockname()[:2]):
                pass

    def test_the_port_found_is_told(self) -> None:
        with listen(parse_address("[::1]:0")) as sock:
            text = format_address(sock)
            assert text.startswith("[::1]:")
            assert parse_address(text) != TcpAddress("::1", 0)

    def test_ipv4_and_ipv6_share_a_port(self) -> None:
        with listen(parse_address("[::]:0")) as six:
            port = six.getsockname()[1]
            with listen(TcpAddress("0.0.0.0", port)) as four:
                assert format_address(four) == f"0.0.0.0:{port}"

    def test_a_port_in_use(self) -> None:
        with listen(parse_address("127.0.0.1:0")) as sock:
            address = parse_address(format_address(sock))
            with pytest.raises(OSError, match=f"cannot listen on {address}: another") as caught:
                listen(address)
        assert caught.value.errno == errno.EADDRINUSE

    @pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", f"{'a' * 64}.invalid"])
    def test_a_host_that_has_no_address(self, host: str) -> None:
        with pytest.raises(OSError, match=f"cannot listen on {host}:24: ") as caught:
            listen(TcpAddress(host, 24))
        assert caught.value.errno == errno.EADDRNOTAVAIL


def _leave_dead_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


class TestUnix:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "lmtp"

    @pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
    def test_the_mode_does_not_depend_on_the_umask(self, path: Path, umask: int) -> None:
        previous = os.umask(umask)
        try:
            with (
                listen(UnixAddress(str(path))),
                listen(UnixAddress(f"{path}2"), mode=0o600),
            ):
                assert stat.S_IMODE(path.stat().st_mode) == 0o666
                assert stat.S_IMODE(Path(f"{path}2").stat().st_mode) == 0o600
        finally:
            os.umask(previous)

    def test_a_dead_socket_makes_room(self, path: Path) -> None:
        _leave_dead_socket(path)
        with listen(UnixAddress(str(path))), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))

    def test_a_live_one_does_not(self, path: Path) -> None:
        with listen(UnixAddress(str(path))):
            with pytest.raises(OSError, match="another process listens there") as caught:
                listen(UnixAddress(str(path)))
            assert caught.value.errno == errno.EADDRINUSE
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))

    def test_nor_does_a_live_one_whose_backlog_is_full(self, path: Path) -> None:
        with listen(UnixAddress(str(path)), backlog=0), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            with pytest.raises(OSError, match="another process listens there"):
                listen(UnixAddress(str(path)))

    def test_nor_does_one_that_takes_datagrams(self, path: Path) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(str(path))
            with pytest.raises(OSError, match="another process listens there"):
                listen(UnixAddress(str(path)))
        assert path.is_socket()

    @pytest.mark.parametrize("kind", ["file", "folder", "link", "link to a dead socket"])
    def test_what_is_no_socket_is_never_removed(self, path: Path, kind: str) -> None:
        if kind == "file":
            path.write_text("mine")
        elif kind == "folder":
            path.mkdir()
        elif kind == "link":
            path.symlink_to(path.with_name("nothing"))
        else:
            _leave_dead_socket(path.with_name("dead"))
            path.symlink_to(path.with_name("dead"))
        with pytest.raises(OSError, match="is no socket") as caught:
            listen(UnixAddress(str(path)))
        assert caught.value.errno == errno.EADDRINUSE
        assert os.path.lexists(path)
        assert kind != "link to a dead socket" or path.with_name("dead").is_socket()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
    def test_somebody_elses_dead_socket_is_not_removed(self, path: Path) -> None:
        _leave_dead_socket(path)
        os.chown(path, 12345, -1)
        with pytest.raises(OSError, match="user 12345 has left a dead socket"):
            listen(UnixAddress(str(path)))
        assert path.is_socket()

    def test_a_folder_that_is_not_there(self, path: Path) -> None:
        with pytest.raises(OSError, match="its directory does not exist") as caught:
            listen(UnixAddress(f"{path}/lmtp"))
        assert caught.value.errno == errno.ENOENT

    def test_the_file_goes_with_the_socket(self, path: Path) -> None:
        with listen(UnixAddress(str(path))) as sock:
            unlink_if_ours(sock)
        assert not path.exists()
        unlink_if_ours(sock)

    def test_also_when_the_working_folder_has_changed(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(path.parent)
        with listen(UnixAddress(path.name)) as sock:
            assert format_address(sock) == f"unix:{path.name}"
            monkeypatch.chdir("/")
            unlink_if_ours(sock)
        assert not path.exists()

    def test_another_ones_file_in_its_place_stays(self, path: Path) -> None:
        with listen(UnixAddress(str(path))) as sock:
            path.unlink()
            with listen(UnixAddress(str(path))):
                unlink_if_ours(sock)
                assert path.is_socket()

    def test_a_socket_of_another_making_is_left_alone(self, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
            unlink_if_ours(sock)
        assert path.is_socket()

    def test_a_forked_child_leaves_the_file(self, path: Path) -> None:
        program = (
            "import os, sys, lmtp_sockets as s\n"
            "sock = s.listen(s.UnixAddress(sys.argv[1]))\n"
            "child = os.fork()\n"
            "if child == 0:\n"
            "    s.unlink_if_ours(sock)\n"
            "    os._exit(0)\n"
            "os.waitpid(child, 0)\n"
            "print(os.path.exists(sys.argv[1]))\n"
            "s.unlink_if_ours(sock)\n"
            "print(os.path.exists(sys.argv[1]))\n"
        )
        adapters = Path(__file__).parents[2] / "adapters"
        ended = subprocess.run(
            [sys.executable, "-c", program, str(path)],
            env={"PYTHONPATH": str(adapters)},
            capture_output=True,
            check=True,
            text=True,
        )
        assert ended.stdout.split() == ["True", "False"]


class _BrokenListener(socket.socket):
    """Fails to accept as the system may."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def accept(self) -> tuple[socket.socket, object]:
        raise OSError(self._number, os.strerror(self._number))


class TestAccept:
    @pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EAGAIN, errno.EPROTO])
    def test_what_passes(self, number: int) -> None:
        with _BrokenListener(number) as listener:
            assert accept(listener) is None

    @pytest.mark.parametrize(
        "number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EBADF]
    )
    def test_what_needs_a_pause(self, number: int) -> None:
        with _BrokenListener(number) as listener, pytest.raises(OSError) as caught:  # noqa: PT011  # the number is the match
            accept(listener)
        assert caught.value.errno == number

    def test_refusal(self) -> None:
        here, there = socket.socketpair()
        with there:
            refuse(here, b"421 go\r\n")
            assert there.recv(100) == b"421 go\r\n"
            assert there.recv(100) == b""

    def test_refusal_of_one_that_has_gone(self) -> None:
        here, there = socket.socketpair()
        there.close()
        refuse(here, b"421 go\r\n")
        assert here.fileno() == -1


class TestStream:
    """What servers cannot show: a wait that says no, and one that is wrong."""

    def test_a_wait_that_is_wrong_is_repeated(self) -> None:
        here, there = socket.socketpair()
        waits = []

        def wait(writing: bool, deadline: float) -> bool:
            waits.append((writing, deadline))
            if len(waits) == 2:
                there.send(b"x")
            return True

        with there:
            stream = Stream(here, wait)
            assert stream.receive(7.0) == b"x"
            assert waits == [(False, 7.0)] * 2
            there.shutdown(socket.SHUT_WR)
            assert stream.receive(8.0) == b""
            stream.close()

    def test_a_peer_that_does_not_read_in_time_is_written_to_no_more(self) -> None:
        here, there = socket.socketpair()
        with there:
            stream = Stream(here, lambda writing, deadline: False)
            stream.send(bytes(10_000_000), 7.0)
            stream.send(b"more", 7.0)
            assert stream.receive(7.0) == b""
            stream.close()
            size = 0
            while octets := there.recv(1_000_000):
                size += len(octets)
            assert size < 10_000_000

    def test_all_is_written_to_one_that_reads_slowly(self) -> None:
        here, there = socket.socketpair()
        waits = 0

        def wait(writing: bool, deadline: float) -> bool:
            nonlocal waits
            waits += 1
            return there.recv(100_000) != b"" if writing else True

        with there:
            Stream(here, wait).send(bytes(1_000_000), 7.0)
            assert waits > 1
            here.close()

    def test_closing_drops_what_still_comes(self) -> None:
        with listen(parse_address("127.0.0.1:0")) as listener:
            there = socket.create_connection(listener.getsockname())
            here, _ = listener.accept()
        with there:
            stream = Stream(here, lambda writing, deadline: True)
            stream.send(b"421 go\r\n", 7.0)
            there.sendall(b"NOOP\r\n" * 1000)
            closing = threading.Thread(target=stream.close)
            closing.start()
            # Neither octets that nobody reads nor the close cost the client its reply.
            assert there.recv(100) == b"421 go\r\n"
            assert there.recv(100) == b""
            there.shutdown(socket.SHUT_WR)
            closing.join()
