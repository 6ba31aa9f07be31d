"""`lmtp-server send`: a line for each recipient, an exit code for what is to be done next."""

import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.server._program import run
from tests.server._scripted import HANG_UP, Scripted

# sysexits.h
EX_OK = 0
EX_NOINPUT = 66
EX_UNAVAILABLE = 69
EX_TEMPFAIL = 75
EX_PROTOCOL = 76
EX_CONFIG = 78

A, B = "a@example.test", "b@example.test"
OK = b"250 2.0.0 saved\r\n"
NO_SPACE = b"452 4.3.1 full\r\n"
TOO_BIG = b"552 5.2.3 too big\r\n"


def _send(
    address: str,
    recipients: Sequence[str],
    *,
    folder: Path,
    sender: str = "sender@example.test",
    file: str = "-",
    content: bytes = b"Subject: x\n\nx\n",
) -> tuple[int, list[str], str]:
    """Run it: the exit code, the lines on standard output, standard error."""
    arguments = ["--to", address, "--from", sender]
    for recipient in recipients:
        arguments += ["--rcpt", recipient]
    done = run("send", *arguments, file, cwd=folder, stdin=content)
    stderr = done.stderr.decode()
    assert "Traceback" not in stderr
    return done.returncode, done.stdout.decode().splitlines(), stderr


@pytest.mark.parametrize(
    ("script", "final", "status", "lines"),
    [
        ({}, OK + OK, EX_OK, ["250 2.0.0 saved"] * 2),
        ({}, b"250-2.0.0 one\r\n250 2.0.0 two\r\n" + OK, EX_OK, ["250 2.0.0 one two", OK]),
        ({}, b"250 saved\r\n" + OK, EX_OK, ["250 saved", OK]),
        ({}, OK + NO_SPACE, EX_TEMPFAIL, [OK, NO_SPACE]),
        ({}, OK + TOO_BIG, EX_UNAVAILABLE, [OK, TOO_BIG]),
        ({}, TOO_BIG + NO_SPACE, EX_TEMPFAIL, [TOO_BIG, NO_SPACE]),
        ({f"RCPT TO:<{A}>": b"550 5.1.1 who?\r\n"}, OK, EX_UNAVAILABLE, ["550 5.1.1 who?", OK]),
        ({f"RCPT TO:<{B}>": b"451 4.3.0 wait\r\n"}, OK, EX_TEMPFAIL, [OK, "451 4.3.0 wait"]),
        (
            {f"RCPT TO:<{A}>": b"550 5.1.1 who?\r\n"},
            NO_SPACE,
            EX_TEMPFAIL,
            ["550 5.1.1 who?", NO_SPACE],
        ),
        (
            {"RCPT": b"550 5.1.1 who?\r\n", "DATA": b"503 5.5.1 nobody\r\n"},
            b"",
            EX_UNAVAILABLE,
            ["550 5.1.1 who?"] * 2,
        ),
        (
            {
                "MAIL": b"550 5.1.8 you?\r\n",
                "RCPT": b"503 5.5.1 MAIL first\r\n",
                "DATA": b"503 5.5.1 MAIL first\r\n",
            },
            b"",
            EX_UNAVAILABLE,
            ["550 5.1.8 you?"] * 2,
        ),
        ({"DATA": b"451 4.3.0 later\r\n"}, b"", EX_TEMPFAIL, ["451 4.3.0 later"] * 2),
        ({"": b"421 4.3.2 busy\r\n"}, b"", EX_TEMPFAIL, ["421 4.3.2 busy"] * 2),
        ({"": b"554 5.3.2 closed\r\n"}, b"", EX_UNAVAILABLE, ["554 5.3.2 closed"] * 2),
        ({"LHLO": b"500 5.5.1 SMTP only\r\n"}, b"", EX_UNAVAILABLE, ["500 5.5.1 SMTP only"] * 2),
        ({"MAIL": HANG_UP}, b"", EX_TEMPFAIL, ["4", "4"]),
        ({}, HANG_UP, EX_TEMPFAIL, ["4", "4"]),
    ],
)
def test_replies_and_exit_codes(
    script: dict[str, bytes],
    final: bytes,
    status: int,
    lines: list[str | bytes],
    folder: Path,
) -> None:
    expected = [text if isinstance(text, str) else text.decode().strip() for text in lines]
    with Scripted(script, final=final) as server:
        code, printed, _ = _send(server.address, [A, B], folder=folder)

    assert code == status
    assert len(printed) == 2
    for line, recipient, reply in zip(printed, [A, B], expected, strict=True):
        assert line.startswith(f"{recipient}: {reply}")
        if len(reply) > 1:
            assert line == f"{recipient}: {reply}"


@pytest.mark.parametrize(
    ("script", "final"),
    [
        ({"": b"SSH-2.0-OpenSSH_9.2\r\n"}, b""),
        ({"MAIL": b"250 2.1.0 OK\r\n200 surplus\r\nwhat?\r\n"}, b""),
        ({}, b"999 2.0.0 saved\r\n"),
        ({}, b"354 more\r\n"),
        ({"": b"x" * 1_000_000}, b""),
    ],
)
def test_a_server_that_breaks_the_protocol(
    script: dict[str, bytes], final: bytes, folder: Path
) -> None:
    with Scripted(script, final=final) as server:
        code, printed, stderr = _send(server.address, [A, B], folder=folder)

    assert code == EX_PROTOCOL
    assert [line.partition(" 4")[0] for line in printed] == [f"{A}:", f"{B}:"]
    (line,) = stderr.splitlines()
    assert line.startswith(f"lmtp-server: {server.address} ")


def test_what_is_already_accepted_is_told_when_the_rest_is_lost(folder: Path) -> None:
    with Scripted(final=OK + b"nonsense\r\n") as server:
        code, printed, _ = _send(server.address, [A, B], folder=folder)

    assert code == EX_PROTOCOL
    assert printed[0] == f"{A}: 250 2.0.0 saved"
    assert printed[1].startswith(f"{B}: 4")


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_nobody_listens(unix: bool, folder: Path) -> None:
    if unix:
        address = "unix:nothing"
    else:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            address = f"127.0.0.1:{closed.getsockname()[1]}"

    code, printed, _ = _send(address, [A, B], folder=folder)

    assert code == EX_TEMPFAIL
    assert [line[: len(A) + 9] for line in printed] == [f"{A}: 451 4.4", f"{B}: 451 4.4"]


def test_the_envelope(folder: Path) -> None:
    recipients = [A, B, A, '"odd one"@example.test']
    with Scripted(final=OK * 4, unix=str(folder / "s")) as server:
        code, printed, _ = _send(server.address, recipients, folder=folder)

    assert code == EX_OK
    assert printed == [f"{recipient}: 250 2.0.0 saved" for recipient in recipients]
    assert server.lines[0].startswith("LHLO ")
    assert server.lines[1].startswith("MAIL FROM:<sender@example.test>")
    assert server.lines[2:7] == [*(f"RCPT TO:<{recipient}>" for recipient in recipients), "DATA"]
    assert server.lines[7:] == ["QUIT"]


@pytest.mark.parametrize("sender", ["", "<>"])
def test_the_null_reverse_path(sender: str, folder: Path) -> None:
    with Scripted(final=OK) as server:
        code, _, _ = _send(server.address, [A], sender=sender, folder=folder)
    assert code == EX_OK
    assert server.lines[1].split(" ")[1] == "FROM:<>"


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"Subject: x\n\nbody\n", b"Subject: x\r\n\r\nbody\r\n"),
        (b"Subject: x\r\n\r\nbody\r\n", b"Subject: x\r\n\r\nbody\r\n"),
        (b"mixed\r\nends\nhere\n\n", b"mixed\r\nends\r\nhere\r\n\r\n"),
        (b"no end", b"no end\r\n"),
        (b"", b""),
        (b".\n..\nx.\n.y\n", b"..\r\n...\r\nx.\r\n..y\r\n"),
        (b"\xff\x00\x7f\n", b"\xff\x00\x7f\r\n"),
        (b"x" * 65535 + b"\r\n.\n", b"x" * 65535 + b"\r\n..\r\n"),
        (b"\n" * 200_000, b"\r\n" * 200_000),
    ],
)
@pytest.mark.parametrize("source", ["file", "stdin"])
def test_the_content(content: bytes, wire: bytes, source: str, folder: Path) -> None:
    file = "-"
    if source == "file":
        (folder / "message").write_bytes(content)
        file, content = "message", b""
    with Scripted(final=OK) as server:
        code, _, _ = _send(server.address, [A], file=file, content=content, folder=folder)
    assert code == EX_OK
    assert server.content == wire


@pytest.mark.parametrize(("file", "reason"), [("none", "No such file"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read(file: str, reason: str, folder: Path) -> None:
    # Nobody listens there: the file is looked at first.
    code, printed, stderr = _send("127.0.0.1:1", [A], file=file, folder=folder)
    assert code == EX_NOINPUT
    assert not printed
    assert stderr.startswith(f"lmtp-server: cannot read '{file}': {reason}")


def test_all_bad_flags_at_once(folder: Path) -> None:
    done = run(
        *("send", "--to", "nowhere", "--from", "a b@example.test", "--rcpt", A, "--rcpt", "<b>"),
        *("--rcpt", "", "--wait", "none"),
        cwd=folder,
    )
    assert done.returncode == EX_CONFIG
    assert not done.stdout
    faults = done.stderr.decode().splitlines()
    starts = ["there is no argument '--wait'", "--to: 'nowhere'", "--from: 'a b@example.test'"]
    starts += ["--rcpt: '<b>'", "--rcpt: ''"]
    assert [
        fault.removeprefix("lmtp-server: ")[: len(start)]
        for fault, start in zip(faults, starts, strict=True)
    ] == starts


def test_a_reply_cannot_write_to_the_terminal(folder: Path) -> None:
    with Scripted(final=b"250 2.0.0 \x1b]0;owned\x07\r\n") as server:
        code, (line,), _ = _send(server.address, [A], folder=folder)
    assert code == EX_OK
    assert line.startswith(f"{A}: 250 2.0.0 ")
    assert line.isprintable()
