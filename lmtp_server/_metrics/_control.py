"""The control socket: a word is asked, one line of JSON is answered.

The invariant: who may write to the socket's file may ask; nothing can be changed here.
"""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

from ._clients import Clients
from ._families import Family

_WORD: Final = 64

Answers = dict[str, Callable[[], Awaitable[dict[str, Any]]]]


class ControlServer:
    """Answers by `answers`."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self.clients = Clients(self._answer, limit=_WORD)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            word = (await reader.readuntil(b"\n")).decode("latin-1").strip()
        except (asyncio.LimitOverrunError, asyncio.IncompleteReadError):
            return
        answer = self._answers.get(word)
        said = {"fault": f"there is no {word!r}"} if answer is None else await answer()
        writer.write(json.dumps(said).encode() + b"\n")


def describe(families: list[Family]) -> list[dict[str, Any]]:
    """Metrics as JSON has them."""
    return [
        {
            "name": each.metric.name,
            "kind": each.metric.kind,
            "unit": each.metric.unit,
            **(
                {"sum": each.sum, "count": each.buckets[-1][1], "buckets": each.buckets[:-1]}
                if each.metric.kind == "histogram"
                else {"samples": [{"labels": s.labels, "value": s.value} for s in each.samples]}
            ),
        }
        for each in families
    ]


def ask(path: str, word: str, *, timeout: float) -> dict[str, Any]:
    """What the service answers at the socket `path`. Raises OSError, and ValueError for what is no
    answer."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout)
        sock.connect(path)
        sock.sendall(word.encode() + b"\n")
        sock.shutdown(socket.SHUT_WR)
        with sock.makefile("rb") as lines:
            line = lines.readline()
    answer = json.loads(line)
    if not isinstance(answer, dict) or "fault" in answer:
        raise ValueError(str(answer))
    return answer
