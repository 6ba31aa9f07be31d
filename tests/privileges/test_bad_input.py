"""What is wrong with a user, a file or the disk, where agents write the mail: a line in the log,
the right code, and everybody else is served.
"""

import os
import signal
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trustme

from tests.faults.mounts import small_file_system
from tests.privileges.conftest import FIRST_UID, Site
from tests.privileges.test_daemon import NETWORK_USER, SETTINGS, USERDB, Daemon, codes, write_users
from tests.server._peer import Peer, connect, deliver

_SETTINGS = f'network_user = "{NETWORK_USER}"\nmail = "~/Maildir"\n' + SETTINGS + USERDB


@contextmanager
def _serving(site: Site, settings: str = _SETTINGS, listeners: int = 2) -> Iterator[Daemon]:
    """A daemon that ends as it should."""
    write_users(site)
    daemon = Daemon(site, settings)
    try:
        daemon.addresses(listeners)
        yield daemon
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.stderr
    finally:
        daemon.kill()


def test_homes_that_cannot_be_used(site: Site) -> None:
    for number, name in enumerate(("shut", "roots", "file", "apart")):
        site.add(name, FIRST_UID + 80 + number)
    (site.path / "shut").chmod(0o000)
    os.chown(site.path / "roots", 0, 0)
    (site.path / "file").rmdir()
    (site.path / "file").write_text("in the way")
    # Where the network's user cannot look, and the user's agent can.
    closed = site.path / "closed"
    closed.mkdir(mode=0o750)
    os.chown(closed, 0, FIRST_UID + 83)
    site.settings["users"]["apart"]["home"] = str((site.path / "apart").rename(closed / "apart"))
    with _serving(site) as daemon:
        address = daemon.addresses(2)[0]
        with Peer(address) as peer:
            peer.greet()
            assert peer.say("MAIL FROM:<>").startswith("250 ")
            for name, fault in (
                ("roots", "its home '.*roots' belongs to uid 0"),
                ("file", "its home '.*file' is no directory"),
            ):
                assert peer.say(f"RCPT TO:<{name}@example.org>").startswith("451 4.3.0 ")
                daemon.wait_for(rf"ERROR.*user '{name}': {fault}")
        assert codes(address, "shut", "u0", "apart", "u1") == ["451", "250", "250", "250"]
        daemon.wait_for(r"ERROR.*agent of 'shut': .*Permission denied")
        assert list((closed / "apart/Maildir/new").iterdir())
        (site.path / "shut").chmod(0o700)
        assert codes(address, "shut", "u0") == ["250", "250"]


def test_a_disk_that_is_full(site: Site) -> None:
    with small_file_system(site.path, "size=64k,mode=755") as disk:
        home = site.add("full", FIRST_UID + 80).parent
        home.rmdir()
        home.symlink_to(disk / "home")
        (disk / "home").mkdir()
        os.chown(disk / "home", FIRST_UID + 80, FIRST_UID + 80)
        with _serving(site) as daemon:
            address = daemon.addresses(2)[0]
            content = b"Subject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * 5_000
            users = ["full@example.org", "u0@example.org"]
            replies = deliver(address, *users, content=content)
            assert [reply[:9] for reply in replies] == ["452 4.3.1", "250 2.0.0"]
            daemon.wait_for(r"agent of 'full': .*(ENOSPC|No space left)")
            # What was begun is not left behind, so a small one has room.
            assert codes(address, "full", "u0") == ["250", "250"]
            assert not list((disk / "home/Maildir/tmp").iterdir())


def test_files_that_the_networks_user_can_read_no_more(site: Site) -> None:
    pem = site.path / "server.pem"
    issued = trustme.CA().issue_cert("mx.example.org")
    issued.private_key_and_cert_chain_pem.write_to_path(str(pem))
    pem.chmod(0o600)
    settings = _SETTINGS.replace('listen = ["127.0.0.1:0", "unix:./lmtp.sock"]\n', "") + (
        '[[listener]]\naddress = "127.0.0.1:0"\ntls = "implicit"\n'
        '[[listener]]\naddress = "unix:./lmtp.sock"\n'
        f'[tls]\ncertificate = "{pem}"\n'
    )
    with _serving(site, settings) as daemon:
        address = daemon.addresses(2)[0]
        unix = f"unix:{site.path}/lmtp.sock"
        # Root has read it.
        shown = _certificate(address)
        daemon.send_signal(signal.SIGHUP)
        daemon.wait_for(r"cannot read .*server.pem: Permission denied; the certificate .* is kept")
        daemon.wait_for(" reloaded$")
        assert _certificate(address) == shown
        assert codes(unix, "u0") == ["250"]
        # The users: the broker still reads them, the workers do not.
        (site.path / "passwd").chmod(0o600)
        os.utime(site.path / "passwd", (1, 1))
        with pytest.raises(AssertionError):
            deliver(unix, "u0@example.org")
        daemon.wait_for(r"lmtp\(u0@example.org\).*: refused: 451 4.3.0")
        daemon.wait_for(r"ERROR.*passwd.*Permission denied")
        (site.path / "passwd").chmod(0o644)
        os.utime(site.path / "passwd")
        assert codes(unix, "u0") == ["250"]


def _certificate(address: str) -> bytes | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with connect(address) as sock, context.wrap_socket(sock) as tls:
        return tls.getpeercert(binary_form=True)
