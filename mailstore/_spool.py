"""The spool: one message on its way from the wire to the mailboxes.

The invariant: memory is bounded by the threshold, a block and one write, whatever the size of the
message, and what is stored does not depend on how the octets were cut into writes.
"""

import enum
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from ._files import SharedFile, copy_all, write_all
from ._header import (
    HeaderFields,
    address_in,
    fields_in,
    header_length,
    hops_in,
    without_return_path,
)
from ._in_place import InPlace
from ._line_ends import crlf_to_lf
from ._sync import start_writeback
from ._unnamed import unnamed_file

# What is written to the file at a time: small enough to hold for each connection, large enough
# that handing it to a thread costs little.
_BLOCK: Final = 256 * 1024
# It is held in pieces, of that and what one write brings: malloc(3) takes what is larger than 128
# KiB from the system anew each time, page by page.
_PIECE: Final = 32 * 1024
# How much of a file that will be a copy is to be on its way to the disk at a time: enough for the
# file system to keep it together.
_STRETCH: Final = 4 << 20


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
    octets. Fields Received are counted in so many octets of a header that is longer; `reads_fields`
    has `fields` read there, too.

    `head` says what is to stand in front of the first copy that is made; it is given
    `field_address`. A file that begins so may become that copy as it is, or shares its blocks with
    those whose heads are equally long. `in_place` opens one that can; without `head` or where it
    gives None, the file is in `directory`.

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
        "_head",
        "_head_of",
        "_in_place",
        "_limit",
        "_line_ending",
        "_open_in_place",
        "_pieces",
        "_reads_fields",
        "_started",
        "_threshold",
        "_waiting",
        "field_address",
        "fields",
        "hops",
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
        reads_fields: bool = False,
        head: Callable[[str | None], bytes] | None = None,
        in_place: Callable[[], InPlace | None] | None = None,
    ) -> None:
        self._directory = directory
        self._head_of = head
        self._head = b""
        self._open_in_place = in_place
        self._in_place: InPlace | None = None
        # How much of the file is on its way to the disk.
        self._started = 0
        self._drop_return_path = drop_return_path
        self._field = field
        self._reads_fields = reads_fields
        self._threshold = threshold
        self._line_ending = line_ending
        # What waits to be written: so many octets in pieces, and those behind them.
        self._pieces: list[bytearray] = []
        self._waiting = 0
        self._buffer = bytearray()
        # How many octets wait before a job takes them.
        self._limit = threshold
        self._file: SharedFile | None = None
        self._file_size = 0
        self._begun = False
        self._after_cr = False
        self.field_address: str | None = None
        self.fields = HeaderFields()
        """After `finish`: what the header says, if it is to be read."""
        self.hops = 0
        """After `finish`: how many fields Received the content brings along."""
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
        is_block = self._waiting + len(buffer) > self._limit
        if not is_block and len(buffer) <= _PIECE:
            return None
        # The LF of a CRLF may be in the next write.
        self._buffer = bytearray()
        if buffer.endswith(b"\r"):
            del buffer[-1:]
            self._buffer += b"\r"
        self._pieces.append(buffer)
        self._waiting += len(buffer)
        if not is_block:
            return None
        pieces = self._take_pieces()
        if self._file is None:
            self._file = SharedFile()
            self._limit = _BLOCK
        return partial(self._write_block, self._file, pieces)

    def finish(self) -> None:
        """The content is complete: `rest`, `size` and `virtual_size` have their final values."""
        if self._pieces:
            self._buffer = bytearray(b"").join([*self._take_pieces(), self._buffer])
        if self._buffer:
            self.rest = bytes(self._convert(self._buffer, complete=self._file is None))
            self._buffer = bytearray()

    def copy_to(self, descriptor: int) -> None:
        """Append the finished message to what was written to `descriptor`. Blocks; OSError."""
        # Taken before the file: once that is in use, `close` no longer matters.
        rest = self.rest
        if self._file is not None:
            with self._file.use() as source:
                copy_all(source, descriptor, self._file_size, offset=len(self._head))
        if rest:
            write_all(descriptor, rest)

    def may_become(self, header: bytes) -> InPlace | None:
        """Where the file lies that may become a copy with the octets `header` in front, if any."""
        return self._in_place if header == self._head else None

    @contextmanager
    def completed(self) -> Iterator[int]:
        """The file, with all of the finished message: a copy. To be used once. Blocks; OSError."""
        rest = self.rest
        assert self._file is not None
        with self._file.use() as descriptor:
            if rest:
                write_all(descriptor, rest)
            if os.fstat(descriptor).st_size != len(self._head) + self._file_size + len(rest):
                raise OSError(errno.EIO, "the spooled message is not as long as what was written")
            yield descriptor

    def close(self) -> None:
        """Free memory and file. A job that still runs ends by itself."""
        self._take_pieces()
        self._buffer = bytearray()
        self.rest = b""
        if self._file is not None:
            self._file.close()

    def _take_pieces(self) -> list[bytearray]:
        pieces, self._pieces = self._pieces, []
        self._waiting = 0
        return pieces

    def _write_block(self, file: SharedFile, pieces: list[bytearray]) -> None:
        is_first = not self._begun
        if is_first:
            # The header may be in several.
            pieces = [bytearray(b"").join(pieces)]
        stored = [self._convert(piece, complete=False) for piece in pieces]
        if is_first:
            file.adopt(self._open())
        with file.use() as descriptor:
            write_all(descriptor, *((self._head, *stored) if is_first else stored))
            self._file_size += sum(map(len, stored))
            if self._in_place is not None and self._in_place.durable:
                self._start_writeback(descriptor)

    def _open(self) -> int:
        """Open the file, and decide what it begins with."""
        if self._head_of is not None:
            self._head = self._head_of(self.field_address)
            if self._open_in_place is not None:
                self._in_place = self._open_in_place()
                if self._in_place is not None:
                    return self._in_place.descriptor
        return unnamed_file(self._directory)

    def _start_writeback(self, descriptor: int) -> None:
        """Have the disk work while the message comes in: little is left to be waited for then."""
        length = len(self._head) + self._file_size - self._started
        if length >= _STRETCH:
            start_writeback(descriptor, self._started, length)
            self._started += length

    def _convert(self, block: bytearray, *, complete: bool) -> bytearray:
        """The octets to store for the next block, counted. `complete`: it is the whole message."""
        if not self._begun:
            self._begun = True
            block = self._take_header(block, complete=complete)
        changed = crlf_to_lf(block)
        stored = block
        if self._line_ending is LineEnding.LF:
            stored = block.replace(b"\r\n", b"\n") if changed is None else changed
        if changed is not None:
            self.virtual_size += len(block)
        else:
            self.virtual_size += len(stored) + stored.count(b"\n") - stored.count(b"\r\n")
        if self._after_cr and stored.startswith(b"\n"):
            self.virtual_size -= 1
        self._after_cr = stored.endswith(b"\r")
        return stored

    def _take_header(self, block: bytearray, *, complete: bool) -> bytearray:
        # The first block holds more than the threshold or is the whole message, so the answer is
        # the same however the content was cut into writes.
        end = header_length(block, self._threshold, complete=complete)
        header = bytes(block[:end])
        read: bytes | bytearray = header
        if not end and not block.startswith((b"\r\n", b"\n")):
            read = block[: self._threshold]
        self.hops = hops_in(read)
        if self._reads_fields:
            self.fields = fields_in(read)
        if self._field:
            self.field_address = address_in(header, self._field)
        kept = without_return_path(header) if self._drop_return_path else header
        return block if kept is header else bytearray(kept) + block[end:]
