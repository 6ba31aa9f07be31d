"""Replays the dialogues to a server and notes the codes of its replies, turn by turn.

That a server says no more is known only by waiting. So how many replies to await in each turn comes
from the caller: where that number is right, nothing depends on time. Where it is wrong, replies too
many are found in the turns behind or at the end, and for those too few the wait is bounded.
"""

import re
import select
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from tests.dialogs.transcript import Dialog, Turn

Codes = tuple[int, ...]
"""The codes of the replies to one turn; a reply of many lines has one."""

# Seconds that a reply is waited for when the patience is gone.
_LEAST_PATIENCE: Final = 0.2
_SHOWN: Final = 60
_MAIL: Final = re.compile(rb"MAIL [^\r\n]*\r\n", re.IGNORECASE)
_LINE: Final = re.compile(rb"(?:([0-9]{3})([ -]?))?[^\n]*\n")
_NAMED: Final = {"\r": "\\r", "\n": "\\n", "\t": "\\t", "\\": "\\\\"}


def awaited(turn: Turn) -> int:
    """How many replies a dialogue says that a turn has."""
    return sum(not line.text[3:].startswith(b"-") for line in turn.expected)


def name(number: int, turn: Turn) -> str:
    """Name a turn: its number in the dialogue, from 1, and what is sent, `⏎` between its lines."""
    if not turn.sent:
        return f"{number}: ({'end' if turn.half_close else 'connect'})"
    lines = turn.sent.removesuffix(b"\r\n").split(b"\r\n")
    text = " ⏎ ".join(_escaped(line.decode("utf-8", "backslashreplace")) for line in lines)
    return f"{number}: {text if len(text) <= _SHOWN else text[:_SHOWN] + '...'}"


def _escaped(text: str) -> str:
    return "".join(
        _NAMED.get(character)
        or (character if character.isprintable() else f"\\x{ord(character):02x}")
        for character in text
    )


class _Peer:
    """A connection to a server."""

    def __init__(self, address: str, patience: float) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=patience)
        self._patience = patience
        self._input = b""
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def send(self, octets: bytes) -> None:
        """Write, as far as the server takes it: what it said before it went is still to be read."""
        try:
            self._socket.sendall(octets)
        except OSError:
            pass

    def half_close(self) -> None:
        """Send no more."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def replies(self, count: int, quiet: float) -> list[int]:
        """The codes of `count` replies, and of those behind them until `quiet` seconds pass."""
        codes = self._taken()
        while not self._closed:
            lacking = len(codes) < count
            if not self._readable(self._patience if lacking else quiet):
                if lacking:
                    self._patience = min(self._patience, _LEAST_PATIENCE)
                break
            self._receive()
            codes += self._taken()
        return codes

    def rest(self) -> list[int]:
        """The codes until the server closes."""
        codes = self._taken()
        while not self._closed and self._readable(self._patience):
            self._receive()
            codes += self._taken()
        return codes

    def _readable(self, seconds: float) -> bool:
        # select() takes no descriptor beyond 1023.
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def _receive(self) -> None:
        try:
            octets = self._socket.recv(65_536)
        except ConnectionError:
            octets = b""
        self._input += octets
        self._closed = not octets

    def _taken(self) -> list[int]:
        codes = []
        end = 0
        for match in _LINE.finditer(self._input):
            end = match.end()
            if match[2] != b"-":
                # A line that is no reply counts as one that no server gives.
                codes.append(int(match[1] or 0))
        self._input = self._input[end:]
        return codes


def replay(
    address: str,
    dialog: Dialog,
    counts: Sequence[int],
    *,
    reference: Sequence[Codes] | None = None,
    quiet: float = 0.0,
    patience: float = 5.0,
) -> list[Codes]:
    """Hold a dialogue with a server and return the codes it gives in each turn.

    Args:
        address: Where it listens: HOST:PORT.
        dialog: What to say to it.
        counts: How many replies to await in each turn.
        reference: What another server has answered in each turn. A MAIL that it refused and that
            this one accepts would put the two out of step for the rest of the dialogue: RSET, whose
            reply does not count, brings this one back.
        quiet: Seconds of silence that end a turn whose replies have come.
        patience: Seconds to wait for a reply; once one has not come, others are hardly waited for.

    Raises OSError when there is no connection to be had.
    """
    said: list[Codes] = []
    with _Peer(address, patience) as peer:
        for number, turn in enumerate(dialog.turns):
            peer.send(turn.sent)
            if turn.half_close:
                peer.half_close()
            codes = peer.replies(counts[number], quiet)
            if turn is dialog.turns[-1]:
                peer.half_close()
                codes += peer.rest()
            said.append(tuple(codes))
            if reference is None or codes != [250] or not _MAIL.fullmatch(turn.sent):
                continue
            if reference[number] != (250,):
                peer.send(b"RSET\r\n")
                peer.replies(1, quiet)
    return said
