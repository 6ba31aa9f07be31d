"""Clients that vanish, wherever they stand: what has begun ends once, and nothing is left."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from lmtp_proto import State
from tests.adapters.conftest import LogLines
from tests.adapters.harness import Client, Connect, Start, wait_for
from tests.adapters.states import STANDINGS, Standing, Watched, listeners, settings


def _half_close(client: Client) -> None:
    """Without the leave of TLS; its own shutdown() would end the reading too."""
    socket.socket.shutdown(client.sock, socket.SHUT_WR)


_WAYS = {"RST": Client.reset, "FIN": Client.close, "half-close": _half_close}


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_every_state_in_which_a_client_may_be_there_is_one_of_them() -> None:
    states = {standing.state for standing in STANDINGS}
    assert states == {None, *State} - {State.CLOSED}


@pytest.mark.parametrize("way", _WAYS.values(), ids=_WAYS.keys())
@pytest.mark.parametrize("standing", STANDINGS, ids=lambda standing: standing.name)
def test_a_client_that_vanishes(
    runtime: str,
    start: Start,
    connect: Connect,
    logs: LogLines,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    standing: Standing,
    way: Callable[[Client], None],
) -> None:
    handler = Watched(runtime)
    server = start(handler, *listeners(tmp_path), settings=settings())
    other = connect(server.address).greeted()
    before = _descriptors()
    handler.stand(standing)
    client = connect(server.addresses[standing.door])
    standing.reach(client)
    if standing.held:
        wait_for(handler.asked)
    handler.stand(None)
    way(client)
    # By the time that the next client is served, the runtime has seen it.
    with Client(server.address) as following:
        following.greeted().deliver("z")
        following.expect(b"250 ")
        following.send(b"QUIT\r\n")
        following.expect(b"221 ")
    wait_for(handler.over)
    if standing.held:
        # A session ends behind what its handler has begun.
        assert len(handler.disconnected) == 1
        assert [sink.closed for sink in handler.sinks] == [0] * standing.sinks + [1]
    handler.go_on()
    if standing.held == "deliver":
        wait_for(handler.delivered)
        wait_for(handler.delivered)
    if way is _half_close:
        client.rest()
        client.close()
    if standing.state is not None:
        wait_for(handler.over)
    while _descriptors() > before:
        # Whatever the runtime still has to do, it does between two commands.
        other.send(b"NOOP\r\n")
        other.expect(b"250 ")
    server.stop()
    assert len(handler.connected) == 2 + (standing.state is not None)
    assert sorted(handler.disconnected) == sorted(handler.connected)
    assert [sink.closed for sink in handler.sinks] == [1] * (standing.sinks + 1)
    assert [line for line in logs.lines if line.startswith(("ERROR", "CRITICAL"))] == []
    assert capfd.readouterr().err == ""
