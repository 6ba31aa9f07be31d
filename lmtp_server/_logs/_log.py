"""The log of a process: its destinations, and which lines go to which.

The invariant: what cannot be opened is told before anything is started; after that, nothing about
the log ends or holds up the service.
"""

import logging
import sys
from dataclasses import dataclass, replace
from typing import Final, Literal

from ._destination import Destination
from ._file import LogFile, Stderr
from ._journal import Journal
from ._repeats import Repeats
from ._syslog import Syslog
from ._text import TIMESTAMP, JsonFormatter, PlainFormatter

_logger: Final = logging.getLogger("lmtp_server")

# What is ours; others' debugging is not wanted.
_LOGGERS: Final = ("lmtp_server", "lmtp_asyncio", "lmtp_blocking", "lmtp_gevent", "mailstore")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """Where log lines go. A path is that of a file, or `stderr`, `syslog` or `journal`."""

    path: str = "stderr"
    info_path: str = ""
    """For lines at info; empty for `path`."""
    debug_path: str = ""
    """For lines at debug; empty for that of info."""
    debug: bool = False
    """Whether there are lines at debug."""
    format: Literal["text", "json"] = "text"
    timestamp: str = TIMESTAMP
    syslog_facility: str = "mail"
    syslog_socket: str = "/dev/log"
    journal_socket: str = "/run/systemd/journal/socket"
    repeats: int = 100
    """Lines of a kind in ten seconds; 0 for any number."""


class LogError(Exception):
    """Destinations that cannot be opened; `faults` has a line for each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class Log:
    """The destinations that `options` name, opened; new files are made for `owner`, a UID and a
    GID. `tries`: whether a line is written to each file, to see that it can be. Raises LogError."""

    def __init__(
        self,
        options: LogOptions,
        owner: tuple[int, int] | None = None,
        *,
        tries: bool = True,
    ) -> None:
        self.options: Final = options
        """What it was made of."""
        self._owner = owner
        self._tries = tries
        self._opened: dict[str, Destination] = {}
        faults: list[str] = []
        info = options.info_path or options.path
        places = {"path": options.path, "info_path": info}
        if options.debug:
            places["debug_path"] = options.debug_path or info
        # Of several settings that name one destination, the first is told.
        keys: dict[str, str] = {}
        for key, path in places.items():
            keys.setdefault(path, key)
        for path, key in keys.items():
            try:
                self._opened[path] = self._open(path)
            except OSError as error:
                faults.append(f"log.{key}: cannot log to {path!r}: {error.strerror or error}")
        if faults:
            self.close()
            raise LogError(faults)
        self._router = _Router(
            [self._opened[path] for path in (*places.values(), *([info] * (3 - len(places))))],
            options.repeats,
        )

    def install(self) -> None:
        """Have all lines of this process go there."""
        # Nobody is told which line of the program has logged, nor from which thread: to find that
        # out costs more than the rest of a line.
        logging._srcfile = None
        logging.logThreads = logging.logMultiprocessing = False
        root = logging.getLogger()
        root.handlers = [self._router]
        root.setLevel(logging.INFO)
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(
                logging.DEBUG if self.options.debug else logging.NOTSET
            )

    def reopen(self) -> None:
        """Open all files anew, as after their rotation."""
        for path, destination in self._opened.items():
            try:
                destination.reopen()
            except OSError as error:
                _logger.error("cannot open the log %a anew: %s", path, error.strerror or error)

    def descriptors(self) -> list[int]:
        """The files and sockets that are open."""
        return [number for each in self._opened.values() for number in each.descriptors()]

    def tell(self) -> None:
        """Say what was suppressed so far."""
        self._router.repeats.tell()

    def close(self) -> None:
        """Close all of them."""
        for destination in self._opened.values():
            destination.close()

    def _open(self, path: str) -> Destination:
        options = self.options
        if path in ("syslog", "journal"):
            return self._connect(path)
        formatter: logging.Formatter = PlainFormatter(options.timestamp)
        if options.format == "json":
            formatter = JsonFormatter()
        if path == "stderr":
            return Stderr(formatter)
        file = LogFile(path, formatter, self._owner)
        if not self._tries:
            return file
        try:
            # A disk that is full shows with the first line only.
            file.write(_record("the log begins"))
        except BaseException:
            file.close()
            raise
        return file

    def _connect(self, path: str) -> Destination:
        options = self.options
        made: Syslog | Journal
        if path == "syslog":
            made = Syslog(options.syslog_socket, options.syslog_facility)
        else:
            made = Journal(options.journal_socket, options.syslog_facility)
        if made.fault:
            sys.stderr.write(f"lmtp-server: log: {made.fault}; lines are lost for now\n")
        return made


class Logs:
    """The log that a supervisor has, and that of a plan which is tried; see `Sockets`. New files
    are made for `owner`."""

    def __init__(self, owner: tuple[int, int] | None = None) -> None:
        self._owner = owner
        self._current: Log | None = None
        self._new: Log | None = None

    def open(self, options: LogOptions, faults: list[str]) -> Log | None:
        """The log for `options`: the one there is, or a new one. `adopt()` or `drop()` must follow.
        What is wrong gets a line in `faults`."""
        if self._current is not None and self._current.options == options:
            return self._current
        try:
            self._new = Log(options, self._owner)
        except LogError as error:
            faults += error.faults
        return self._new

    def adopt(self) -> None:
        """What was opened last is the log from now on."""
        if self._new is None:
            return
        before, self._current, self._new = self._current, self._new, None
        self._current.install()
        if before is not None:
            before.close()

    def drop(self) -> None:
        """What was opened last is not wanted."""
        if self._new is not None:
            self._new.close()
            self._new = None

    def reopen(self) -> None:
        """Open all files anew."""
        if self._current is not None:
            self._current.reopen()

    def descriptors(self) -> list[int]:
        """The files and sockets that are open."""
        return [] if self._current is None else self._current.descriptors()


class _Router(logging.Handler):
    """Hands each record to the destination for its level."""

    def __init__(self, destinations: list[Destination], repeats: int) -> None:
        super().__init__()
        self._main, self._info, self._debug = destinations
        self.repeats = Repeats(repeats, self._write)

    def emit(self, record: logging.LogRecord) -> None:
        if self.repeats.admit(record):
            self._write(record)

    def _write(self, record: logging.LogRecord) -> None:
        if record.levelno > logging.INFO:
            self._main.handle(record)
        elif record.levelno == logging.INFO:
            self._info.handle(record)
        else:
            self._debug.handle(record)


def _record(text: str) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"name": "lmtp_server", "levelno": logging.INFO, "levelname": "INFO", "msg": text}
    )


def configure() -> None:
    """Log to standard error, from INFO up, as the commands do that serve nobody."""
    Log(LogOptions(repeats=0)).install()


def configure_one_shot(options: LogOptions, owner: tuple[int, int] | None = None) -> None:
    """Log by `options`, to files of `owner`, as a program does that delivers one message.

    One that cannot log delivers nevertheless, and standard error, which is for whoever has called
    it, gets no lines of deliveries.
    """
    configure()
    try:
        Log(replace(options, repeats=0), owner, tries=False).install()
    except LogError as error:
        _logger.warning("%s", error)
        options = LogOptions()
    if (options.info_path or options.path) == "stderr":
        logging.getLogger("lmtp_server.deliveries").setLevel(logging.WARNING)
