"""Listeners with tables of their own: who may connect, and what is spoken there."""

import os
import ssl
import stat
from collections.abc import Callable
from pathlib import Path

import trustme

from tests.server._peer import Peer, connect, deliver
from tests.server._program import Program, run

Start = Callable[..., Program]
Config = Callable[..., str]


def test_tls_from_the_first_octet_and_by_starttls(
    start: Start, folder: Path, config: Config, runtime: str
) -> None:
    authority = trustme.CA()
    pem = folder / "server.pem"
    authority.issue_cert("mx.example.org").private_key_and_cert_chain_pem.write_to_path(pem)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    program = start(
        "--config",
        config(
            f'runtime = "{runtime}"',
            "workers = 1",
            *("[[listener]]", 'address = "127.0.0.1:0"', 'tls = "implicit"'),
            *("[[listener]]", 'address = "[::1]:0"', 'tls = "starttls"'),
            *("[[listener]]", 'address = "unix:plain"'),
            *("[tls]", f'certificate = "{pem}"'),
        ),
    )
    implicit, explicit, _ = program.addresses(3)
    with (
        connect(implicit) as sock,
        context.wrap_socket(sock, server_hostname="mx.example.org") as tls,
    ):
        assert tls.recv(4096).startswith(b"220 ")
    for address, offered in ((explicit, True), (f"unix:{folder}/plain", False)):
        with Peer(address) as peer:
            assert peer.reply().startswith("220 ")
            assert peer.say("LHLO client.test").startswith("250 ")
            assert peer.say("STARTTLS").startswith("220 " if offered else "502 ")
    assert program.stop() == 0


def test_the_file_of_a_socket_has_its_mode(start: Start, folder: Path, config: Config) -> None:
    program = start(
        "--config",
        config("workers = 1", "[[listener]]", 'address = "unix:s"', 'mode = "0660"'),
    )
    program.addresses()
    assert stat.S_IMODE((folder / "s").stat().st_mode) == 0o660
    assert program.stop() == 0


def test_a_base_directory_has_the_socket(start: Start, folder: Path, config: Config) -> None:
    program = start("--config", config(f'base_dir = "{folder}"', "workers = 1"))
    assert program.addresses() == [f"unix:{folder}/lmtp"]
    assert deliver(f"unix:{folder}/lmtp", "a@example.test")[0].startswith("250 ")
    assert program.stop() == 0


def test_a_base_directory_that_is_missing_is_made(
    start: Start, folder: Path, config: Config
) -> None:
    path = config('base_dir = "run"', "workers = 1")
    mask = os.umask(0o077)
    try:
        program = start("--config", path)
    finally:
        os.umask(mask)
    assert program.addresses() == ["unix:run/lmtp"]
    assert stat.S_IMODE((folder / "run").stat().st_mode) == 0o755
    assert deliver(f"unix:{folder}/run/lmtp", "a@example.test")[0].startswith("250 ")
    assert program.stop() == 0


def test_a_base_directory_that_cannot_be_made_is_a_fault(folder: Path, config: Config) -> None:
    ended = run("serve", "--config", config('base_dir = "none/run"'), cwd=folder)
    assert ended.returncode == os.EX_CONFIG
    fault = b"lmtp-server: base_dir: cannot make 'none/run': No such file or directory"
    assert fault in ended.stderr.splitlines()
    assert not (folder / "none").exists()


def test_a_base_directory_is_not_left_where_nothing_was_started(
    folder: Path, config: Config
) -> None:
    path = config('base_dir = "run"', 'listen = ["127.0.0.1:0", "unix:none/lmtp"]')
    ended = run("serve", "--config", path, cwd=folder)
    assert ended.returncode == os.EX_CONFIG
    assert b"unix:none/lmtp" in ended.stderr
    assert not (folder / "run").exists()


def test_proxies_and_trust_are_those_of_each_listener(start: Start, config: Config) -> None:
    program = start(
        "--config",
        config(
            'listen = ["127.0.0.1:0"]',
            "workers = 1",
            *("[[listener]]", 'address = "[::1]:0"'),
            *('proxy_networks = ["::1"]', 'trusted_networks = ["192.0.2.0/24"]'),
            "client_limit_per_peer = 1",
        ),
    )
    plain, proxied = program.addresses(2)
    with Peer(plain) as peer:
        assert peer.reply().startswith("220 ")
        assert peer.say("LHLO client.test").startswith("250 ")
        assert peer.say("XCLIENT ADDR=198.51.100.7").startswith("550 ")
    with Peer(proxied) as peer:
        peer.write(b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 24\r\n")
        assert peer.reply().startswith("220 ")
        assert peer.say("LHLO client.test").startswith("250 ")
        assert peer.say("XCLIENT ADDR=198.51.100.7").startswith("220 ")
        with Peer(proxied) as second:
            second.write(b"PROXY TCP4 192.0.2.1 198.51.100.1 4712 24\r\n")
            assert second.reply().startswith("421 4.3.2 ")
        with Peer(proxied) as stranger:
            stranger.write(b"PROXY TCP4 203.0.113.1 198.51.100.1 4713 24\r\n")
            assert stranger.reply().startswith("220 ")
            assert stranger.say("LHLO client.test").startswith("250 ")
            assert stranger.say("XCLIENT ADDR=198.51.100.7").startswith("550 ")
    assert program.stop() == 0


def test_an_account_that_is_not_there(start: Start, config: Config) -> None:
    program = start(
        "--config",
        config("workers = 1", "[[listener]]", 'address = "unix:s"', 'user = "nobody-of-that-name"'),
    )
    assert program.wait() == 78
    assert "unix:s: there is no user 'nobody-of-that-name'" in program.stderr


def test_a_place_that_is_named_twice(start: Start) -> None:
    program = start("--listen", "unix:s", "--listen", "unix:s")
    assert program.wait() == 78
    assert "unix:s: it is there twice" in program.stderr
