"""A broker whose channels are at hand: what a worker could send it that somebody has taken over.

It is given a file of settings in JSON. Each line of standard input is a JSON object that names a
channel, `on`, and says what to send there: `text`, or for an agent `fields`, with so many
`descriptors`. The answer is a line of JSON with what came back, `text` or `fields`, `null` at the
channel's end. A channel to an agent gets the name `agent NUMBER`; what it wants logged is left out.
"""

import array
import json
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

from lmtp_server._privileges import (
    AgentOptions,
    BrokerOptions,
    BrokerProcess,
    Identity,
    ValidIds,
    drop,
    start_broker,
)
from lmtp_server._privileges._packets import encode
from tests.privileges.directory import Directory

_PATIENCE = 20.0


def answer(
    broker: BrokerProcess, channels: dict[str, socket.socket], order: dict[str, Any]
) -> dict[str, object]:
    name = order["on"]
    if name not in channels:
        channels[name] = broker.channel()
        channels[name].settimeout(_PATIENCE)
    channel = channels[name]
    control = []
    devices = [os.open(os.devnull, os.O_RDONLY) for _ in range(order.get("descriptors", 0))]
    if devices:
        rights = array.array("i", devices).tobytes()
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
    packets = [order["text"].encode("latin-1")] if "text" in order else []
    if "fields" in order:
        packets = [encode(order["fields"], order.get("octets", "").encode("latin-1"))]
    try:
        for packet in packets * order.get("times", 1):
            channel.sendmsg([packet], control, socket.MSG_NOSIGNAL)
        if order.get("silent"):
            return {}
        text, descriptors, _, _ = socket.recv_fds(channel, 65536, 4)
        while name.startswith("agent ") and text[4:].startswith(b'{"log"'):
            text, descriptors, _, _ = socket.recv_fds(channel, 65536, 4)
    except (BrokenPipeError, ConnectionResetError):
        text, descriptors = b"", []
    finally:
        for device in devices:
            os.close(device)
    if descriptors:
        agent = socket.socket(fileno=descriptors[0])
        agent.settimeout(_PATIENCE)
        channels[text.decode()] = agent
    if name.startswith("agent "):
        return {"fields": json.loads(text[4:]) if text else None}
    return {"text": text.decode("latin-1") or None}


def main(path: str) -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    settings = json.loads(Path(path).read_text())
    options = BrokerOptions(
        agent=AgentOptions(hostname="mx.example.org"),
        valid_ids=ValidIds(**settings.get("valid_ids", {})),
        **settings.get("broker", {}),
    )
    broker = start_broker(Directory(path).lookup, options)
    drop(Identity(settings["network_uid"], settings["network_uid"]))
    channels: dict[str, socket.socket] = {}
    sys.stdout.write(json.dumps({"broker": broker.pid}) + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(broker, channels, json.loads(line))) + "\n")
        sys.stdout.flush()
    for channel in channels.values():
        channel.close()
    broker.wait()


if __name__ == "__main__":
    main(sys.argv[1])
