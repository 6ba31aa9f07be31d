"""User directories behind the daemon's door: who is accepted, and where the mail is then."""

import os
import pwd
import re
from collections.abc import Callable
from pathlib import Path

from tests.server._peer import Peer, deliver
from tests.server._program import Program, run

Start = Callable[..., Program]


def _as_one_user(folder: Path) -> str:
    """Settings by which one user has all mail, and the folder that user's: root has none."""
    if os.geteuid() != 0:
        return ""
    nobody = pwd.getpwnam("nobody")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
    return 'user = "nobody"\n'


def _rcpt(peer: Peer, *recipients: str) -> list[str]:
    """The replies to recipients of one transaction, without the text."""
    assert peer.say("MAIL FROM:<sender@example.test>").startswith("250 ")
    replies = [peer.say(f"RCPT TO:<{recipient}>") for recipient in recipients]
    assert peer.say("RSET").startswith("250 ")
    return [reply[:9] for reply in replies]


def _names(maildir: Path) -> int:
    return len(list((maildir / "new").iterdir()))


_YES, _NO, _LATER = "250 2.1.5", "550 5.1.1", "451 4.3.0"


def test_passwd_file(start: Start, folder: Path) -> None:
    (folder / "real").mkdir()
    (folder / "homes").symlink_to("real")
    (folder / "trap").mkdir()
    (folder / "trap/Maildir").symlink_to("../real")
    users = folder / "users"
    users.write_text(
        f"joe@example.org:x:::Joe:{folder}/homes/joe::userdb_quota_rule=*:messages=1\n"
        f"away@example.org:::::{folder}/homes/away::userdb_mail=maildir:{folder}/far/%d/%n\n"
        f"alias@example.org:::::{folder}/homes/joe::user=joe@example.org\n"
        f"bare@example.org::::::\n"
        f"wait@example.org:::::{folder}/homes/joe::userdb_tempfail=yes\n"
        f"trap@example.org:::::{folder}/trap::\n"
        "broken@example.org:x:many:many::/\n"
        "root@example.org:x:0:0::/root\n"
    )
    (folder / "s.toml").write_text(
        f'{_as_one_user(folder)}mail = "~/Maildir"\n[[userdb]]\ndriver = "passwd-file"\n'
        f'path = "{users}"\n'
    )
    program = start("--listen", "unix:s", "--workers", "1", "--config", "s.toml")
    program.addresses()
    address = f"unix:{folder}/s"
    assert deliver(address, "Joe+x@Example.ORG", "away@example.org")[0].startswith("250 ")
    # The administrator's link leads to the home, and nothing was made beside it.
    assert _names(folder / "real/joe/Maildir") == 1
    assert _names(folder / "far/example.org/away") == 1
    assert sorted(path.name for path in (folder / "real").iterdir()) == ["joe"]
    # A link of the user's leads nowhere.
    assert deliver(address, "trap@example.org")[0].startswith("451 4.3.0 ")
    with Peer(address) as peer:
        peer.greet()
        asked = ["joe", "alias", "nobody", "bare", "wait", "broken", "root"]
        found = _rcpt(peer, *(f"{user}@example.org" for user in asked))
        assert found == ["552 5.2.2", _YES, _NO, *[_LATER] * 4]
        assert _rcpt(peer, "joe@example.net") == [_NO]
        with users.open("a") as file:
            file.write(f"nobody@example.org:::::{folder}/homes/nobody\n")
        assert _rcpt(peer, "nobody@example.org") == [_YES]
        users.unlink()
        assert _rcpt(peer, "joe@example.org", "nobody@example.org") == [_LATER, _LATER]
        peer.say("MAIL FROM:<>")
        assert re.fullmatch(
            r"550 5\.1\.1 <a!b@example\.org> \S+ User doesn't exist: a!b@example\.org",
            peer.say("RCPT TO:<a!b@example.org>"),
        )
    program.wait_for(r"line 7, user 'broken@example.org': there is no user 'many'")
    program.wait_for("line 8, user 'root@example.org': its UID or GID is 0")
    program.wait_for("user 'bare@example.org': it has no home")
    assert program.stop() == 0
    assert "Traceback" not in program.stderr


def test_several_in_order(start: Start, folder: Path) -> None:
    (folder / "first").write_text(f"a@example.org:::::{folder}/first-a\n")
    (folder / "second").write_text("@example.org\n")
    (folder / "s.toml").write_text(
        f"""
        {_as_one_user(folder)}
        mail = "{folder}/mail/%d/%1n/%n"
        auth_username_chars = "abcdefghijklmnopqrstuvwxyz.@"
        [[userdb]]
        driver = "passwd-file"
        path = "{folder}/first"
        override_fields = {{ mail = "~/M" }}
        [[userdb]]
        driver = "static"
        users = "{folder}/second"
        fields = {{ quota_rule = "*:bytes=500" }}
        [[userdb]]
        driver = "system"
        [quota]
        rules = ["*:messages=9"]
        """
    )
    program = start("--listen", "unix:s", "--workers", "1", "--config", "s.toml")
    program.addresses()
    address = f"unix:{folder}/s"
    replies = deliver(address, "a@example.org", "b@example.org", content=b"x\r\n" * 200)
    assert [reply[:9] for reply in replies] == ["250 2.0.0", "552 5.2.2"]
    assert _names(folder / "first-a/M") == 1
    assert deliver(address, "b@example.org")[0].startswith("250 ")
    assert _names(folder / "mail/example.org/b/b") == 1
    with Peer(address) as peer:
        peer.greet()
        # root is in the third only, and gets no mail.
        asked = ["c@example.net", "root@example.net", "b2@example.org"]
        assert _rcpt(peer, *asked) == [_NO, _LATER, _NO]
        (folder / "first").unlink()
        # Those of the second are known for certain; the first might have known the others.
        assert _rcpt(peer, "b@example.org", "c@example.net") == [_YES, _LATER]
    assert program.stop() == 0


def test_a_user_shown(folder: Path) -> None:
    (folder / "users").write_text(
        f"joe@example.org:x:1001:1002::{folder}/joe::userdb_quota_rule=*:storage=1M user=joe\n"
        "odd:::::relative\n"
    )
    (folder / "s.toml").write_text(
        f'mail = "~/Maildir"\n[[userdb]]\ndriver = "passwd-file"\npath = "{folder}/users"\n'
    )
    done = run("user", "-c", "s.toml", "JOE@example.org", "nobody", cwd=folder)
    if os.geteuid() == 0:
        # Others cannot become that user.
        assert done.returncode == os.EX_NOUSER
        assert done.stdout.decode().splitlines() == [
            "field\tvalue",
            "user\tjoe",
            "uid\t1001",
            "gid\t1002",
            f"home\t{folder}/joe",
            f"mail\tmaildir:{folder}/joe/Maildir",
            "quota_rule\t*:storage=1M",
            "",
        ]
        assert done.stderr == b"User doesn't exist: nobody\n"
        done = run("user", "--config", "s.toml", "-f", "uid", "joe@example.org", cwd=folder)
        assert (done.returncode, done.stdout) == (0, b"1001\n")
    done = run("user", "-c", "s.toml", "odd", cwd=folder)
    assert (done.returncode, done.stdout) == (os.EX_TEMPFAIL, b"")
    assert b"no absolute path" in done.stderr


def test_a_quota_shown_and_counted_anew(folder: Path) -> None:
    (folder / "s.toml").write_text(
        f'mail = "{folder}/mail/{{domain}}/{{user}}"\n'
        '[quota]\nrules = ["*:storage=1M:messages=4"]\n'
    )
    flags = ("-c", "s.toml", "me@example.org")
    new = folder / "mail/example.org/me/new"
    new.mkdir(parents=True)
    for name in ("tmp", "cur"):
        (new.parent / name).mkdir()
    (new / "1.M1P1.x,S=2000").write_bytes(b"x" * 2000)
    table = run("quota", "get", *flags, cwd=folder)
    assert table.returncode == 0
    assert [line.split() for line in table.stdout.decode().splitlines()] == [
        ["Quota", "name", "Type", "Value", "Limit", "%"],
        ["User", "quota", "STORAGE", "2", "1024", "0"],
        ["User", "quota", "MESSAGE", "1", "4", "25"],
    ]
    (new / "2.M1P1.x,S=3000").write_bytes(b"x" * 3000)
    assert b"MESSAGE     1" in run("quota", "get", *flags, cwd=folder).stdout
    done = run("quota", "recalc", *flags, cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert b"MESSAGE     2" in run("quota", "get", *flags, cwd=folder).stdout
    assert run("quota", "get", "-c", "s.toml", "me", cwd=folder).returncode == os.EX_NOUSER
    assert run("quota", "drop", *flags, cwd=folder).returncode == os.EX_CONFIG


def test_userdbs_that_cannot_be(folder: Path) -> None:
    (folder / "s.toml").write_text(
        """
        [[userdb]]
        driver = "passwd-file"
        path = "relative"
        result_failure = "continue-oops"
        [[userdb]]
        driver = "sql"
        [[userdb]]
        driver = "static"
        home = "~/x"
        fields = { uid = "no-such-user", host = "%x" }
        [quota]
        rules = ["*:storage=lots"]
        """
    )
    done = run("serve", "--config", "s.toml", cwd=folder)
    assert done.returncode == os.EX_CONFIG
    faults = done.stderr.decode().splitlines()
    for place, reason in {
        "4: userdb[0].path": "no absolute path",
        "5: userdb[0].result_failure": "continue-oops",
        "7: userdb[1].driver": "sql",
        "11: userdb[2].fields.uid": "no-such-user",
        "13: quota.rules": "lots",
    }.items():
        assert [one for one in faults if f"s.toml:{place}: " in one and reason in one], faults
    assert [path.name for path in folder.iterdir()] == ["s.toml"]
