"""One file for identical copies of a message.

The invariant: a copy is a link only to a file whose content is durable, and only in a Maildir in
which a file of its own would have the same owner, group and mode, and nobody but the owner could
write to it. Everywhere else it is a file of its own.
"""

import errno
import os
import threading

from ._files import SharedFile
from ._maildir import Maildir
from ._unnamed import NoLinkError, link_open_file


class Original:
    """The first copy of a message with the octets `header` in front; others are links to it.

    Who writes it and finds that it failed withdraws it. Several threads may use one.
    """

    __slots__ = ("_closed", "_file", "_sharing", "header", "writing")

    def __init__(self, header: bytes) -> None:
        self.header = header
        self.writing = threading.Lock()
        """To be held by who writes a copy of a large message: the others wait for it to be there,
        which is less to do than what they would do instead.
        """
        self._file: SharedFile | None = None
        self._sharing: object = None
        self._closed = False

    def offer(self, descriptor: int, maildir: Maildir) -> bool:
        """Whether the copy that is open as `descriptor`, in `maildir`, is now the original.

        Its content has to be durable before anybody calls `link`.
        """
        sharing = maildir.sharing
        if self._file is not None or sharing is None:
            return False
        file = SharedFile()
        try:
            file.adopt(os.dup(descriptor))
        except OSError:
            # Each of the others gets a file of its own.
            return False
        self._sharing = sharing
        self._file = file
        if self._closed:
            # By another thread, which has perhaps not seen the file.
            self.withdraw()
        return self._file is not None

    def is_wanted(self, maildir: Maildir) -> bool:
        """Whether there is none yet, and a copy in `maildir` may become it."""
        return self._file is None and maildir.sharing is not None

    def fits(self, maildir: Maildir) -> bool:
        """Whether a copy in `maildir` may be a link."""
        return self._file is not None and maildir.sharing == self._sharing

    def link(self, directory: int, name: str) -> None:
        """Give it the name `name` in `directory` too. Raises NoLinkError, OSError."""
        file = self._file
        if file is None:
            raise NoLinkError("the copy that was to be linked to has failed")
        try:
            with file.use() as descriptor:
                link_open_file(descriptor, directory, name)
        except OSError as error:
            if error.errno == errno.EBADF:
                raise NoLinkError(str(error)) from error
            raise

    def withdraw(self) -> None:
        """It is none; the next copy may become it."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def close(self) -> None:
        """There will be no more copies, or none that are links."""
        self._closed = True
        self.withdraw()
