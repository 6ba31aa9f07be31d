"""Every example that the pages give does what it says, run as a reader would run it."""

import hashlib
import os
import re
import signal
import sqlite3
import ssl
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

import pytest
import trustme

from benchmarks.peers.ports import free_ports
from lmtp_blocking import Client
from lmtp_proto import Recipient, parse_mailbox

_ROOT = Path(__file__).parents[2]
_PAGES = [_ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md"))]
_TEXT = "".join(page.read_text() for page in _PAGES)
_EXAMPLES = dict(
    re.findall(r"<!-- example: (\w+) -->\n```python\n(.*?)```", _TEXT, flags=re.DOTALL)
)


def test_every_python_block_is_an_example() -> None:
    assert len(_EXAMPLES) == _TEXT.count("```python") == 28


_FIRST_PLACE = re.compile(r"""(?<=127\.0\.0\.1)(:|", )2424""")


def _on(port: int, code: str) -> str:
    """The code with `port` instead of the first one it names."""
    code, count = _FIRST_PLACE.subn(rf"\g<1>{port}", code)
    assert count
    return code


# What the pages say is to be changed for another runtime.
_TO_UVLOOP = [("import asyncio\n", "import asyncio, uvloop\n"), ("asyncio.run(", "uvloop.run(")]
_FROM_UVLOOP_TO = {
    "asyncio": [("import uvloop\n", "import asyncio\n"), ("uvloop.run(", "asyncio.run(")],
    "uvloop": [],
    "gevent": [("import uvloop\n", ""), ("lmtp_asyncio", "lmtp_gevent"), ("uvloop.run(", "(")],
    "blocking": [("import uvloop\n", ""), ("lmtp_asyncio", "lmtp_blocking"), ("uvloop.run(", "(")],
}


def _changed(example: str, changes: Sequence[tuple[str, str]]) -> str:
    code: str = _EXAMPLES[example]
    for old, new in changes:
        assert old in code
        code = code.replace(old, new)
    return code


@contextmanager
def _running(
    example: str,
    port: int,
    folder: Path | None = None,
    changes: Sequence[tuple[str, str]] = (),
) -> Iterator[subprocess.Popen[str]]:
    """The example in its own process, on `port` instead of the first one it names."""
    code = _on(port, _changed(example, changes))
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", re.sub(r"(?<=127\.0\.0\.1:)24\d\d\b", "0", code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _client(port: int, process: subprocess.Popen[str]) -> Client:
    """Connect as soon as the example listens."""
    while process.poll() is None:
        try:
            return Client(f"127.0.0.1:{port}")
        except ConnectionRefusedError:
            continue
    raise AssertionError(process.communicate()[1])


@pytest.mark.parametrize("runtime", ["asyncio", "gevent", "blocking"])
def test_ten_lines_are_a_server(runtime: str) -> None:
    lines = _EXAMPLES[runtime].strip().splitlines()
    assert len([line for line in lines if line]) <= 10
    (port,) = free_ports(1)
    with _running(runtime, port) as process:
        recipients = [
            Recipient(address=parse_mailbox(address))
            for address in ("a@example.org", "b@example.org", "a@example.org")
        ]
        with _client(port, process) as client:
            results = client.submit(None, recipients, [b"Subject: x\r\n", b"\r\nhello\r\n"])
        assert [result.recipient for result in results] == recipients
        assert [str(result.reply) for result in results] == ["250 2.0.0 taken"] * 3
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=20)
    assert stdout == "a@example.org 21 octets\nb@example.org 21 octets\na@example.org 21 octets\n"
    assert stderr == ""
    assert process.returncode == 0


_CONTENT = b"Subject: x\r\n\r\nhello\r\n"
_ADDRESSES = ("alice@example.org", "bob@example.org", "carol@example.net")


def _replies(example: str, folder: Path, changes: Sequence[tuple[str, str]] = ()) -> list[str]:
    """What the example's server answers to each of three recipients."""
    (port,) = free_ports(1)
    recipients = [Recipient(address=parse_mailbox(address)) for address in _ADDRESSES]
    with _running(example, port, folder, changes) as process:
        with _client(port, process) as client:
            results = client.submit(None, recipients, [_CONTENT])
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=20)
    assert (stdout, process.returncode) == ("", 0)
    # A refused recipient is logged, and nothing else.
    assert "Traceback" not in stderr
    return [str(result.reply) for result in results]


def test_tls_for_those_who_ask(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    issued.private_key_pem.write_to_path(tmp_path / "server.key")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    (port,) = free_ports(1)
    with _running("tls", port, tmp_path) as process:
        with _client(port, process) as client:
            assert client.start_tls(context).code == 250
        assert stat.S_IMODE((tmp_path / "lmtp").stat().st_mode) == 0o660
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=20) == ("", "")


def test_an_awaitable_is_an_answer(tmp_path: Path) -> None:
    assert _replies("awaitable", tmp_path) == [
        "250 2.0.0 alice@example.org has 21 octets",
        "250 2.0.0 bob@example.org has 21 octets",
        "250 2.0.0 carol@example.net has 21 octets",
    ]


def test_a_sink_takes_what_is_too_large_for_memory(tmp_path: Path) -> None:
    digest = hashlib.sha256(_CONTENT).hexdigest()
    assert _replies("sink", tmp_path) == [
        f"250 2.0.0 {digest}",
        f"250 2.0.0 {digest}",
        "550 5.1.2 not here",
    ]


def test_a_handler_written_for_aiosmtpd(tmp_path: Path) -> None:
    assert _replies("aiosmtpd", tmp_path) == [
        "250 2.0.0 21 octets for 2",
        "250 2.0.0 21 octets for 2",
        "550 5.1.2 not here",
    ]


def test_an_observer_sees_what_happens(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    recipients = [Recipient(address=parse_mailbox(f"{name}@example.org")) for name in "ab"]
    with _running("observer", port, tmp_path) as process:
        with _client(port, process) as client:
            client.submit(None, recipients, [_CONTENT])
        process.send_signal(signal.SIGTERM)
        stdout, _ = process.communicate(timeout=20)
    first, second, last = stdout.splitlines()
    name = first.removesuffix(".1 a@example.org 550")
    assert second == f"{name}.2 b@example.org 550"
    assert re.fullmatch(rf"{re.escape(name)} 21 octets in \d+\.\d{{3}} s", last)


def test_a_conversation_can_be_wrapped(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with _running("around", port, tmp_path) as process:
        with _client(port, process) as client:
            client.submit(None, [Recipient(address=parse_mailbox("a@example.org"))], [_CONTENT])
        process.send_signal(signal.SIGTERM)
        stdout, _ = process.communicate(timeout=20)
    assert re.search(r"^\S+ < b'220 ", stdout)
    assert re.search(r"^\S+ > b'LHLO ", stdout, re.MULTILINE)


def test_the_store_is_a_handler(tmp_path: Path) -> None:
    alice, *others = _replies("store", tmp_path)
    assert alice.startswith("250 2.0.0 <alice@example.org> ")
    assert others == ["550 5.1.1 no such user"] * 2
    (message,) = (tmp_path / "alice/new").iterdir()
    assert message.read_bytes().endswith(_CONTENT.replace(b"\r\n", b"\n"))


@pytest.mark.parametrize("runtime", _FROM_UVLOOP_TO)
def test_a_server_that_discards(tmp_path: Path, runtime: str) -> None:
    changes = _FROM_UVLOOP_TO[runtime]
    assert len([line for line in _changed("discard", changes).splitlines() if line]) <= 10
    assert _replies("discard", tmp_path, changes) == ["250 2.0.0 discarded"] * 3


@pytest.mark.parametrize("runtime", ["asyncio", "uvloop", "gevent", "blocking"])
def test_a_store_that_blocks(tmp_path: Path, runtime: str) -> None:
    changes = {
        "gevent": [],
        "blocking": [("lmtp_gevent", "lmtp_blocking")],
    }.get(
        runtime,
        [
            ("import sqlite3\n", f"import asyncio, uvloop, sqlite3\nrun = {runtime}.run\n"),
            ("lmtp_gevent", "lmtp_asyncio"),
            ("\nserve(", "\nrun(serve("),
            ('"127.0.0.1:2424")', '"127.0.0.1:2424"))'),
        ],
    )
    assert _replies("callback", tmp_path, changes) == ["250 2.0.0 stored"] * 3
    with closing(sqlite3.connect(tmp_path / "mail.db")) as database:
        stored = database.execute("SELECT address, content FROM mail ORDER BY address").fetchall()
    assert stored == [(address, _CONTENT) for address in _ADDRESSES]


def test_the_store_with_quotas(tmp_path: Path) -> None:
    for _ in range(2):
        for reply in _replies("quota", tmp_path):
            assert reply.startswith("250 2.0.0 <")
    # The first message has made the Maildir, the second the file.
    size = (tmp_path / "alice/maildirsize").read_bytes()
    assert size.startswith(b"1073741824S,100000C\n")


def test_the_store_that_recognises_retries(tmp_path: Path) -> None:
    assert all(reply.endswith(" Saved") for reply in _replies("retries", tmp_path))
    assert all(reply.endswith(" Saved before") for reply in _replies("retries", tmp_path))
    assert len(list((tmp_path / "alice/new").iterdir())) == 1


@pytest.mark.parametrize(
    ("example", "changes"),
    [
        ("in_asyncio", []),
        ("in_asyncio", _TO_UVLOOP),
        ("in_gevent", []),
        ("in_gevent_patched", []),
        (
            "in_gevent_patched",
            [
                ("from gevent import monkey\nmonkey.patch_all()\n", ""),
                ("lmtp_gevent", "lmtp_blocking"),
            ],
        ),
        ("in_threads", []),
    ],
)
def test_a_server_in_an_application(example: str, changes: Sequence[tuple[str, str]]) -> None:
    (port,) = free_ports(1)
    recipients = [
        Recipient(address=parse_mailbox(f"{name}@example.org")) for name in ("alice", "stop")
    ]
    with _running(example, port, changes=changes) as process:
        with _client(port, process) as client:
            results = client.submit(None, recipients, [_CONTENT])
        stdout, stderr = process.communicate(timeout=20)
    word = "counted" if example == "in_threads" else "processed"
    assert [str(result.reply) for result in results] == [f"250 2.0.0 {word}"] * 2
    if example == "in_threads":
        assert stdout == "42 octets\n"
    else:
        assert stdout == "alice@example.org 21 octets\nstop@example.org 21 octets\n"
    assert (stderr, process.returncode) == ("", 0)


def test_a_runtime_of_its_own(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    recipients = [Recipient(address=parse_mailbox(address)) for address in _ADDRESSES]
    with _running("runtime", port, tmp_path) as process:
        for _ in range(2):
            with _client(port, process) as client:
                results = client.submit(None, recipients, [_CONTENT])
            assert [str(result.reply) for result in results] == [
                f"250 2.0.0 {address} has 21 octets" for address in _ADDRESSES
            ]
        process.kill()
        assert process.communicate() == ("", "")


@pytest.mark.parametrize(
    ("example", "messages", "changes"),
    [
        ("client", 1, []),
        ("client_gevent", 1, []),
        ("client_asyncio", 1, []),
        ("client_asyncio", 1, _TO_UVLOOP),
        ("smtplib", 1, []),
        ("pool", 10, []),
        ("pool_gevent", 10, []),
        ("pool_asyncio", 10, []),
        ("pool_asyncio", 10, _TO_UVLOOP),
    ],
)
def test_the_clients(
    tmp_path: Path, example: str, messages: int, changes: Sequence[tuple[str, str]]
) -> None:
    (port,) = free_ports(1)
    with _running("store", port, tmp_path) as process:
        _client(port, process).close()
        code = _on(port, _changed(example, changes))
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
        )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * messages
    assert all(line.startswith("alice@example.org 250 2.0.0 ") for line in lines[::2])
    assert lines[1::2] == ["bob@example.org 550 5.1.1 no such user"] * messages
    assert len(list((tmp_path / "alice/new").iterdir())) == messages


def test_the_protocol_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _EXAMPLES["protocol"]], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[0] == repr(b"220 mx.example LMTP\r\n")
    assert done.stdout.splitlines()[-1] == repr(b"250 2.1.0 go on\r\n")


def test_the_settings_file_is_one(tmp_path: Path) -> None:
    page = (_ROOT / "docs/lmtp-server.md").read_text()
    # The first is a whole file.
    example, *_ = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    for absolute, own in (("/var/spool/postfix/private", str(tmp_path)), ("/srv", str(tmp_path))):
        assert absolute in example
        example = example.replace(absolute, own)
    config = tmp_path / "lmtp.toml"
    config.write_text(example.replace("127.0.0.1:2424", "127.0.0.1:0"))
    process = subprocess.Popen(
        [sys.executable, "-m", "lmtp_server", "serve", "--config", str(config), "--workers", "1"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
    )
    assert process.stderr is not None
    with process.stderr:
        # One that root has started may have something to say before.
        lines = iter(process.stderr.readline, "")
        ready = list(islice((line for line in lines if line.startswith("listening ")), 2))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    assert ready[0].startswith("listening on 127.0.0.1:")
    assert ready[1] == f"listening on unix:{tmp_path}/lmtp\n"


def test_the_commands_take_the_options_that_the_page_names() -> None:
    page = (_ROOT / "docs/lmtp-server.md").read_text()
    for command in ("serve", "send"):
        synopsis = page.split(f"lmtp-server {command}", 1)[1].split("lmtp-server ", 1)[0]
        named = set(re.findall(r"--[a-z-]+", synopsis))
        done = subprocess.run(
            [sys.executable, "-m", "lmtp_server", command, "--help"],
            capture_output=True,
            text=True,
            check=True,
            cwd=_ROOT,
        )
        taken = set(re.findall(r"--[a-z-]+", done.stdout))
        assert named | {"--help"} == taken


def test_the_faults_are_told_as_the_page_of_the_settings_shows_them(tmp_path: Path) -> None:
    page = (_ROOT / "docs/settings.md").read_text()
    shown = re.findall(r"^lmtp-server: lmtp\.toml:.*$", page, flags=re.MULTILINE)
    (tmp_path / "lmtp.toml").write_text(
        '[[listener]]\naddress = "unix:a"\ntls = "on"\n\n[tls]\n\n[trace]\nrecieved = true\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "lmtp_server", "config", "check", "--config", "lmtp.toml"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{_ROOT}:{_ROOT}/adapters"},
    )
    assert done.stderr.splitlines() == shown
    assert shown


def test_every_table_of_the_settings_page_is_one(tmp_path: Path) -> None:
    page = (_ROOT / "docs/settings.md").read_text()
    headers = re.findall(r"^## `(\[.*?\])`", page, flags=re.MULTILINE)
    assert {"[tls]", "[[listener]]", "[[quota.warnings]]"} <= set(headers)
    for header in headers:
        tomllib.loads(header)
