"""The spool: one message on its way from the wire to the mailboxes.

The invariant: memory is bounded by the threshold, a block and one write, whatever the size of the
message, and what is stored does not depend on how the octets were cut into writes.
"""

import enum
from collections.abc import Callable
from functools import partial
from typing import Final

from ._files import SharedFile, copy_all, write_all
from ._header import address_in, header_length, without_return_path

# What is written to the file at a time: small enough to hold for each connection, large enough
# that handing it to a thread costs little.
_BLOCK: Final = 256 * 1024


class LineEnding(enum.StrEnum):
    """How lines end on disk."""

    LF = "lf"
    """CRLF becomes LF, as Unix programs expect it; a bare CR or LF stays what it is."""
    CRLF = "crlf"
    """The octets stay as they came."""


class Spool:
    """Takes the content of one message and keeps it until it is stored.

    A message of at most `threshold` octets stays in memory; a larger one goes to an unnamed file
    in `directory`. Lines end on disk as `line_ending` says.

    With `drop_return_path`, Return-Path fields that the content brings along are left out, because
    final delivery writes its own (RFC 5321 4.4). The address in the first header field `field`, if
    one is named, becomes `field_address`. Both only if the header ends within the first `threshold`
    octets.

    `write` and `finish` are called by one thread at a time; `copy_to` may run in several.
    """

    __slots__ = (
        "_after_cr",
        "_begun",
        "_buffer",
        "_directory",
        "_drop_return_path",
        "_field",
        "_file",
        "_file_size",
        "_limit",
        "_line_ending",
        "_threshold",
        "field_address",
        "rest",
        "virtual_size",
    )

    def __init__(
        self,
        directory: str,
        *,
        threshold: int = 128 * 1024,
        line_ending: LineEnding = LineEnding.LF,
        drop_return_path: bool = True,
        field: str = "",
    ) -> None:
        self._directory = directory
        self._drop_return_path = drop_return_path
        self._field = field
        self._threshold = threshold
        self._line_ending = line_ending
        self._buffer = bytearray()
        # How many octets the buffer holds before a job takes them.
        self._limit = threshold
        self._file: SharedFile | None = None
        self._file_size = 0
        self._begun = False
        self._after_cr = False
        self.field_address: str | None = None
        self.rest = b""
        """After `finish`: the octets to store that are not in the file; all of a small message."""
        self.virtual_size = 0
        """Octets to store, counted with every line end as CRLF (`W=` of a Maildir name)."""

    @property
    def size(self) -> int:
        """Octets to store (`S=` of a Maildir name)."""
        return self._file_size + len(self.rest)

    @property
    def in_memory(self) -> bool:
        """Whether no file was needed: `rest` is the whole message."""
        return self._file is None

    def write(self, data: bytes) -> Callable[[], None] | None:
        """Take the next octets, with CRLF line ends.

        None says that they are in memory. Else the answer is a job that writes to the file and may
        block: run it, in any thread, before the next call. The job raises OSError.
        """
        buffer = self._buffer
        buffer += data
        if len(buffer) <= self._limit:
            return None
        # The LF of a CRLF may be in the next write.
        self._buffer = bytearray()
        if buffer.endswith(b"\r"):
            del buffer[-1:]
            self._buffer += b"\r"
        if self._file is None:
            self._file = SharedFile(self._directory)
            self._limit = _BLOCK
        return partial(self._write_block, self._file, buffer)

    def finish(self) -> None:
        """The content is complete: `rest`, `size` and `virtual_size` have their final values."""
        if self._buffer:
            self.rest = bytes(self._convert(self._buffer, complete=self._file is None))
            self._buffer = bytearray()

    def copy_to(self, descriptor: int) -> None:
        """Append the finished message to what was written to `descriptor`. Blocks; OSError."""
        # Taken before the file: once that is in use, `close` no longer matters.
        rest = self.rest
        if self._file is not None:
            with self._file.use() as source:
                copy_all(source, descriptor, self._file_size)
        write_all(descriptor, rest)

    def close(self) -> None:
        """Free memory and file. A job that still runs ends by itself."""
        self._buffer = bytearray()
        self.rest = b""
        if self._file is not None:
            self._file.close()

    def _write_block(self, file: SharedFile, block: bytearray) -> None:
        stored = self._convert(block, complete=False)
        with file.use() as descriptor:
            write_all(descriptor, stored)
        self._file_size += len(stored)

    def _convert(self, block: bytearray, *, complete: bool) -> bytearray:
        """The octets to store for the next block, counted. `complete`: it is the whole message."""
        if not self._begun:
            self._begun = True
            block = self._take_header(block, complete=complete)
        stored = block
        if self._line_ending is LineEnding.LF:
            pairs = stored.count(b"\r\n")
            # Deleting an octet is several times faster than replacing two by one.
            stored = stored.replace(b"\r", b"")
            if len(stored) + pairs != len(block):
                # There are bare CRs, which stay.
                stored = block.replace(b"\r\n", b"\n")
        short_ends = stored.count(b"\n")
        if self._after_cr and stored.startswith(b"\n"):
            short_ends -= 1
        # Searching for one octet is some ten times faster than for two, and mostly finds none.
        if b"\r" in stored:
            short_ends -= stored.count(b"\r\n")
        self._after_cr = stored.endswith(b"\r")
        self.virtual_size += len(stored) + short_ends
        return stored

    def _take_header(self, block: bytearray, *, complete: bool) -> bytearray:
        # The first block holds more than the threshold or is the whole message, so the answer is
        # the same however the content was cut into writes.
        end = header_length(block, self._threshold, complete=complete)
        header = bytes(block[:end])
        if self._field:
            self.field_address = address_in(header, self._field)
        kept = without_return_path(header) if self._drop_return_path else header
        return block if kept is header else bytearray(kept) + block[end:]
