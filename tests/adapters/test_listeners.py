"""The listening sockets of a server, before any runtime serves them."""

import os
import socket
import stat
from collections.abc import Callable
from contextlib import ExitStack
from ipaddress import ip_network
from pathlib import Path

import pytest

from lmtp_proto import Handler, Session
from lmtp_sockets import UnixAddress, accept, format_address, listen, set_rights
from lmtp_transport import ConnectionLimit, Listener, Listeners
from tests.adapters.harness import Connect, Mailbox, Start


class TestListeners:
    def test_all_or_none(self, tmp_path: Path) -> None:
        path = tmp_path / "lmtp"
        handed_in = socket.create_server(("127.0.0.1", 0))
        with handed_in:
            with pytest.raises(OSError, match="cannot listen"):
                Listeners([f"unix:{path}", handed_in, f"unix:{path}/lmtp"])
            assert not path.exists()
            # It stays the caller's.
            assert handed_in.fileno() >= 0

    def test_none_at_all(self) -> None:
        with pytest.raises(ValueError, match="an address"):
            Listeners([])

    def test_a_file_of_a_socket_handed_in_stays(self, tmp_path: Path) -> None:
        path = tmp_path / "lmtp"
        listeners = Listeners([listen(UnixAddress(str(path))), "127.0.0.1:0"])
        assert listeners.addresses[0] == f"unix:{path}"
        listeners.close()
        assert path.is_socket()
        assert [sock.fileno() for sock, _ in listeners.opened] == [-1, -1]

    def test_the_file_of_a_unix_socket_has_mode_and_owner(self, tmp_path: Path) -> None:
        path = tmp_path / "lmtp"
        place = Listener(f"unix:{path}", mode=0o640, owner=os.getuid(), group=os.getgid())
        listeners = Listeners([place])
        found = path.stat()
        assert stat.S_IMODE(found.st_mode) == 0o640
        assert (found.st_uid, found.st_gid) == (os.getuid(), os.getgid())
        listeners.close()
        assert not path.exists()

    def test_mode_and_owner_can_be_changed(self, tmp_path: Path) -> None:
        path = tmp_path / "lmtp"
        with listen(UnixAddress(str(path))) as sock, socket.create_server(("127.0.0.1", 0)) as tcp:
            set_rights(sock, mode=0o600, owner=os.getuid(), group=os.getgid())
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            set_rights(tcp, mode=0o600)
            path.unlink()
            set_rights(sock, mode=0o600)
            path.touch(0o644)
            set_rights(sock, mode=0o600)
            assert stat.S_IMODE(path.stat().st_mode) == 0o644

    @pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
    def test_the_file_can_belong_to_somebody_else(self, tmp_path: Path) -> None:
        path = tmp_path / "lmtp"
        listeners = Listeners([Listener(f"unix:{path}", owner=12345, group=54321)])
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)
        listeners.close()

    def test_tls_needs_a_certificate(self) -> None:
        with pytest.raises(ValueError, match="a certificate"):
            Listener("127.0.0.1:0", implicit_tls=True)


class TestProxies:
    def test_only_listed_networks_are_proxies(self) -> None:
        listener = Listener("[::]:0", proxies=[ip_network("192.0.2.0/24"), ip_network("::1")])
        assert listener.is_proxy("192.0.2.9")
        assert listener.is_proxy("::1")
        assert not listener.is_proxy("198.51.100.1")
        # On a UNIX socket the file's mode says who may connect.
        assert listener.is_proxy(None)

    def test_nobody_is_unless_listed(self) -> None:
        assert not Listener("[::]:0").is_proxy("192.0.2.9")
        assert not Listener("[::]:0").is_proxy(None)


class _OtherProcess(Handler):
    """Takes in, when the first session begins, whoever waits at the listener by then."""

    def __init__(self, sock: socket.socket, stack: ExitStack) -> None:
        self._sock = sock
        self._stack = stack
        self.count = 0

    def connect(self, session: Session) -> None:
        while (accepted := accept(self._sock)) is not None:
            self._stack.enter_context(accepted[0])
            self.count += 1


class TestShared:
    def test_who_waits_is_left_to_other_processes(self, start: Start, connect: Connect) -> None:
        with ExitStack() as stack:
            sock = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=100))
            clients = [connect(format_address(sock)) for _ in range(60)]
            sock.setblocking(False)
            other = _OtherProcess(sock, stack)
            start(other, Listener(sock.dup(), shared=True))
            clients[0].expect(b"220")
            # Unshared, a server takes in all of them before it serves the first.
            assert other.count >= 30


class _Never(ConnectionLimit):
    def __init__(self) -> None:
        self.asked: list[str] = []

    def admit(self, session: Session, /) -> Callable[[], None] | None:
        self.asked.append(session.listener)
        return None


class TestLimits:
    def test_a_listener_has_limits_and_a_name_of_its_own(
        self, start: Start, connect: Connect
    ) -> None:
        never = _Never()
        server = start(
            Mailbox(),
            Listener("127.0.0.1:0"),
            Listener("127.0.0.1:0", name="second", limits=[never]),
            max_connections_per_peer=1,
        )
        first, second = server.addresses
        for _ in range(2):
            client = connect(second)
            client.expect(b"421 4.3.2")
            client.expect_end()
        # Those were counted for the server, too, and are not any more.
        connect(first).greeted()
        assert never.asked == ["second", "second"]
