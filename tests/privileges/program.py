"""A server with a broker, put together from the parts.

It is given a file of settings in JSON, prints its process ids and its address in a line of JSON
once it accepts connections, and ends at SIGTERM.
"""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from lmtp_asyncio import Server
from lmtp_proto import Recipient, Reply, Settings
from lmtp_server._privileges import (
    AgentHandler,
    AgentOptions,
    AgentPool,
    BrokerOptions,
    Identity,
    Mode,
    Plan,
    Settled,
    UserMailbox,
    ValidIds,
    settle,
)
from mailstore import FolderOptions
from tests.privileges.directory import Directory


def locate(recipient: Recipient) -> UserMailbox | Reply | Callable[[], UserMailbox | Reply]:
    """Where mail for `user+mailbox` goes. `slow-user` takes a job to find."""
    name = recipient.address.local_part
    if name.startswith("slow-"):
        return partial(find, recipient, name.removeprefix("slow-"))
    return find(recipient, name)


def find(recipient: Recipient, name: str) -> UserMailbox | Reply:
    user, _, mailbox = name.partition("+")
    if user == "nobody":
        return Reply(550, f"<{recipient}> no such user", enhanced="5.1.1")
    if mailbox == "keyword":
        return UserMailbox(user=user, keywords=("urgent",))
    return UserMailbox(user=user, mailbox=mailbox or "INBOX", has_quota=user == "limited")


async def serve(listener: socket.socket, pool: AgentPool, spool: str) -> None:
    handler = AgentHandler(pool, locate, spool_directory=spool)
    server = Server(handler, settings=Settings(hostname="mx.example.org"))
    await server.start(listener)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await server.stop(5)
    await asyncio.to_thread(pool.close)


def start_worker(settled: Settled, listener: socket.socket, settings: dict[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            settled.confine()
            pool = settled.agents(**settings.get("pool", {}))
            asyncio.run(serve(listener, pool, settings["spool"]))
        finally:
            os._exit(0)
    return pid


def main(path: str) -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    settings = json.loads(Path(path).read_text())
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    agent = AgentOptions(
        hostname="mx.example.org",
        folders=FolderOptions(autocreate=True),
        **settings.get("agent", {}),
    )
    options = BrokerOptions(
        agent=agent,
        valid_ids=ValidIds(**settings.get("valid_ids", {})),
        **settings.get("broker", {}),
    )
    network = Identity(settings["network_uid"], settings["network_uid"])
    settled = settle(Plan(Mode.BROKER, network), lookup=Directory(path).lookup, options=options)
    broker = settled.broker
    assert broker is not None
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    workers = [start_worker(settled, listener, settings) for _ in range(settings["workers"])]
    said = {
        "supervisor": os.getpid(),
        "broker": broker.pid,
        "workers": workers,
        "address": f"127.0.0.1:{listener.getsockname()[1]}",
    }
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    signal.sigwait({signal.SIGTERM})
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
    for pid in workers:
        os.waitpid(pid, 0)
    broker.wait()


if __name__ == "__main__":
    main(sys.argv[1])
