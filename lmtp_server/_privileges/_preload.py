"""Loading what Python would load only when it is first used.

The invariant: after `preload`, a process of the daemon needs no file of Python's any more, as it
may be in a chroot, or somebody who must not read the directory that Python lies in.
"""

import codecs
import importlib
from typing import Final

_CODECS: Final = (
    *("ascii", "latin-1", "utf-8", "utf-7", "utf-16-be", "idna", "punycode", "unicode_escape"),
    "raw_unicode_escape",
)
# What is imported within functions, mostly those of the standard library.
_MODULES: Final = (
    *("concurrent.futures.thread", "difflib", "encodings.idna", "grp", "linecache", "pwd"),
    *("stringprep", "subprocess", "tempfile", "tokenize", "traceback"),
)


def preload() -> None:
    """Load codecs and modules. To be called before privileges are dropped."""
    for name in _CODECS:
        codecs.lookup(name)
    for name in _MODULES:
        importlib.import_module(name)
