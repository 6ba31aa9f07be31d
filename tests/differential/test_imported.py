"""What is imported from Dovecot serves its users, and gives the codes that Dovecot gives.

Where they differ, docs/dovecot-differences.toml has the reason.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.peers.dovecot import PrivateDovecot
from tests.differential.comparison import Difference, listed
from tests.differential.imported import (
    CONFIGURATIONS,
    Configuration,
    Pair,
    differences,
    import_settings,
    imported,
)

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(120),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users"),
]


@pytest.fixture(params=CONFIGURATIONS, ids=lambda one: one.name)
def configuration(request: pytest.FixtureRequest) -> Configuration:
    one: Configuration = request.param
    return one


@pytest.fixture
def pair(configuration: Configuration) -> Iterator[Pair]:
    """Both servers."""
    if reason := PrivateDovecot.missing():
        pytest.skip(reason)
    with imported(configuration) as pair:
        yield pair


def _lines(differences: list[Difference]) -> str:
    return "\n".join(map(str, differences))


def test_the_codes_differ_where_that_is_listed_and_nowhere_else(
    configuration: Configuration, pair: Pair
) -> None:
    found = differences(configuration, pair)
    own = listed(configuration.name).sections
    unlisted = [one for one in found if one not in own and one not in listed().sections]
    assert not unlisted, _lines(unlisted)
    stale = [one for one in own if one not in found]
    assert not stale, _lines(stale)
    # What both have stored, beside what was there.
    stored = list(pair.dovecot.folder.glob("mail/**/new/*"))
    assert len(stored) > 2
    assert {path.stat().st_uid for path in stored} == {configuration.owner}


def test_what_the_machines_own_dovecot_says_can_be_imported(tmp_path: Path) -> None:
    if shutil.which("doveconf") is None:
        pytest.skip("doveconf is not installed (Debian package dovecot-core)")
    said = subprocess.run(["doveconf", "-n"], capture_output=True, check=True)
    assert 'driver = "system"' in import_settings(tmp_path, said.stdout)
