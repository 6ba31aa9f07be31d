"""One message delivered from the command line, as an MTA does it."""

import json
import os
import pwd
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server._program import COMMAND, SECONDS, run_anew

MESSAGE = b"Subject: x\nReturn-Path: <of@the.sender>\n\nbody\n"


def _only(maildir: Path) -> bytes:
    (file,) = (maildir / "new").iterdir()
    return file.read_bytes()


@pytest.mark.parametrize(
    ("content", "stored"),
    [
        (MESSAGE.replace(b"\n", b"\r\n"), MESSAGE),
        (b"From you@z Thu Jan  1 00:00:00 1970\n" + MESSAGE, MESSAGE),
        (b"From: you\n\nno end\n.\n..", b"From: you\n\nno end\n.\n.."),
        (b"", b""),
        (b"From you@z\r\n" + MESSAGE + b"x" * 200_000, MESSAGE + b"x" * 200_000),
    ],
)
def test_what_comes_is_stored(folder: Path, content: bytes, stored: bytes) -> None:
    done = run_anew("deliver", "-d", "Me@Example.org", cwd=folder, stdin=content)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert _only(folder / "mail/example.org/me") == stored


def test_all_flags(folder: Path) -> None:
    (folder / "s.toml").write_text("mailbox_autocreate = true\n")
    (folder / "message").write_bytes(MESSAGE)
    done = run_anew(
        *("deliver", "-c", "s.toml", "-d", "me@example.org", "-f", "", "-a", "old@example.org"),
        *("-r", "me+x@example.org", "-m", "Lists.dev", "-e", "-k", "-p", "message"),
        cwd=folder,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert _only(folder / "mail/example.org/me/.Lists.dev") == MESSAGE


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("-d", "nobody"), 67, ""),
        (("-d", "nobody", "-e"), 67, "User doesn't exist: nobody\n"),
        (("-d", "../x@example.org"), 67, ""),
        (("-d", "full@example.org", "-e"), 77, "Quota exceeded (mailbox for user is full)\n"),
        (("-d", "me@example.org", "-x"), 64, "'-x'"),
        (("-d", "me@example.org", "more"), 64, "'more'"),
        (("-d",), 64, "-d"),
        (("-d", "me@example.org", "-p", "missing"), 75, "'missing': No such file"),
        (("-d", "broken@example.org"), 75, "no absolute path"),
        (("-d", "me@example.org", "-c", "missing.toml"), 75, "missing.toml"),
    ],
)
def test_exit_codes(folder: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    (folder / "users").write_text(
        f"full@example.org:::::{folder}/full::userdb_quota_rule=*:bytes=10\n"
        "broken@example.org:::::relative\n"
        f"me@example.org:::::{folder}/me\n"
    )
    (folder / "settings").write_text(
        f'mail = "~/Maildir"\n[[userdb]]\ndriver = "passwd-file"\npath = "{folder}/users"\n'
    )
    config = () if "-c" in arguments else ("-c", "settings")
    done = run_anew("deliver", *config, *arguments, cwd=folder, stdin=MESSAGE)
    assert done.returncode == code
    text = done.stderr.decode()
    assert text == said if said.endswith("\n") or not said else said in text
    assert sorted(path.name for path in folder.iterdir()) == ["settings", "users"]


@pytest.mark.parametrize("key", ["path", "info_path"])
def test_the_log_has_a_line_for_each_delivery(folder: Path, key: str) -> None:
    (folder / "s.toml").write_text(
        "[quota]\nmax_mail_size = 60\n"
        f"[log]\n{key} = 'log'\nformat = 'json'\ndeliver_format = '%e %{{message}}'\n"
    )
    command = ("deliver", "-c", "s.toml", "-d", "Me@example.org", "-f", "you@example.net")
    done = run_anew(*command, cwd=folder, stdin=MESSAGE)
    assert (done.returncode, done.stderr) == (0, b"")
    done = run_anew(*command, "-e", cwd=folder, stdin=MESSAGE + b"x" * 60)
    assert done.returncode == os.EX_NOPERM
    reason = done.stderr.decode().removesuffix("\n")
    saved, refused = map(json.loads, (folder / "log").read_text().splitlines())
    for line, message in ((saved, "saved mail to"), (refused, "save failed to")):
        text = re.sub(r"<\d+><[^<>]+>", "", line["message"])
        assert text.startswith(f"lda(me@example.org): you@example.net {message} INBOX")
    assert refused["message"].endswith(f": {reason}")
    assert saved["size"] == str(len(MESSAGE))


def test_a_log_that_cannot_be_opened_loses_no_mail(folder: Path) -> None:
    (folder / "s.toml").write_text("[log]\npath = '/proc/log'\n")
    done = run_anew("deliver", "-c", "s.toml", "-d", "me@example.org", cwd=folder, stdin=MESSAGE)
    assert done.returncode == 0
    (line,) = done.stderr.decode().splitlines()
    assert "log.path: cannot log to '/proc/log'" in line
    assert _only(folder / "mail/example.org/me") == MESSAGE


def test_addresses_that_are_none_lose_no_mail(folder: Path) -> None:
    flags = ("-d", "me@example.org", "-f", "no <address", "-r", "\n", "-a", "?")
    done = run_anew("deliver", *flags, cwd=folder, stdin=MESSAGE)
    assert done.returncode == 0
    assert b"'no <address' is no mailbox" in done.stderr
    assert _only(folder / "mail/example.org/me") == MESSAGE


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_root_becomes_the_user(folder: Path) -> None:
    folder.chmod(0o755)
    home = folder / "home"
    home.mkdir()
    account = pwd.getpwnam("nobody")
    os.chown(home, account.pw_uid, account.pw_gid)
    (folder / "users").write_text(
        f"nobody:x:{account.pw_uid}:{account.pw_gid}::{home}::userdb_quota_rule=*:storage=1M\n"
        f"other:x:{account.pw_uid + 1}:{account.pw_gid}::{home}\n"
    )
    (folder / "s.toml").write_text(
        f'mail = "~/Maildir"\n[[userdb]]\ndriver = "passwd-file"\npath = "{folder}/users"\n'
    )
    done = run_anew("deliver", "-c", "s.toml", "-d", "nobody", cwd=folder, stdin=MESSAGE)
    assert (done.returncode, done.stderr) == (0, b"")
    assert _only(home / "Maildir") == MESSAGE
    made = [home / "Maildir", *(home / "Maildir").rglob("*")]
    assert {(one.stat().st_uid, one.stat().st_gid) for one in made} == {
        (account.pw_uid, account.pw_gid)
    }
    done = run_anew("deliver", "-c", "s.toml", "-d", "other", cwd=folder, stdin=MESSAGE)
    assert done.returncode == os.EX_TEMPFAIL
    assert b"belongs to uid" in done.stderr
    done = run_anew("deliver", cwd=folder, stdin=MESSAGE)
    assert done.returncode == os.EX_USAGE


def test_without_a_user_it_is_who_runs_it(folder: Path) -> None:
    # As root, whose mail it cannot be, somebody else runs it.
    uid = 65534 if os.geteuid() == 0 else os.geteuid()
    folder.chmod(0o755)
    home = folder / "home"
    home.mkdir()
    (home / "elsewhere").mkdir()
    (home / "Maildir").symlink_to("elsewhere")
    if uid != os.geteuid():
        os.chown(home, uid, -1)
        os.chown(home / "elsewhere", uid, -1)
    # All is imported before: Python may lie where only root reads. Settings that were read once
    # have imported what pydantic needs.
    program = (
        "import os, sys, lmtp_server._commands._deliver\n"
        "from lmtp_server.__main__ import main\n"
        "from lmtp_server._settings import read_settings\n"
        "read_settings({}, None, environment={})\n"
        f"os.getuid() == {uid} or os.setuid({uid})\n"
        "sys.exit(main(['deliver']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        input=MESSAGE,
        capture_output=True,
        timeout=SECONDS,
        check=False,
        env={**os.environ, "HOME": str(home), "USER": "me"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    # The links in a home are its owner's.
    assert _only(home / "elsewhere") == MESSAGE


def test_programs_that_are_run_get_a_small_environment(folder: Path) -> None:
    script = folder / "warn"
    # Slow enough to be left behind by who does not wait.
    script.write_text(f"#!/bin/sh\nsleep 0.2\nenv > {folder}/$1\n")
    script.chmod(0o755)
    (folder / "s.toml").write_text(
        f"""
        [quota]
        rules = ["*:messages=9"]
        warnings = [
            {{ at = "messages=2", command = ["{script}", "kept"] }},
            {{ at = "messages=1", command = ["{script}", "clean"] }},
        ]
        """
    )
    for flags, name in ((), "clean"), (("-k",), "kept"):
        done = subprocess.run(
            [*COMMAND, "deliver", "-c", "s.toml", "-d", "me@example.org", *flags],
            cwd=folder,
            input=MESSAGE,
            capture_output=True,
            timeout=SECONDS,
            check=True,
            env={**os.environ, "LMTP_SECRET": "x", "HOME": "/h"},
        )
        assert done.stderr == b""
        # The warning was run to its end before the command ended.
        found = (folder / name).read_text()
        assert "HOME=/h" in found
        assert ("LMTP_SECRET" in found) == (name == "kept")
