"""Asking the running service by its control socket.

The invariant: a service that is not there, or not asked in the right place, is told in one line
that says what to do.
"""

import os
import sys
from typing import Any, Final

from lmtp_server._metrics._control import ask
from lmtp_server._settings import ServeSettings

from ._columns import printable

# Seconds: longer than the service waits for its workers.
_PATIENCE: Final = 10.0


class AskError(Exception):
    """There is no answer; `code` is the exit code for it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code

    def tell(self) -> int:
        """Write why on standard error; the exit code."""
        sys.stderr.write(f"lmtp-server: {printable(str(self))}\n")
        return self.code


def ask_service(settings: ServeSettings, word: str) -> dict[str, Any]:
    """The answer of the service with these settings. Raises AskError."""
    path = settings.control
    if path is None:
        raise AskError(
            os.EX_CONFIG, "the server has no control socket: set base_dir or metrics.control"
        )
    try:
        return ask(path, word, timeout=_PATIENCE)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        text = f"the server is not running: nobody answers at {path!r}"
        raise AskError(os.EX_UNAVAILABLE, text) from error
    except PermissionError as error:
        text = f"{path!r} is for the user alone whom the server was started by"
        raise AskError(os.EX_NOPERM, text) from error
    except (OSError, ValueError) as error:
        raise AskError(os.EX_TEMPFAIL, f"no answer from {path!r}: {error}") from error
