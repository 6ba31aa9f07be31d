"""What log destinations have in common.

The invariant: a destination that takes nothing harms nobody who logs; what is lost is counted, and
the count is the first that it gets when it takes something again.
"""

import logging


class Destination(logging.Handler):
    """Where log lines go; a kind of it overrides `write`."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._lost = 0
        self._why = ""

    def write(self, record: logging.LogRecord) -> None:
        """Write a record now, without waiting for anybody. Raises OSError."""
        raise NotImplementedError

    def reopen(self) -> None:
        """Open it anew. Raises OSError, and goes on with what it has."""

    def descriptors(self) -> list[int]:
        """What it has open."""
        return []

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or count it."""
        try:
            if self._lost:
                self.write(self._confession())
                self._lost = 0
            self.write(record)
        except OSError as error:
            self._lost += 1
            self._why = error.strerror or str(error)
        except Exception:
            self.handleError(record)

    def _confession(self) -> logging.LogRecord:
        lines = f"{self._lost} line{'' if self._lost == 1 else 's'}"
        return logging.makeLogRecord(
            {
                "name": "lmtp_server",
                "levelno": logging.WARNING,
                "levelname": "WARNING",
                "msg": f"{lines} could not be written here: {self._why}",
            }
        )
