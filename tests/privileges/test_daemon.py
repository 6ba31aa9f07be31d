"""The daemon, started by root: who its processes are, and whose mail there is."""

import os
import pwd
import re
import signal
import socket
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.privileges.conftest import FIRST_UID, Site
from tests.privileges.processes import of_session, of_the_network, user_ids, wait_until
from tests.server._metrics import wait_for
from tests.server._peer import Peer, deliver
from tests.server._program import Program

SETTINGS = """
listen = ["127.0.0.1:0", "unix:./lmtp.sock"]
workers = 2
hostname = "mx.example.org"
auth_username_format = "%Ln"
save_to_detail_mailbox = true
mailbox_autocreate = true
"""
USERDB = """
[[userdb]]
driver = "passwd-file"
path = "SITE/passwd"
"""

JUDGE = """
    from lmtp_proto import Reply
    from lmtp_server.plugins import hookimpl

    class Judge:
        def __init__(self, table):
            pass

        @hookimpl
        def lmtp_before_delivery(self, delivery):
            match delivery.recipient.address.local_part.partition("+")[2]:
                case "refused":
                    return Reply(550, "not for this one", enhanced="5.7.1")
                case "broken":
                    raise RuntimeError("before fell over")
"""

NETWORK_USER = "nobody"
NETWORK_UID_OF_USER = pwd.getpwnam(NETWORK_USER).pw_uid


class Daemon(Program):
    """A daemon in the directory of a site."""

    def __init__(self, site: Site, settings: str, *flags: str) -> None:
        self.write(site, settings)
        super().__init__("--config", "settings.toml", *flags, cwd=site.path)

    def write(self, site: Site, settings: str) -> None:
        """Change the settings."""
        (site.path / "settings.toml").write_text(settings.replace("SITE", str(site.path)))

    def check(self, *, root: int, others: str) -> None:
        """Of all processes so many are root's, and they have nothing of the network; those of
        `others` have it."""
        owners = {pid: user_ids(pid) for pid in of_session(self.pid)}
        of_root = [pid for pid, uids in owners.items() if "0" in uids]
        assert len(of_root) == root
        assert [of_the_network(pid) for pid in of_root] == [[]] * root
        outside = [pid for pid in owners if of_the_network(pid)]
        assert len(outside) == 3
        assert [owners[pid] for pid in outside] == [{others}] * 3


@pytest.fixture
def daemons() -> Iterator[list[Daemon]]:
    """Those that are to be ended with the test."""
    started: list[Daemon] = []
    yield started
    for daemon in started:
        daemon.kill()


def write_users(site: Site) -> None:
    """The users of a site as a passwd-file."""
    lines = [
        f"{name}:x:{user['uid']}:{user['gid']}::{user['home']}::\n"
        for name, user in site.settings["users"].items()
    ]
    (site.path / "passwd").write_text("".join(lines))


def codes(address: str, *users: str) -> list[str]:
    return [reply[:3] for reply in deliver(address, *[f"{user}@example.org" for user in users])]


def test_each_users_mail_is_its_own_and_root_reads_no_network(
    site: Site, daemons: list[Daemon]
) -> None:
    site.add("limited", FIRST_UID + 50)
    write_users(site)
    with (site.path / "passwd").open("a") as passwd:
        passwd.write(f"low:x:100:100::{site.path}::\n")
        passwd.write(f"nouid:x:::::{site.path}::\n")
        passwd.write(
            f"renamed:x:{FIRST_UID}:{FIRST_UID}::{site.maildir('u0').parent}::user=elsewho\n"
        )
    settings = f'network_user = "{NETWORK_USER}"\nmail = "~/Maildir"\n' + SETTINGS + USERDB
    daemon = Daemon(site, settings)
    daemons.append(daemon)
    address, _ = daemon.addresses(2)
    assert codes(address, "u0", "u1+sub", "u2") == ["250"] * 3
    assert codes(f"unix:{site.path}/lmtp.sock", "u0") == ["250"]
    # The directory calls this one by another name, which it does not know.
    assert codes(address, "renamed") == ["250"]
    daemon.check(root=1, others=str(NETWORK_UID_OF_USER))
    for number in range(3):
        uid = FIRST_UID + number
        found = list(site.maildir(f"u{number}").rglob("*"))
        assert {(path.stat().st_uid, path.stat().st_gid) for path in found} == {(uid, uid)}
    assert len(list((site.maildir("u1") / ".sub" / "new").iterdir())) == 1
    # A user more, and new workers; nobody is root again.
    site.add("late", FIRST_UID + 60)
    write_users(site)
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for("reloaded")
    assert codes(address, "late", "u0") == ["250", "250"]
    daemon.write(site, settings + 'skip = "nonsense"\n')
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for("skip")
    assert codes(address, "late", "u0") == ["250", "250"]
    assert daemon.stop() == 0
    assert of_session(daemon.pid) == []


def test_agents_are_as_the_settings_say_after_a_reload_too(
    site: Site, daemons: list[Daemon]
) -> None:
    write_users(site)
    settings = f'network_user = "{NETWORK_USER}"\nmail = "~/Maildir"\n' + SETTINGS + USERDB
    daemon = Daemon(site, settings)
    daemons.append(daemon)
    address, _ = daemon.addresses(2)
    for _ in range(2):
        assert codes(address, "u0") == ["250"]
    daemon.write(site, "retries.recognise = true\n" + settings)
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for("reloaded")
    for _ in range(2):
        assert codes(address, "u0") == ["250"]
    assert len(list((site.maildir("u0") / "new").iterdir())) == 3
    assert daemon.stop() == 0


def kill_agent(daemon: Daemon) -> None:
    """Kill the agent of the first user."""
    [agent] = [pid for pid in of_session(daemon.pid) if user_ids(pid) == {str(FIRST_UID)}]
    os.kill(agent, signal.SIGKILL)


def test_the_broker_logs_as_the_settings_say_after_a_reload_too(
    site: Site, daemons: list[Daemon]
) -> None:
    write_users(site)
    settings = f'network_user = "{NETWORK_USER}"\nmail = "~/Maildir"\n' + SETTINGS + USERDB
    daemon = Daemon(site, settings)
    daemons.append(daemon)
    address, _ = daemon.addresses(2)
    folder = site.path / "logs"
    folder.mkdir()
    os.chown(folder, NETWORK_UID_OF_USER, -1)
    log = folder / "log"
    daemon.write(site, settings + f'[log]\npath = "{log}"\n')
    daemon.send_signal(signal.SIGHUP)
    wait_until(lambda: log.exists() and "reloaded" in log.read_text())

    def agents_killed() -> int:
        # It is the broker that says so.
        return log.read_text().count("was ended by SIGKILL")

    assert codes(address, "u0") == ["250"]
    kill_agent(daemon)
    wait_until(lambda: agents_killed() == 1)
    assert codes(address, "u0") == ["250"]
    kill_agent(daemon)
    wait_until(lambda: agents_killed() == 2)
    assert log.stat().st_uid == NETWORK_UID_OF_USER
    assert codes(address, "u0") == ["250"]
    assert daemon.stop() == 0


@pytest.mark.parametrize("path", ["syslog", "journal"])
def test_the_broker_logs_to_a_socket(site: Site, daemons: list[Daemon], path: str) -> None:
    write_users(site)
    settings = f'network_user = "{NETWORK_USER}"\nmail = "~/Maildir"\n' + SETTINGS + USERDB
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(site.path / "dev-log"))
        (site.path / "dev-log").chmod(0o666)
        listener.settimeout(20)
        settings += f'[log]\npath = "{path}"\n{path}_socket = "SITE/dev-log"\n'
        daemon = Daemon(site, settings)
        daemons.append(daemon)
        address, _ = daemon.addresses(2)
        for _ in range(2):
            assert codes(address, "u0") == ["250"]
            kill_agent(daemon)
            while b"was ended by SIGKILL" not in listener.recv(65536):
                pass
        assert codes(address, "u0") == ["250"]
        assert daemon.stop() == 0


def test_deliveries_to_one_user_are_limited_over_all_workers(
    site: Site, daemons: list[Daemon]
) -> None:
    write_users(site)
    settings = f'network_user = "{NETWORK_USER}"\nmail = "~/Maildir"\n' + SETTINGS + USERDB
    daemon = Daemon(site, settings + "[limits]\nuser_concurrency_limit = 2\n")
    daemons.append(daemon)
    address, _ = daemon.addresses(2)
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(address)) for _ in range(6)]
        for peer in peers:
            peer.greet()
            assert peer.say("MAIL FROM:<sender@example.test>").startswith("250 ")
        replies = {peer: peer.say("RCPT TO:<u0@example.org>") for peer in peers}
        accepted = [peer for peer, reply in replies.items() if reply.startswith("250 ")]
        refused = [peer for peer, reply in replies.items() if reply.startswith("451 ")]
        assert (len(accepted), len(refused)) == (2, 4)
        assert "Too many concurrent deliveries for user" in replies[refused[0]]
        # Another recipient of the same user's counts with the first, another user does not.
        assert accepted[0].say("RCPT TO:<u0+sub@example.org>").startswith("250 ")
        assert refused[0].say("RCPT TO:<u1@example.org>").startswith("250 ")
        # Behind a message, and behind a transaction that was given up, there is a place again.
        assert accepted[0].say("DATA").startswith("354 ")
        accepted[0].write(b"x\r\n.\r\n")
        assert [reply[:3] for reply in accepted[0].replies(2)] == ["250", "250"]
        assert refused[1].say("RCPT TO:<u0@example.org>").startswith("250 ")
        assert refused[2].say("RCPT TO:<u0@example.org>").startswith("451 ")
        assert accepted[1].say("RSET").startswith("250 ")
        assert accepted[1].say("MAIL FROM:<>").startswith("250 ")
        assert refused[2].say("RCPT TO:<u0@example.org>").startswith("250 ")
    assert daemon.stop() == 0


@pytest.mark.parametrize("lines", [1, 60_000], ids=["in memory", "in a file"])
def test_whom_a_plugin_refuses_is_left_out_of_what_agents_are_given(
    site: Site, daemons: list[Daemon], monkeypatch: pytest.MonkeyPatch, lines: int
) -> None:
    write_users(site)
    package = site.path / "plugins"
    information = package / "judge-1.0.dist-info"
    information.mkdir(parents=True)
    (package / "judge.py").write_text(textwrap.dedent(JUDGE))
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: judge\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[lmtp_server.plugins]\njudge = judge:Judge\n")
    monkeypatch.setenv("PYTHONPATH", str(package), prepend=os.pathsep)
    daemon = Daemon(
        site,
        f'network_user = "{NETWORK_USER}"\nmail = "~/Maildir"\nplugins = ["judge"]\n'
        + SETTINGS
        + USERDB,
    )
    daemons.append(daemon)
    address, _ = daemon.addresses(2)
    content = b"Subject: x\r\n\r\n" + b"a line\r\n" * lines
    # Of two for u0 one is refused, both for u1, none for u2.
    names = ["u0", "u0+refused", "u1+refused", "u1+broken", "u2"]
    recipients = [f"{name}@example.org" for name in names]
    for _ in range(2):
        replies = deliver(address, *recipients, content=content)
        assert [reply[:9] for reply in replies] == [
            *("250 2.0.0", "550 5.7.1", "550 5.7.1", "451 4.3.0", "250 2.0.0"),
        ]
    for name, count in {"u0": 2, "u1": 0, "u2": 2}.items():
        stored = [path for path in site.path.joinpath(name).rglob("*") if path.is_file()]
        mail = [path for path in stored if path.parent.name in {"new", "cur", "tmp"}]
        assert sorted(mail) == site.mail(name)
        assert len(mail) == count
        uid = site.settings["users"][name]["uid"]
        assert {(path.stat().st_uid, path.stat().st_gid) for path in mail} <= {(uid, uid)}
        assert {path.read_bytes().count(b"a line\n") for path in mail} <= {lines}
    # Whose mail was all refused has no agent.
    owners = {uids for pid in of_session(daemon.pid) for uids in user_ids(pid)}
    assert str(site.settings["users"]["u0"]["uid"]) in owners
    assert str(site.settings["users"]["u1"]["uid"]) not in owners
    assert daemon.stop() == 0


def test_what_agents_store_is_counted(site: Site, daemons: list[Daemon]) -> None:
    write_users(site)
    page = f"unix:{site.path}/metrics"
    settings = f'network_user = "{NETWORK_USER}"\nmail = "~/Maildir"\n' + SETTINGS + USERDB
    daemon = Daemon(site, f'{settings}\n[metrics]\nlisten = ["{page}"]\n')
    daemons.append(daemon)
    address = daemon.addresses(2)[0]
    for _ in range(3):
        assert codes(address, "u0", "u1") == ["250", "250"]
    # An agent says so behind its answers.
    counted = wait_for(page, lambda now: now["lmtp_store_deliveries_total"] >= 6)
    assert counted["lmtp_store_deliveries_total"] == 6
    assert counted["lmtp_store_commit_duration_seconds_count"] == 6
    assert counted["lmtp_store_commit_duration_seconds_sum"] > 0


def test_what_agents_cannot_do_is_told_at_the_start(site: Site, daemons: list[Daemon]) -> None:
    write_users(site)
    settings = f'network_user = "{NETWORK_USER}"\nmail = "~/Maildir"\n' + SETTINGS + USERDB
    daemon = Daemon(site, settings + '[quota]\nbackend = "redis"\nurl = "redis://127.0.0.1/0"\n')
    daemons.append(daemon)
    assert daemon.wait() == os.EX_CONFIG
    assert "quota.backend: agents, which write each user's mail, have no network" in daemon.stderr


def test_one_user_has_all_mail(site: Site, daemons: list[Daemon]) -> None:
    settings = f'user = "{NETWORK_USER}"\nmail = "SITE/mail/{{user}}"\n' + SETTINGS
    daemon = Daemon(site, settings)
    daemons.append(daemon)
    address, _ = daemon.addresses(2)
    assert codes(address, "anne", "bob") == ["250", "250"]
    daemon.check(root=0, others=str(NETWORK_UID_OF_USER))
    found = list((site.path / "mail").rglob("*"))
    assert {path.stat().st_uid for path in found} == {NETWORK_UID_OF_USER}
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for("reloaded")
    assert codes(address, "anne") == ["250"]
    daemon.write(site, settings.replace(NETWORK_USER, "daemon"))
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for("changes with a restart only")
    assert daemon.stop() == 0


def test_the_daemon_gives_up_when_its_broker_has_ended(site: Site, daemons: list[Daemon]) -> None:
    write_users(site)
    settings = f'network_user = "{NETWORK_USER}"\nmail = "~/Maildir"\n' + SETTINGS + USERDB
    daemon = Daemon(site, settings)
    daemons.append(daemon)
    daemon.addresses(2)
    [broker] = [pid for pid in of_session(daemon.pid) if "0" in user_ids(pid)]
    os.kill(broker, signal.SIGKILL)
    assert daemon.wait() == os.EX_SOFTWARE


def test_a_supervisor_that_breaks_down_leaves_nobody_behind(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_users(site)
    # Runs where the program's interpreter starts.
    (site.path / "sitecustomize.py").write_text(
        textwrap.dedent("""
            from lmtp_server._workers._supervisor import Supervisor

            def broken(*_):
                raise RuntimeError("supervisor fell over")

            Supervisor._seat_ready = broken
        """)
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site.path), *sys.path]))
    settings = f'network_user = "{NETWORK_USER}"\nmail = "~/Maildir"\n' + SETTINGS + USERDB
    daemon = Daemon(site, settings)
    try:
        assert daemon.wait() == 1
        assert "RuntimeError: supervisor fell over" in daemon.stderr
    finally:
        daemon.kill()


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('user = "root"', "UID 0"),
        ('user = "nosuchuser"', "there is no user 'nosuchuser'"),
        ('user = "daemon"', "first_valid_uid"),
        ('network_user = "root"', "UID 0"),
    ],
)
def test_nobody_who_must_not_serve_does(
    site: Site, daemons: list[Daemon], line: str, fault: str
) -> None:
    write_users(site)
    daemon = Daemon(site, f'{line}\nmail = "~/Maildir"\n' + SETTINGS + USERDB)
    daemons.append(daemon)
    assert daemon.wait() == os.EX_CONFIG
    assert fault in daemon.stderr


def test_a_mail_root_that_the_one_user_cannot_write_to_is_told_at_the_start(
    site: Site, daemons: list[Daemon]
) -> None:
    (site.path / "mail").mkdir(mode=0o755)
    settings = f'user = "{NETWORK_USER}"\nmail = "SITE/mail/{{user}}"\n' + SETTINGS
    daemon = Daemon(site, settings)
    daemons.append(daemon)
    assert daemon.wait() == os.EX_CONFIG
    assert f"mail: cannot keep mail in '{site.path}/mail': Permission denied" in daemon.stderr


def test_without_users_of_its_own_root_is_warned(site: Site, daemons: list[Daemon]) -> None:
    daemon = Daemon(site, SETTINGS)
    daemons.append(daemon)
    daemon.addresses(2)
    assert len(daemon.wait_for("everything runs as root: set user")) == 1
    assert daemon.stop() == 0


def test_a_log_file_is_the_workers_and_has_what_agents_say(
    site: Site, daemons: list[Daemon]
) -> None:
    write_users(site)
    settings = f'network_user = "{NETWORK_USER}"\nmail = "~/Maildir"\n' + SETTINGS + USERDB
    daemon = Daemon(site, settings + '[log]\npath = "log"\n')
    daemons.append(daemon)
    address, _ = daemon.addresses(2)
    log = site.path / "log"
    assert log.stat().st_uid == NETWORK_UID_OF_USER
    content = b"Message-ID: <1@x>\r\n\r\nx\r\n"
    deliver(address, "u0@example.org", "u1+sub@example.org", content=content)
    text = log.read_text()
    assert re.search(r"lmtp\(u0\)<\d+><\S+>: msgid=<1@x>: saved mail to INBOX\n", text)
    assert re.search(r"lmtp\(u1\)<\d+><\S+>: msgid=<1@x>: saved mail to sub\n", text)
    # As logrotate does it.
    log.rename(site.path / "log.1")
    log.touch(0o600)
    os.chown(log, NETWORK_UID_OF_USER, -1)
    daemon.send_signal(signal.SIGUSR1)
    tries = 0
    while "saved mail" not in log.read_text():
        deliver(address, "u0@example.org", content=content)
        tries += 1
        assert tries < 1000
    # What an agent and the broker complain of gets there, too.
    maildir = site.maildir("u2")
    maildir.parent.mkdir(exist_ok=True)
    maildir.write_text("no directory")
    os.chown(maildir, FIRST_UID + 2, FIRST_UID + 2)
    assert codes(address, "u2") == ["451"]
    assert "agent of 'u2': mail of 'u2' cannot be stored" in log.read_text()
    assert daemon.stop() == 0
