"""Dovecot's IMAP and our deliveries on one Maildir, in small (`tests.interop.imap_soak`)."""

from pathlib import Path

import pytest

from benchmarks.peers.dovecot import PrivateDovecot
from tests.interop.imap_soak import soak


@pytest.mark.timeout(120)
def test_every_message_is_seen_once_while_clients_flag_move_and_expunge(
    folder: Path, dovecot: type[PrivateDovecot]
) -> None:
    tally = soak(folder, messages=300)
    assert tally.flagged == 300
    assert tally.moved + tally.expunged == 150
    assert tally.told
    assert tally.lists
