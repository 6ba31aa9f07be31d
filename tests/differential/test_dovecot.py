"""Dovecot's codes and ours differ where docs/dovecot-differences.toml says so, and nowhere else.

`python -m tests.differential` shows what differs.
"""

import pytest

from benchmarks.peers.dovecot import PrivateDovecot
from tests.differential.comparison import Difference, compare, dovecot_server, listed, our_server

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def found() -> list[Difference]:
    """Where the codes differ."""
    if reason := PrivateDovecot.missing():
        pytest.skip(reason)
    with our_server() as ours, dovecot_server() as dovecot:
        return compare(ours, dovecot, list(listed().sections))


def _message(heading: str, differences: list[Difference]) -> str:
    versions = f"Dovecot {PrivateDovecot.version()}; the list was made with {listed().version}"
    return "\n".join([f"{heading} ({versions}):", *map(str, differences)])


def test_every_difference_is_listed(found: list[Difference]) -> None:
    known = listed().sections
    unlisted = [one for one in found if one not in known]
    assert not unlisted, _message("not in docs/dovecot-differences.toml", unlisted)


def test_every_listed_difference_occurs(found: list[Difference]) -> None:
    stale = [one for one in listed().sections if one not in found]
    assert not stale, _message("in docs/dovecot-differences.toml, but no longer so", stale)
