"""SIGHUP: other settings, with no client refused, cut off or told anything amid a transaction."""

import datetime
import os
import signal
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from lmtp_server.__main__ import main
from tests.server._peer import Peer, connect, deliver
from tests.server._program import Program, warnings

Start = Callable[..., Program]


def _reload(program: Program, count: int = 1) -> None:
    program.send_signal(signal.SIGHUP)
    program.wait_for(" reloaded$", count)


def test_clients_finish_what_they_have_begun(
    start: Start, folder: Path, config: Callable[..., str], runtime: str
) -> None:
    common = ['listen = ["127.0.0.1:0", "unix:s"]', "workers = 2", f'runtime = "{runtime}"']
    program = start("--config", config(*common, 'hostname = "old.test"'))
    address, _ = program.addresses(2)
    with Peer(address) as rested, Peer(f"unix:{folder}/s") as amid, Peer(address) as fresh:
        for peer in (rested, amid, fresh):
            peer.greet()
        rested.begin("a@example.test")
        rested.write(b"Subject: x\r\n\r\nx\r\n.\r\n")
        assert rested.reply().startswith("250 ")
        amid.begin("a@example.test")
        amid.write(b"Subject: half of")
        config(*common, 'hostname = "new.test"')
        _reload(program)

        assert rested.read_to_end().startswith(b"421 4.3.2 ")
        for address_ in (address, f"unix:{folder}/s"):
            # Until an old worker has heard that it is to retire, it accepts as well.
            while True:
                with Peer(address_) as newcomer:
                    if (greeting := newcomer.reply()).startswith("220 new.test "):
                        break
                    assert greeting.startswith("220 old.test ")
        amid.write(b" a message\r\n\r\nx\r\n.\r\n")
        assert amid.reply().startswith("250 2.0.0 ")
        assert amid.read_to_end().startswith(b"421 4.3.2 ")
        fresh.begin("a@example.test")
        fresh.write(b"Subject: x\r\n\r\nx\r\n.\r\n")
        assert fresh.reply().startswith("250 2.0.0 ")
    assert program.stop() == 0
    assert len(list((folder / "mail/example.test/a/new").iterdir())) == 3
    assert not warnings(program.stderr)


def test_bad_settings_change_nothing(
    start: Start, folder: Path, config: Callable[..., str]
) -> None:
    good = ['listen = ["127.0.0.1:0"]', "workers = 1"]
    program = start("--config", config(*good))
    (address,) = program.addresses()
    workers = program.workers()
    config('listen = ["127.0.0.1:0", "unix:new", "unix:no/such/folder"]', "workers = 2")
    program.send_signal(signal.SIGHUP)
    program.wait_for("no/such/folder.*does not exist")
    program.wait_for("not reloaded: the service goes on")
    assert not (folder / "new").exists()
    config(*good, "workers = many")
    program.send_signal(signal.SIGHUP)
    program.wait_for("not reloaded", 2)
    assert program.workers() == workers
    assert deliver(address, "a@example.test")[0].startswith("250 ")
    config(*good)
    _reload(program)
    assert deliver(address, "a@example.test")[0].startswith("250 ")
    assert program.stop() == 0


def test_listeners_come_and_go(start: Start, folder: Path, config: Callable[..., str]) -> None:
    program = start("--config", config('listen = ["unix:kept", "unix:gone"]', "workers = 1"))
    program.addresses(2)
    inode = (folder / "kept").stat().st_ino
    config(
        *('listen = ["unix:new"]', "workers = 1"),
        *("[[listener]]", 'address = "unix:kept"', 'mode = "0600"'),
    )
    _reload(program)
    assert program.wait_for(r"^listening on (\S+)", 3) == ["unix:kept", "unix:gone", "unix:new"]
    assert not (folder / "gone").exists()
    found = (folder / "kept").stat()
    assert (found.st_ino, found.st_mode & 0o777) == (inode, 0o600)
    for name in ("kept", "new"):
        assert deliver(f"unix:{folder}/{name}", "a@example.test")[0].startswith("250 ")
    assert program.stop() == 0
    assert not list(folder.glob("[kn]e*"))


def test_workers_that_do_not_start_leave_the_old_ones(
    start: Start, folder: Path, config: Callable[..., str], fake_uvloop: Callable[[str], None]
) -> None:
    fake_uvloop("raise ImportError('broken in two')")
    common = ['listen = ["unix:s"]', "workers = 2"]
    program = start("--config", config(*common, 'runtime = "asyncio"'))
    program.addresses()
    workers = program.workers()
    config('listen = ["unix:s", "unix:new"]', "workers = 2", 'runtime = "uvloop"')
    program.send_signal(signal.SIGHUP)
    program.wait_for("with the new settings ended before all were ready")
    program.wait_for("not reloaded")
    assert program.workers() >= workers
    assert not (folder / "new").exists()
    assert deliver(f"unix:{folder}/s", "a@example.test")[0].startswith("250 ")
    assert program.stop() == 0


def _serial(address: str) -> object:
    """The certificate that is shown, without a look at who has signed it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with connect(address) as sock, context.wrap_socket(sock) as tls:
        return tls.getpeercert(binary_form=True)


def test_certificates_are_read_anew_unless_they_are_worse(
    start: Start, folder: Path, config: Callable[..., str]
) -> None:
    authority = trustme.CA()
    pem = folder / "server.pem"

    def issue(not_after: datetime.datetime | None = None) -> None:
        issued = authority.issue_cert("mx.example.org", not_after=not_after)
        issued.private_key_and_cert_chain_pem.write_to_path(pem)

    issue()
    program = start(
        "--config",
        config(
            "workers = 1",
            *("[[listener]]", 'address = "127.0.0.1:0"', 'tls = "implicit"'),
            *("[tls]", f'certificate = "{pem}"'),
        ),
    )
    (address,) = program.addresses()
    first = _serial(address)
    issue()
    _reload(program, 1)
    # Until an old worker has heard that it is to retire, it accepts as well.
    while (second := _serial(address)) == first:
        pass
    issue(not_after=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
    _reload(program, 2)
    program.wait_for("a certificate in .*server.pem has expired; the one in use is kept")
    assert _serial(address) == second
    pem.unlink()
    _reload(program, 3)
    program.wait_for("cannot read .*server.pem: No such file or directory; .* is kept")
    assert _serial(address) == second
    issue()
    _reload(program, 4)
    while (last := _serial(address)) == second:
        pass
    assert last != first
    assert program.stop() == 0


def test_a_certificate_that_is_none_is_refused_at_the_start(
    start: Start, folder: Path, config: Callable[..., str]
) -> None:
    (folder / "server.pem").write_text("no certificate\n")
    program = start(
        "--config",
        config(
            *("[[listener]]", 'address = "127.0.0.1:0"', 'tls = "starttls"'),
            *("[tls]", 'certificate = "server.pem"'),
        ),
    )
    assert program.wait() == 78
    assert "127.0.0.1:0: no certificate with its key in server.pem: " in program.stderr


def test_config_check_opens_the_certificates(
    folder: Path, config: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    authority = trustme.CA()

    def issue(name: str, *, year: int) -> Path:
        issued = authority.issue_cert(
            "mx.example.org", not_after=datetime.datetime(year, 1, 1, tzinfo=datetime.UTC)
        )
        issued.private_key_and_cert_chain_pem.write_to_path(folder / name)
        return folder / name

    good = issue("good.pem", year=2900)
    other = issue("other.pem", year=2900)
    old = issue("old.pem", year=2020)
    listeners = [
        *("[[listener]]", 'address = "127.0.0.1:0"', 'tls = "implicit"'),
        *("[[listener]]", f'address = "unix:{folder}/s"', 'tls = "starttls"'),
    ]

    def check(*lines: str) -> tuple[int, str]:
        code = main(["config", "check", "--config", config(*listeners, "[tls]", *lines)])
        return code, capsys.readouterr().err

    assert check(f'certificate = "{good}"') == (os.EX_OK, "")
    for lines, fault in (
        ([f'certificate = "{folder}/none.pem"'], f"cannot read {folder}/none.pem: No such file"),
        ([f'certificate = "{old}"'], f"a certificate in {old} has expired"),
        (
            [f'certificate = "{good}"', f'key = "{other}"'],
            f"no certificate with its key in {good}: KEY_VALUES_MISMATCH",
        ),
        (
            [
                *(f'certificate = "{good}"', '[tls.sni."a.example.org"]'),
                f'certificate = "{folder}/gone.pem"',
            ],
            "gone.pem: No such file",
        ),
    ):
        code, told = check(*lines)
        assert code == os.EX_CONFIG
        assert fault in told
        # Once, although two listeners have it.
        assert len(told.splitlines()) == 1
