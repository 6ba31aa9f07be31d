"""The directory below which all Maildirs lie.

The invariant: what is made here outlives a power cut, so that no acknowledged message goes down
with the directory around it.
"""

import os
import tempfile


def check(root: str) -> None:
    """Raise OSError unless this process can write to `root`, or to where it would be made."""
    while not os.path.lexists(root):
        root = os.path.dirname(root)
    # A file without a name tells more than permission bits, and leaves nothing behind.
    with tempfile.TemporaryFile(dir=root):
        pass


def make(root: str) -> None:
    """Make `root`, an absolute path, and what is missing above it. Raises OSError."""
    missing = []
    while not os.path.lexists(root):
        missing.append(root)
        root = os.path.dirname(root)
    for path in reversed(missing):
        os.mkdir(path, 0o700)
        parent = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
