"""`python -m mailstore deliver`: exit codes, files and what is said."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mailstore.support import mail_in

_MESSAGE = b"Return-Path: <before@example.net>\nSubject: x\n\nbody\n"


def _run(*arguments: str, message: bytes = _MESSAGE) -> tuple[int, str]:
    """The exit code and what was said on standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "mailstore", *arguments],
        input=message,
        capture_output=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.stdout == b"" or "--help" in arguments
    return done.returncode, done.stderr.decode()


def test_a_message_is_delivered_as_it_is(tmp_path: Path) -> None:
    maildir = tmp_path / "Maildir"
    assert _run("deliver", "--maildir", str(maildir)) == (0, "")
    # The directory is there now; a link leads to it as well.
    (tmp_path / "link").symlink_to(maildir)
    large = _MESSAGE + b"0123456789\n" * 50_000
    assert _run("deliver", "--maildir", str(tmp_path / "link"), message=large) == (0, "")
    assert mail_in(maildir) == [_MESSAGE, large]


def test_fields_are_written_if_asked_for(tmp_path: Path) -> None:
    arguments = ("deliver", "--maildir", str(tmp_path / "m"), "--recipient", "to@example.org")
    assert _run(*arguments, "--sender", "from@example.net") == (0, "")
    assert mail_in(tmp_path / "m") == [
        b"Return-Path: <from@example.net>\nDelivered-To: to@example.org\nSubject: x\n\nbody\n"
    ]
    assert _run("deliver", "--maildir", str(tmp_path / "null"), "--sender", "") == (0, "")
    assert mail_in(tmp_path / "null") == [b"Return-Path: <>\nSubject: x\n\nbody\n"]


def test_folders_flags_and_keywords(tmp_path: Path) -> None:
    arguments = ["deliver", "--maildir", str(tmp_path / "m"), "--mailbox", "\xfc/a"]
    arguments += ["--separator", "/", "--flags", "SF", "--keyword", "Junk", "--keyword", "x"]
    assert _run(*arguments, "--create", "--subscribe") == (0, "")
    assert _run(*arguments, "--create", "--utf8") == (0, "")
    for folder in (".&APw-.a", ".\xfc.a"):
        (message,) = (tmp_path / "m" / folder / "cur").iterdir()
        assert message.name.endswith(":2,FSab")
    assert (tmp_path / "m" / "subscriptions").read_bytes() == b"V\t2\n\n&APw-\ta\n"


def test_a_mailbox_that_is_missing(tmp_path: Path) -> None:
    arguments = ("deliver", "--maildir", str(tmp_path / "m"), "--mailbox")
    assert _run(*arguments, "a") == (0, "")
    assert len(mail_in(tmp_path / "m")) == 1
    for name in ("a", "../a"):
        code, said = _run(*arguments, name, "--refuse")
        assert code == os.EX_NOUSER
        assert f"there is no mailbox '{name}'" in said
    assert len(mail_in(tmp_path / "m")) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "required"),
        (("--maildir", ""), "--maildir: '' is no directory"),
        (("--maildir", __file__), "is no directory"),
        (("--maildir", "m", "--flags", "X"), "'X' are no flags: allowed are the letters DFPRST"),
        (("--maildir", "m", "--keyword", "a b"), "'a b' is no keyword"),
        (("--maildir", "m", "--separator", "ab"), "'ab' is no separator"),
        (("--maildir", "m", "--recipient", "a@"), "--recipient: 'a@': the domain is missing"),
        (("--maildir", "m", "--sender", "a b"), "--sender: 'a b'"),
        (("--maildir", "m", "more"), "more"),
    ],
)
def test_wrong_flags(arguments: tuple[str, ...], said: str) -> None:
    code, error = _run("deliver", *arguments)
    assert code == os.EX_USAGE
    assert said in error
    assert "Traceback" not in error


def test_a_maildir_that_cannot_be_made(tmp_path: Path) -> None:
    code, said = _run("deliver", "--maildir", str(tmp_path / "missing" / "m"))
    assert code == os.EX_CANTCREAT
    assert f"{tmp_path}/missing" in said
    assert "make that directory first" in said


def test_a_failure_for_now(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "new").touch()
    code, said = _run("deliver", "--maildir", str(tmp_path / "m"))
    assert code == os.EX_TEMPFAIL
    # What went wrong, and where.
    assert "ENOTDIR" in said
    assert "'new'" in said


def test_help() -> None:
    assert _run("--help") == (0, "")
    assert _run("deliver", "--help") == (0, "")
