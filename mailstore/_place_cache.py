"""Mailboxes kept open between deliveries by the threads that deliver to them one by one.

The invariant: a mailbox that was given out is its taker's alone, and is what lies at its path when
it is given out. One on which something failed is not given out again.

Each step is one operation of a dictionary, so that no lock is left held in a forked child.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from ._folders import Place, info_of, open_place
from ._mailbox_name import Mailbox
from ._maildir import Maildir, Parts
from ._options import FolderOptions

_Key = tuple[Parts, bool]


class PlaceCache:
    """Opens places below the directory `root`, and keeps `limit` of them open."""

    def __init__(self, root: int, options: FolderOptions, limit: int) -> None:
        self._root = root
        self._options = options
        self._limit = limit
        # Those used longest ago come first.
        self._open: OrderedDict[_Key, Maildir] = OrderedDict()

    @contextmanager
    def use(self, place: Place) -> Iterator[tuple[Maildir, str, Mailbox]]:
        """What `open_place` gives.

        Raises what `open_place` raises.
        """
        if place.keywords:
            # Their letters are looked up in a file of the Maildir.
            maildir, info, mailbox = open_place(self._root, place, self._options)
            try:
                yield maildir, info, mailbox
            finally:
                maildir.close()
            return
        parts = (*place.parts, *filter(None, (place.mailbox.directory,)))
        key = parts, bool(place.flags)
        known = self._take(key)
        if known is None:
            maildir, info, mailbox = open_place(self._root, place, self._options)
        else:
            maildir, info, mailbox = known, info_of(place.flags), place.mailbox
        try:
            yield maildir, info, mailbox
        except BaseException:
            maildir.close()
            raise
        self._give_back(key, maildir)

    def _take(self, key: _Key) -> Maildir | None:
        maildir = self._open.pop(key, None)
        if maildir is not None and not maildir.is_at(self._root, key[0]):
            maildir.close()
            return None
        if maildir is not None:
            maildir.sweep()
        return maildir

    def _give_back(self, key: _Key, maildir: Maildir) -> None:
        if self._open.setdefault(key, maildir) is not maildir:
            # Somebody delivered there at the same time.
            maildir.close()
        self._trim(self._limit)

    def _trim(self, limit: int) -> None:
        while len(self._open) > limit:
            try:
                _, maildir = self._open.popitem(last=False)
            except KeyError:
                # Others take from it, too.
                return
            maildir.close()

    def close(self) -> None:
        """Close those that nobody uses."""
        self._trim(0)
