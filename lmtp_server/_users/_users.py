"""Users: from a recipient to the mailbox that holds its mail.

The invariant: the local part and the domain that a peer sent reach a path only through
`path_name()`, the detail only as the name of a mailbox, which the store checks, and a recipient for
whom there is no path is refused for good with 550.
"""

import re
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Final

from lmtp_proto import Address, Recipient, Reply
from mailstore import Destination

from ._template import MailTemplate, PathName, path_name

# RFC 5321 4.5.1: the one recipient that every server takes without a domain.
_POSTMASTER: Final = "postmaster"


class Users:
    """Every user has a Maildir.

    The user is the local part up to the first of the characters in `delimiters`; what follows is
    the detail (RFC 5233), and with `detail_is_mailbox` the name of one of the user's mailboxes.
    User and domain are written in lower case: to RFC 5321 2.4 local parts that differ in case
    differ, but no one has such neighbours and Dovecot folds them, too.
    `hostname` is the domain of a postmaster who comes without one.
    """

    def __init__(
        self,
        template: MailTemplate,
        *,
        hostname: str,
        delimiters: str,
        detail_is_mailbox: bool = False,
    ) -> None:
        self._template = template
        self._hostname = hostname
        self._delimiter = re.compile(f"[{re.escape(delimiters)}]") if delimiters else None
        self._detail_is_mailbox = detail_is_mailbox
        # Recipients come back, and what becomes of them never changes.
        self._find_cached = lru_cache(maxsize=1024)(self._find)

    def locate(self, recipient: Recipient) -> PurePosixPath | Destination | Reply:
        """Where the recipient's mail goes, below the template's root, or why there is no place.

        A path is that of the Maildir whose INBOX it is.
        """
        return self._find_cached(recipient.address)

    def _find(self, address: Address) -> PurePosixPath | Destination | Reply:
        if address.domain.startswith("["):
            return Reply(550, f"<{address}> Address literals have no users here", enhanced="5.1.2")
        try:
            domain = self._domain(address.local_part, address.domain)
        except ValueError as error:
            return Reply(550, f"<{address}> Domain doesn't exist: {error}", enhanced="5.1.2")
        local_part, detail = self._split(address.local_part)
        try:
            user = path_name(local_part.lower())
            path = self._template.expand(user=user, domain=domain)
        except ValueError as error:
            return Reply(550, f"<{address}> User doesn't exist: {error}", enhanced="5.1.1")
        if detail and self._detail_is_mailbox:
            return Destination(path, mailbox=detail)
        return path

    def _split(self, local_part: str) -> tuple[str, str]:
        """User and detail; a detail that is missing is empty."""
        if self._delimiter is None:
            return local_part, ""
        user, *detail = self._delimiter.split(local_part, maxsplit=1)
        return user, "".join(detail)

    def _domain(self, local_part: str, domain: str) -> PathName | None:
        """The domain, None where there is none. Raises ValueError."""
        if not domain and local_part.lower() == _POSTMASTER:
            domain = self._hostname
        if not domain:
            return None
        return path_name(domain.lower())
