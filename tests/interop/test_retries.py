"""Postfix does not see some of the 250s, and comes again until it has."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

import pytest

from lmtp_proto import Recipient
from mailstore import RetryOptions, StoreHandler
from tests.adapters.harness import Client, serving
from tests.interop.postfix import PrivatePostfix
from tests.mailstore.support import opened

_SECONDS = 60.0


class _Losses:
    """Between an LMTP client and a server: how many final replies each connection lets through.

    Those beyond are lost, and the connection with them. What is not listed loses nothing.
    """

    def __init__(self, server: str, passed: list[int]) -> None:
        self._server = server
        self._passed = iter(passed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "lmtp:inet:[{}]:{}".format(*self._listener.getsockname())
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            passed = next(self._passed, None)
            threading.Thread(target=self._relay, args=(client, passed), daemon=True).start()

    def _relay(self, client: socket.socket, passed: int | None) -> None:
        with client, Client(self._server) as server:
            pump = threading.Thread(target=self._pump, args=(client, server), daemon=True)
            pump.start()
            final = False
            while line := server.line():
                if final and passed is not None:
                    if not passed:
                        break
                    passed -= 1
                client.sendall(line + b"\r\n")
                final |= line.startswith(b"354")
            # Reading ends for both, as the connection breaks.
            client.shutdown(socket.SHUT_RDWR)
            pump.join()

    def _pump(self, client: socket.socket, server: Client) -> None:
        try:
            while octets := client.recv(65536):
                server.send(octets)
            server.sock.shutdown(socket.SHUT_WR)
        except OSError:
            # The one or the other has gone.
            pass


@contextmanager
def _losses(server: str, passed: list[int]) -> Iterator[_Losses]:
    losses = _Losses(server, passed)
    try:
        yield losses
    finally:
        losses.close()


def _locate(recipient: Recipient) -> PurePath:
    return PurePath(recipient.address.local_part)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("recognised", [True, False])
def test_postfix_comes_again(
    tmp_path: Path, postfix: type[PrivatePostfix], recognised: bool
) -> None:
    users = ("a", "b", "c")
    content = b"Subject: x\r\n\r\ntext\r\n"
    with (
        opened(tmp_path, retries=RetryOptions() if recognised else None) as store,
        serving("blocking", StoreHandler(store, _locate)) as server,
        # No reply, the one for the first of three, and none for the other two, get through.
        _losses(server.address, [0, 1, 0]) as losses,
        postfix(losses.address) as running,
    ):
        with Client("{}:{}".format(*running.smtp_address)) as client:
            client.expect(b"220 ")
            client.send(b"EHLO client.test\r\nMAIL FROM:<sender@client.test>\r\n")
            for user in users:
                client.send(b"RCPT TO:<%s@example.test>\r\n" % user.encode())
            client.send(b"DATA\r\n")
            client.expect(b"250 ", b"250 ", *[b"250 "] * 3, b"354 ")
            client.send(content + b".\r\n")
            client.expect(b"250 ")
        deadline = time.monotonic() + _SECONDS
        while running.queued():
            assert time.monotonic() < deadline, running.log()
            running.flush()
            time.sleep(0.1)
        log = running.log()
    assert losses.connections == 4
    assert log.count("status=sent") == 3
    assert log.count("Saved before") == (3 if recognised else 0)
    copies = [len(list((tmp_path / user / "new").iterdir())) for user in users]
    assert copies == ([1, 1, 1] if recognised else [2, 4, 4])
