"""Writes rawlogs in a thread of its own, so that no session waits for the disk.

The invariant: what waits to be written is bounded; a file that fails, or that is too slow, gets
nothing more, and one line in the log says so.
"""

import errno
import logging
import os
import threading
from collections import deque
from typing import Final

_logger: Final = logging.getLogger("lmtp_server")

_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Octets of all sessions that may wait.
_MOST: Final = 4 << 20
# Seconds that a worker that ends waits for the disk.
_PATIENCE: Final = 2.0
# Where there is no directory, or none for this process, nobody wants rawlogs now.
_NOT_WANTED: Final = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS}


class RawlogFile:
    """One file; made with the first octets."""

    __slots__ = ("_writer", "descriptor", "failed", "path")

    def __init__(self, writer: "RawlogWriter", path: str) -> None:
        self._writer = writer
        self.path = path
        self.descriptor = -1
        self.failed = False

    def write(self, data: bytes) -> None:
        """Have `data` appended, soon."""
        if not self.failed:
            self._writer.put(self, data)

    def close(self) -> None:
        """Nothing more comes."""
        self._writer.put(self, None)


class RawlogWriter:
    """The thread; it is started with the first file."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[RawlogFile, bytes | None]] = deque()
        self._size = 0
        self._closed = False
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None

    def file(self, path: str) -> RawlogFile:
        """A file to write to."""
        return RawlogFile(self, path)

    def put(self, file: RawlogFile, data: bytes | None) -> None:
        """Have `data` written; None closes the file."""
        with self._change:
            if data is not None:
                if self._size + len(data) > _MOST:
                    self._fail(file, "the disk is too slow")
                    return
                self._size += len(data)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="rawlogs", daemon=True)
                self._thread.start()
            self._waiting.append((file, data))
            self._change.notify()

    def close(self) -> None:
        """Write what waits, as far as the disk lets it soon."""
        with self._change:
            self._closed = True
            thread = self._thread
            self._change.notify()
        if thread is not None:
            thread.join(_PATIENCE)

    def _run(self) -> None:
        while True:
            with self._change:
                while not self._waiting and not self._closed:
                    self._change.wait()
                if not self._waiting:
                    return
                file, data = self._waiting.popleft()
                self._size -= len(data or b"")
            try:
                self._write(file, data)
            except OSError as error:
                if file.descriptor < 0 and error.errno in _NOT_WANTED:
                    file.failed = True
                else:
                    self._fail(file, error.strerror or str(error))

    def _write(self, file: RawlogFile, data: bytes | None) -> None:
        if data is None:
            if file.descriptor >= 0:
                os.close(file.descriptor)
                file.descriptor = -1
            file.failed = True
            return
        if file.failed:
            return
        if file.descriptor < 0:
            file.descriptor = os.open(file.path, _FLAGS, 0o600)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file.descriptor, rest) :]

    def _fail(self, file: RawlogFile, why: str) -> None:
        if not file.failed:
            file.failed = True
            _logger.warning("the rawlog %a ends: %s", file.path, why)
