"""A message that comes in, and what makes it the same as its retry.

The invariant: two messages are the same for a recipient only if all that was said of them and every
octet of them is the same. What this store writes in front has no part in it.
"""

import hashlib
from collections.abc import Callable
from functools import partial

from lmtp_proto import Recipient, Transaction

from ._folders import NoFolderError, Place
from ._retries import Retries
from ._retry_record import digest


class IncomingMessage:
    """A message while it comes in; `find_place` gives the place of each of its recipients."""

    __slots__ = ("_content", "_envelope", "_find_place", "_recipients", "_retries", "_sharing")

    def __init__(
        self,
        retries: Retries,
        transaction: Transaction,
        find_place: Callable[[Recipient], Place],
    ) -> None:
        self._retries = retries
        self._find_place = find_place
        self._recipients = transaction.recipients
        self._sharing: dict[Place, list[Recipient]] | None = None
        self._content = hashlib.blake2b(digest_size=32)
        reverse_path = transaction.reverse_path
        self._envelope = (
            retries.epoch,
            b"" if reverse_path is None else _octets(f"<{reverse_path}>"),
            _octets(transaction.mail.parameters.envid or ""),
        )

    def update(self, data: bytes) -> None:
        """The next octets of the content, as they came."""
        self._content.update(data)

    def once(
        self, place: Place, name: str, store: Callable[[], None], *, written: bool
    ) -> Callable[[], None]:
        """What calls `store`, which stores the complete message as a file `name` in `place`, or
        raises Recognised for a retry. See `Retries.deliver`."""
        # A copy may be for several recipients, and the client have seen the reply for only some.
        keys = [self._key(recipient, place) for recipient in self._recipients_at(place)]
        keys = list(dict.fromkeys(keys))
        return partial(self._retries.deliver, place, keys, name, store, written=written)

    def _recipients_at(self, place: Place) -> list[Recipient]:
        if self._sharing is None:
            self._sharing = {}
            for recipient in self._recipients:
                try:
                    found = self._find_place(recipient)
                except (NoFolderError, ValueError):
                    # It is refused when its turn comes.
                    continue
                self._sharing.setdefault(found, []).append(recipient)
        return self._sharing[place]

    def _key(self, recipient: Recipient, place: Place) -> bytes:
        original = recipient.parameters.orcpt
        return digest(
            *self._envelope,
            _octets(str(recipient.address)),
            b"" if original is None else _octets(f"{original.addr_type};{original.address}"),
            _octets(place.mailbox.directory),
            self._content.digest(),
        )


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
