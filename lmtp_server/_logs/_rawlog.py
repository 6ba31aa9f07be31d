"""Rawlogs: what is read and written on a connection, as Dovecot's `lmtp_rawlog_dir` has it.

For each connection `YYYYMMDD-HHMMSS.PID.NUMBER.in` and `.out`, without TLS; before each line the
seconds since 1970.

The invariant: a session goes on the same whether or not it is recorded: nothing waits for the disk,
and a rawlog that cannot be written ends. What a client authenticates with is in none.
"""

import itertools
import os
import re
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from lmtp_proto import Effect, Receive, Send, Session

from ._rawlog_writer import RawlogFile, RawlogWriter

_AUTH: Final = re.compile(rb"^[ \t]*AUTH(?:[ \t\r\n]|$)", re.IGNORECASE | re.MULTILINE)
_LEFT_OUT: Final = b"AUTH <left out>\r\n"
_RCPT: Final = re.compile(
    rb"^[ \t]*RCPT[ \t]+TO:[ \t]*<?(?:@[^:>\r\n]*:)?([^>\r\n]*)", re.IGNORECASE | re.MULTILINE
)
_END: Final = b"\r\n.\r\n"
# What is kept of a session of which nobody knows yet whether it is to be recorded (octets).
_KEPT: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RawlogOptions:
    """Where rawlogs go, and of which sessions; without networks and users, of all."""

    directory: str
    """Nothing is recorded where there is none, or where nobody may write."""
    networks: Sequence[IPv4Network | IPv6Network] = ()
    """Clients whose sessions are recorded."""
    users: frozenset[str] = frozenset()
    """Users, with or without their domain, in lower case: sessions with mail for one of them are
    recorded from their beginning, or as much of that as is still known."""
    delimiters: str = ""
    """Each of them ends the user's name in a local part."""


class Rawlogs:
    """The rawlogs of one worker."""

    def __init__(self, options: RawlogOptions) -> None:
        self._options = options
        self._numbers = itertools.count(1)
        self._writer = RawlogWriter()

    def around(
        self, session: Session, conversation: Generator[Effect, None, None]
    ) -> Generator[Effect, None, None]:
        """The conversation, recorded if it is to be."""
        options = self._options
        wanted = not (options.networks or options.users) or self._is_from_networks(session)
        if not wanted and not options.users:
            return conversation
        return self._recorded(conversation, wanted)

    def close(self) -> None:
        """Write what is still to be written, as far as the disk lets it."""
        self._writer.close()

    def _is_from_networks(self, session: Session) -> bool:
        if session.client_ip is None or not self._options.networks:
            return False
        address = ip_address(session.client_ip)
        return any(address in network for network in self._options.networks)

    def _recorded(
        self, conversation: Generator[Effect, None, None], wanted: bool
    ) -> Generator[Effect, None, None]:
        recorder = _Recorder(self._writer, self._path(), self._options, wanted)
        try:
            for effect in conversation:
                if isinstance(effect, Send):
                    recorder.sent(effect.data)
                yield effect
                if isinstance(effect, Receive) and isinstance(effect.outcome, bytes):
                    recorder.received(effect.outcome)
        finally:
            conversation.close()
            recorder.close()

    def _path(self) -> str:
        when = time.strftime("%Y%m%d-%H%M%S")
        name = f"{when}.{os.getpid()}.{next(self._numbers)}"
        return os.path.join(self._options.directory, name)


class _Recorder:
    """The two files of one session."""

    __slots__ = ("_auth", "_options", "_read", "_wanted", "_written")

    def __init__(
        self, writer: RawlogWriter, path: str, options: RawlogOptions, wanted: bool
    ) -> None:
        self._options = options
        self._wanted = wanted
        self._read = _Stamped(writer.file(f"{path}.in"))
        self._written = _Stamped(writer.file(f"{path}.out"))
        self._auth = _WithoutSecrets()

    def received(self, data: bytes) -> None:
        """Octets were read."""
        data = self._auth.received(data)
        self._read.add(data)
        if not self._wanted and self._names_user(data):
            self._wanted = True
        self._hand_on()

    def sent(self, data: bytes) -> None:
        """Octets are about to be written."""
        self._auth.sent(data)
        self._written.add(data)
        self._hand_on()

    def close(self) -> None:
        """The session is over."""
        self._read.add(self._auth.rest())
        self._hand_on()
        self._read.file.close()
        self._written.file.close()

    def _hand_on(self) -> None:
        for each in (self._read, self._written):
            if self._wanted:
                each.write()
            elif len(each.octets) > _KEPT:
                each.forget()

    def _names_user(self, data: bytes) -> bool:
        for match in _RCPT.finditer(data):
            address = match[1].decode("utf-8", "replace").strip().lower()
            local, _, domain = address.rpartition("@") if "@" in address else (address, "", "")
            for delimiter in self._options.delimiters:
                local = local.partition(delimiter)[0]
            if not self._options.users.isdisjoint((address, local, f"{local}@{domain}")):
                return True
        return False


class _Stamped:
    """What is to be written to one file, with the time in front of each line."""

    __slots__ = ("_at_start", "file", "octets")

    def __init__(self, file: RawlogFile) -> None:
        self.file = file
        self.octets = bytearray()
        self._at_start = True

    def add(self, data: bytes) -> None:
        if not data:
            return
        stamp = b"%.6f " % time.time()
        if self._at_start:
            self.octets += stamp
        self.octets += data[:-1].replace(b"\n", b"\n" + stamp) + data[-1:]
        self._at_start = data.endswith(b"\n")

    def write(self) -> None:
        if self.octets:
            self.file.write(bytes(self.octets))
            self.octets.clear()

    def forget(self) -> None:
        self.octets = bytearray(b"%.6f <%d octets left out>\n" % (time.time(), len(self.octets)))
        self._at_start = True


class _WithoutSecrets:
    """Takes AUTH and the responses to its challenges out of what was read.

    Whatever follows AUTH up to the server's answer is one of them: nothing may be sent behind it
    (RFC 4954 4). What it cannot tell from a secret it takes out, too.
    """

    __slots__ = ("_content", "_held", "_secret", "_tail")

    def __init__(self) -> None:
        self._secret = False
        # Amid the content of DATA, where lines are no commands.
        self._content = False
        self._tail = b""
        # The beginning of a line that may become AUTH.
        self._held = b""

    def received(self, data: bytes) -> bytes:
        """As much of `data` as may be written down now."""
        if self._secret:
            return b""
        if not self._content:
            return self._commands(data)
        joined = self._tail + data
        end = joined.find(_END)
        if end < 0:
            self._tail = joined[1 - len(_END) :]
            return data
        self._content = False
        behind = len(joined) - end - len(_END)
        return data[: len(data) - behind] + self._commands(data[len(data) - behind :])

    def sent(self, data: bytes) -> None:
        """The server has answered."""
        last = data[data.rfind(b"\n", 0, -1) + 1 :]
        self._secret = last.startswith(b"334")
        self._content = last.startswith(b"354")
        # Content begins behind a line end.
        self._tail = b"\r\n"

    def rest(self) -> bytes:
        """What was held back, once nothing more comes."""
        held, self._held = self._held, b""
        return held

    def _commands(self, data: bytes) -> bytes:
        data = self._held + data
        self._held = b""
        match = _AUTH.search(data)
        if match is not None:
            self._secret = True
            return data[: match.start()] + _LEFT_OUT
        line = data[data.rfind(b"\n") + 1 :]
        if line and b"AUTH".startswith(line.strip().upper()) and len(line) < _KEPT:
            self._held = line
            return data[: len(data) - len(line)]
        return data
