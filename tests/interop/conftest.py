"""Fixtures: the four runtimes, our daemon, the peers."""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.peers.dovecot import PrivateDovecot
from tests.interop.daemon import Daemon
from tests.interop.postfix import PrivatePostfix, missing_program

_EXTRA_PACKAGES = {"uvloop": "uvloop", "gevent": "gevent"}


@pytest.fixture(params=["asyncio", "uvloop", "gevent", "blocking"])
def runtime(request: pytest.FixtureRequest) -> str:
    """Each runtime of the daemon in turn."""
    name = str(request.param)
    package = _EXTRA_PACKAGES.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed (extra {package})")
    return name


@pytest.fixture
def template(folder: Path) -> str:
    """Where the daemon keeps its mail: a Maildir for each user of each domain."""
    return f"{folder}/mail/{{domain}}/{{user}}"


@pytest.fixture
def new(folder: Path) -> Callable[[str], list[bytes]]:
    """What lies in new/ of a user of example.test; nothing may be left in tmp/ or be in cur/."""

    def read(user: str) -> list[bytes]:
        maildir = folder / "mail/example.test" / user
        assert not list((maildir / "tmp").iterdir())
        assert not list((maildir / "cur").iterdir())
        return [file.read_bytes() for file in (maildir / "new").iterdir()]

    return read


@pytest.fixture
def daemon(folder: Path, template: str) -> Iterator[Callable[..., Daemon]]:
    """Start daemons; at the end of the test each must stop as it should."""
    with ExitStack() as started:

        def start(runtime: str, *, unix: bool = False, flags: Sequence[str] = ()) -> Daemon:
            listen = f"unix:{folder}/lmtp" if unix else "127.0.0.1:0"
            one = Daemon(mail=template, listen=[listen], runtime=runtime, flags=flags)
            started.callback(one.stop)
            if unix:
                # Postfix connects as a user of its own.
                (folder / "lmtp").chmod(0o666)
            return one

        yield start


@pytest.fixture
def dovecot() -> type[PrivateDovecot]:
    """A Dovecot, not yet started."""
    if reason := PrivateDovecot.missing():
        pytest.skip(reason)
    return PrivateDovecot


@pytest.fixture
def postfix() -> type[PrivatePostfix]:
    """A Postfix, not yet started, that hands all mail to a transport."""
    if reason := PrivatePostfix.missing():
        pytest.skip(reason)
    return PrivatePostfix


@pytest.fixture(scope="session")
def _swaks() -> None:
    if reason := missing_program("swaks", "swaks"):
        pytest.skip(reason)


@pytest.fixture(scope="session")
def _smtp_source() -> None:
    if reason := missing_program("smtp-source", "postfix"):
        pytest.skip(reason)
