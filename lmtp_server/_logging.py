"""The daemon's log on standard error.

The invariant: one event is one line, whatever text and traceback belong to it.
"""

import logging
import sys
from typing import Final

_FORMAT: Final = "%(asctime)s %(levelname)s %(process)d %(message)s"


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return " | ".join(super().format(record).splitlines())


def configure() -> None:
    """Log to standard error, from INFO up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(_FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
