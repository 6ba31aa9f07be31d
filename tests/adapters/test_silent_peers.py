"""Clients that fall silent, wherever they stand: they are told so where that is possible, and cut.

Who waits for the server is not silent, however long that takes.
"""

from pathlib import Path

from lmtp_proto import Limits
from tests.adapters.conftest import LogLines
from tests.adapters.harness import Client, Connect, Start, wait_for
from tests.adapters.states import PROXIED, STANDINGS, Door, Standing, Watched, listeners, settings

_LIMITS = Limits(command_timeout=1.0, content_timeout=1.0, handshake_timeout=1.0)


def _peer(standing: Standing, client: Client) -> str:
    """Name the client as the log does."""
    if standing.door is Door.PROXY and standing.state is not None:
        return PROXIED
    host, port = client.sock.getsockname()
    return f"{host}:{port}"


def test_all_of_them_at_once(
    runtime: str, start: Start, connect: Connect, logs: LogLines, tmp_path: Path
) -> None:
    handler = Watched(runtime)
    server = start(handler, *listeners(tmp_path), settings=settings(_LIMITS))
    waiting = []
    silent = []
    for standing in STANDINGS:
        handler.stand(standing)
        client = connect(server.addresses[standing.door])
        standing.reach(client)
        if standing.held:
            wait_for(handler.asked)
            waiting.append((standing, client))
        else:
            silent.append((standing, client, _peer(standing, client)))
    handler.stand(None)
    for standing, client, peer in silent:
        if standing.told:
            client.expect(b"421 4.4.2")
            client.expect_end()
            assert standing.state is not None
            logs.wait_for(f"{peer}: timed out: {standing.state.value}")
        else:
            # Nothing but what belongs to the handshake.
            assert b"4.4.2" not in client.rest()
            # The kernel may give a client's port to one more who goes to another listener.
            logs.wait_for(f"{peer}: ", ": the deadline has passed")
    # The time of these would be over as well, had the server waited for them.
    handler.go_on()
    for standing, client in waiting:
        client.expect(*standing.owed, b"421 4.4.2")
        client.expect_end()
