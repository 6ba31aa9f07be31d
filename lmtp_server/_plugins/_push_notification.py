"""The plugin `push_notification`: tells a web server of each message that was delivered.

The invariant: at most `queue` notifications wait, and what the web server does holds up no
delivery; each is sent once, and one that fails is logged.
"""

import http.client
import json
import logging
import threading
from collections.abc import Mapping
from queue import Full, Queue
from typing import Final
from urllib.parse import urlsplit

from lmtp_proto import Reply
from lmtp_server.plugins import Delivery, hookimpl

_logger: Final = logging.getLogger("lmtp_server.push_notification")

_KEYS: Final = ("url", "timeout", "queue")
# Seconds that notifications have when the worker ends, which is soon killed then.
_LAST_WORDS: Final = 2.0
_TYPE: Final = "application/json; charset=utf-8"


class PushNotification:
    """`url`: where to PUT, http or https. `timeout`: seconds for each step of it, 5 by default.
    `queue`: how many wait at most, 1000 by default.

    The JSON is that of Dovecot's driver `ox`, without what the IMAP server finds out later, and
    with text decoded.
    """

    def __init__(self, table: Mapping[str, object]) -> None:
        faults = [
            f"there is no {key!r}; there are {', '.join(_KEYS)}"
            for key in table
            if key not in _KEYS
        ]
        url, timeout, queue = table.get("url"), table.get("timeout", 5), table.get("queue", 1000)
        if not isinstance(url, str) or not _is_url(url):
            faults.append("url: it must be there, as http://HOST/PATH or https://HOST/PATH")
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0:
            faults.append(f"timeout: {timeout!r} is not allowed; allowed are seconds above 0")
        if isinstance(queue, bool) or not isinstance(queue, int) or queue < 1:
            faults.append(f"queue: {queue!r} is not allowed; allowed are numbers from 1")
        if faults:
            raise ValueError(*faults)
        assert isinstance(queue, int)
        assert isinstance(timeout, int | float)
        self._url = urlsplit(str(url))
        self._timeout = float(timeout)
        self._queue: Queue[bytes | None] = Queue(queue)
        self._thread: threading.Thread | None = None

    @hookimpl
    def lmtp_started(self) -> None:
        """Begin to send."""
        self._thread = threading.Thread(target=self._run, name="push", daemon=True)
        self._thread.start()

    @hookimpl
    def lmtp_stopped(self) -> None:
        """Send what waits, as far as a second or two allow."""
        try:
            self._queue.put(None, timeout=_LAST_WORDS / 2)
        except Full:
            pass
        if self._thread is not None:
            self._thread.join(_LAST_WORDS / 2)
        if self._queue.qsize():
            _logger.warning("%s notifications are not sent", self._queue.qsize())

    @hookimpl
    def lmtp_after_delivery(self, delivery: Delivery, reply: Reply) -> None:
        """Have it sent."""
        if reply.code >= 400:
            return
        content = delivery.content
        body = {
            "user": delivery.user,
            "event": "messageNew",
            "folder": delivery.mailbox,
            **{name: content.text(name) for name in ("from", "subject") if name in content.fields},
        }
        try:
            self._queue.put_nowait(json.dumps(body).encode())
        except Full:
            _logger.warning("%s notifications wait: one is left out", self._queue.maxsize)

    def _run(self) -> None:
        while (body := self._queue.get()) is not None:
            try:
                self._put(body)
            except (OSError, http.client.HTTPException) as error:
                _logger.warning("cannot notify %s: %s", self._url.hostname, error)

    def _put(self, body: bytes) -> None:
        url = self._url
        assert url.hostname is not None
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        connection = kind(url.hostname, url.port, timeout=self._timeout)
        try:
            target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            connection.request("PUT", target, body, {"Content-Type": _TYPE})
            status = connection.getresponse().status
        finally:
            connection.close()
        if status >= 300:
            raise http.client.HTTPException(f"it answered {status}")


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:
        return False
