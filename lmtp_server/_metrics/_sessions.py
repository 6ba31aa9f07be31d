"""Who is there: collects what the workers tell of their sessions.

The invariant: what is given is complete, or says of which workers it is not.
"""

import asyncio
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

from ._area import LEAVING, SERVING, Area

# Seconds that workers are waited for: they answer with their next sign of life, every second.
_PATIENCE: Final = 3.0
_DATAGRAM: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class _Told:
    """What a worker has told: its answer to which question, how many sessions, and those so far."""

    asked: int
    of: int
    sessions: list[dict[str, Any]]


class Sessions:
    """Asks by `area`, and hears from `channel`. In an event loop."""

    def __init__(self, area: Area, channel: socket.socket) -> None:
        self._area = area
        self._channel = channel
        # By question and place.
        self._told: dict[int, dict[int, _Told]] = {}
        self._change = asyncio.Event()
        channel.setblocking(False)
        asyncio.get_running_loop().add_reader(channel.fileno(), self._hear)

    def _hear(self) -> None:
        while True:
            try:
                told = json.loads(self._channel.recv(_DATAGRAM))
            except (OSError, ValueError):
                break
            # Of several questions a worker may have seen the last alone: it answers all before.
            for asked, answers in self._told.items():
                if asked <= told["asked"]:
                    heard = answers.get(told["place"])
                    if heard is None or heard.asked != told["asked"]:
                        heard = answers[told["place"]] = _Told(told["asked"], told["of"], [])
                    heard.sessions.extend(told["sessions"])
        change, self._change = self._change, asyncio.Event()
        change.set()

    async def who(self) -> dict[str, Any]:
        """The sessions, each with its worker's process id, and the workers that did not answer."""
        asked = self._area.ask()
        answers = self._told.setdefault(asked, {})
        try:
            async with asyncio.timeout(_PATIENCE):
                while self._missing(answers):
                    await self._change.wait()
        except TimeoutError:
            pass
        finally:
            del self._told[asked]
        pids = {each.place: each.pid for each in self._area.workers()}
        sessions = [
            {"worker": pids[place], **session}
            for place, told in sorted(answers.items(), key=itemgetter(0))
            if place in pids
            for session in told.sessions
        ]
        return {"sessions": sessions, "silent": self._missing(answers)}

    def _missing(self, answers: Mapping[int, _Told]) -> list[int]:
        """The process ids of workers that have not told all."""
        missing = []
        for each in self._area.workers():
            told = answers.get(each.place)
            is_complete = told is not None and len(told.sessions) >= told.of
            if each.state in (SERVING, LEAVING) and not is_complete:
                missing.append(each.pid)
        return missing
