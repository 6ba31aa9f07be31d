"""A Dovecot with a configuration as administrators have it, and our daemon with that one imported.

Both have the same users and the same place for mail. What is taken over is what `doveconf -n` says;
only where our daemon listens is another place.
"""

import io
import os
import pwd
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.peers.dovecot import PrivateDovecot
from lmtp_server.__main__ import main
from tests.dialogs.transcript import Dialog, parse
from tests.differential.comparison import USERS, Difference, compare, listed
from tests.server._program import Program

_FOLDER: Final = Path(__file__).parent / "configured"
# Of a message that lies in a mailbox that is full.
_OCTETS: Final = 2_000

# What makes it private, and has both kinds of listeners.
_PRIVATE: Final = """
protocols = imap lmtp
listen = 127.0.0.1
base_dir = {folder}/run
state_dir = {folder}/state
instance_name = {folder.name}
log_path = {folder}/log
ssl = no
service lmtp {{
  unix_listener {folder}/lmtp {{
    mode = 0666
  }}
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp_port}
  }}
}}
service imap-login {{
  inet_listener imap {{
    port = {imap_port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
"""


class ConfiguredDovecot(PrivateDovecot):
    """A Dovecot with one of those in `configured/`."""

    def __init__(self, configuration: "Configuration") -> None:
        super().__init__(users=configuration.users)
        self.uid = self.gid = configuration.owner
        self._text = (_FOLDER / f"{configuration.name}.conf").read_text("utf-8")

    def _configuration(self, lmtp_port: int, imap_port: int) -> str:
        private = _PRIVATE.format(folder=self.folder, lmtp_port=lmtp_port, imap_port=imap_port)
        return self._text.replace("@FOLDER@", str(self.folder)) + private

    def doveconf(self) -> bytes:
        """What `doveconf -n` says of it."""
        return subprocess.run(
            ["doveconf", "-n", "-c", str(self.folder / "dovecot.conf")],
            capture_output=True,
            check=True,
        ).stdout


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A file in `configured/`, with what belongs to it."""

    name: str
    users: Sequence[str] = ()
    """Lines of a passwd-file."""
    owner: int
    """The UID of all mail."""
    full: str
    """Of whom a message is there already; below the mail root."""
    all_dialogs: bool = False
    """Whether all of tests/dialogs are told, and not those of its own alone."""

    def dialogs(self) -> list[Dialog]:
        """Those of its own."""
        files = sorted((_FOLDER / self.name).glob("*.lmtp"))
        return [parse(file.stem, file.read_text("utf-8")) for file in files]


_ONE_USER: Final = pwd.getpwnam("nobody").pw_uid
CONFIGURATIONS: Final = (
    Configuration(
        name="docker-mailserver",
        users=[line.replace("storage=1B", "storage=1K") for line in USERS],
        owner=5000,
        full="example.org/full",
        all_dialogs=True,
    ),
    Configuration(
        name="details",
        users=[
            *("alice::::::", "bob::::::", "later:::::::userdb_tempfail=yes"),
            "full:::::::userdb_quota_rule=*:storage=1K",
        ],
        owner=_ONE_USER,
        full="full",
    ),
    Configuration(name="debian", owner=_ONE_USER, full="nobody"),
)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two servers with one configuration."""

    dovecot: ConfiguredDovecot
    address: str
    """Where ours listens: HOST:PORT."""
    daemon: Program


def import_settings(folder: Path, doveconf: bytes) -> str:
    """What the commands `config import-dovecot` and `config check` make of what doveconf has
    written. Raises AssertionError where they fail."""
    (folder / "doveconf").write_bytes(doveconf)
    settings, notes = io.StringIO(), io.StringIO()
    with redirect_stdout(settings), redirect_stderr(notes):
        code = main(["config", "import-dovecot", str(folder / "doveconf")])
    assert code == os.EX_OK, notes.getvalue()
    path = folder / "imported.toml"
    path.write_text(settings.getvalue())
    faults = io.StringIO()
    with redirect_stderr(faults):
        code = main(["config", "check", "--config", str(path)])
    assert (code, faults.getvalue()) == (os.EX_OK, "")
    return settings.getvalue()


@contextmanager
def imported(configuration: Configuration) -> Iterator[Pair]:
    """Run both. Raises AssertionError where the settings cannot be imported, checked or served."""
    with ConfiguredDovecot(configuration) as dovecot:
        _fill(dovecot.folder / "mail" / configuration.full, configuration.owner)
        settings = import_settings(dovecot.folder, dovecot.doveconf())
        # Dovecot is there already.
        for theirs, ours in (
            (f"unix:{dovecot.folder}/run/lmtp", f"unix:{dovecot.folder}/ours.sock"),
            (f"unix:{dovecot.folder}/lmtp", f"unix:{dovecot.folder}/ours"),
            (dovecot.lmtp_address, "127.0.0.1:0"),
        ):
            assert settings.count(f'"{theirs}"') == 1, settings
            settings = settings.replace(f'"{theirs}"', f'"{ours}"')
        (dovecot.folder / "ours.toml").write_text(settings)
        daemon = Program("--config", "ours.toml", "--workers", "2", cwd=dovecot.folder)
        try:
            addresses = daemon.addresses(3)
            address = next(each for each in addresses if re.match(r"127\.", each))
            yield Pair(dovecot, address, daemon)
            assert daemon.stop() == 0
        finally:
            daemon.kill()


def differences(
    configuration: Configuration, pair: Pair, *, quiet: float = 0.0
) -> list[Difference]:
    """Where their codes differ."""
    known = list(listed(configuration.name).sections)
    found = compare(
        pair.address,
        pair.dovecot.lmtp_address,
        known,
        told=configuration.dialogs(),
        quiet=quiet,
    )
    if configuration.all_dialogs:
        usual = listed().sections
        alike = [one for one, section in usual.items() if _is_of_the_other(one, section)]
        found += compare(
            pair.address,
            pair.dovecot.lmtp_address,
            [*(one for one in usual if one not in alike), *known],
            alike=alike,
            quiet=quiet,
        )
    return found


def _is_of_the_other(one: Difference, section: str) -> bool:
    """Whether the reason is in how the dialogues' server is made: our daemon is as Dovecot then."""
    # It has no limit for the octets of a message, beyond which content is read for so long only.
    return section in {"Handler", "Configuration"} or one.dialog == "data-endless"


def _fill(maildir: Path, owner: int) -> None:
    """Put a message into a Maildir of `owner`'s."""
    for name in ("", "cur", "new", "tmp"):
        (maildir / name).mkdir(parents=True, exist_ok=True)
        os.chown(maildir / name, owner, owner)
    os.chown(maildir.parent, owner, owner)
    file = maildir / "new/1.M1P1.store"
    file.write_bytes(b"Subject: x\n\n" + b"x" * _OCTETS)
    os.chown(file, owner, owner)
