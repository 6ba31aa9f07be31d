"""Log files that root opens for who will write them."""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lmtp_server._logs import Log, LogError, LogOptions
from tests.server._program import run

pytestmark = pytest.mark.privileges

OWNER = (65534, 65534)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that everybody may enter."""
    if os.geteuid() != 0:
        pytest.skip("only root opens files for somebody else")
    with tempfile.TemporaryDirectory(prefix="lmtp-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def secret(folder: Path) -> Path:
    """A file of root's."""
    path = folder / "secret"
    path.touch(0o600)
    return path


def test_a_new_file_is_the_owner_s(folder: Path) -> None:
    Log(LogOptions(path=str(folder / "log")), OWNER).close()
    status = (folder / "log").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (*OWNER, 0o600)
    own = folder / "own"
    own.mkdir()
    os.chown(own, *OWNER)
    Log(LogOptions(path=str(own / "log")), OWNER).close()
    status = (own / "log").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (*OWNER, 0o600)


@pytest.mark.parametrize("place", ["own", "own/inner"])
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_nothing_is_opened_that_the_owner_may_not_write(
    folder: Path, secret: Path, place: str, link: Callable[[Path, Path], None]
) -> None:
    own = folder / "own"
    inner = folder / place
    inner.mkdir(parents=True)
    os.chown(own, *OWNER)
    link(secret, inner / "log")
    groups = os.getgroups()
    with pytest.raises(LogError) as caught:
        Log(LogOptions(path=str(inner / "log")), OWNER)
    assert caught.value.faults == [
        f"log.path: cannot log to '{inner}/log': Permission denied",
    ]
    assert secret.read_bytes() == b""
    assert (os.geteuid(), os.getegid(), os.getgroups()) == (0, 0, groups)


def test_nothing_is_opened_anew_that_the_owner_may_not_write(folder: Path, secret: Path) -> None:
    own = folder / "own"
    own.mkdir()
    os.chown(own, *OWNER)
    path = own / "log"
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    log = Log(LogOptions(path=str(path)), OWNER)
    try:
        path.rename(own / "kept")
        path.symlink_to(secret)
        log.reopen()
        log.install()
        logging.getLogger("lmtp_server").error("goes on")
    finally:
        root.handlers = handlers
        root.setLevel(level)
        log.close()
    assert secret.read_bytes() == b""
    assert b"goes on" in (own / "kept").read_bytes()


@pytest.mark.parametrize("planted", [True, False])
def test_a_delivery_that_root_makes_by_hand(folder: Path, secret: Path, planted: bool) -> None:
    for name in ("own", "mail"):
        (folder / name).mkdir()
        os.chown(folder / name, *OWNER)
    log = folder / "own" / "log"
    if planted:
        log.symlink_to(secret)
    (folder / "settings.toml").write_text(
        f'user = "nobody"\nmail = "{folder}/mail/{{user}}"\n[log]\npath = "{log}"\n'
    )
    message = b"Subject: x\n\nx\n"
    flags = ["--config", "settings.toml", "-d", "anne"]
    done = run("deliver", *flags, cwd=folder, stdin=message)
    assert done.returncode == 0, done.stderr
    assert len(list((folder / "mail" / "anne" / "new").iterdir())) == 1
    assert secret.read_bytes() == b""
    if planted:
        assert b"Permission denied" in done.stderr
    else:
        assert log.stat().st_uid == OWNER[0]
        assert b"saved mail to INBOX" in log.read_bytes()


def test_what_root_has_put_there_is_followed(folder: Path) -> None:
    target = folder / "target"
    target.touch(0o600)
    (folder / "log").symlink_to(target)
    Log(LogOptions(path=str(folder / "log")), OWNER).close()
    assert b"the log begins" in target.read_bytes()
