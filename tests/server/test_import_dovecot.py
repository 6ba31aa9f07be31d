"""`config import-dovecot`: what doveconf writes becomes a settings file that can be served."""

import os
import pwd
import shutil
import tomllib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from hypothesis import example, given
from hypothesis import strategies as st

from lmtp_server.__main__ import main
from lmtp_server._settings import read_settings
from lmtp_server._settings._doveconf import DovecotError
from lmtp_server._settings._dovecot_import import import_doveconf
from tests.server._peer import Peer, deliver
from tests.server._program import Program, run

_OUTPUTS: Final = Path(__file__).parent / "doveconf"
_NAMES: Final = sorted(path.stem for path in _OUTPUTS.iterdir())


@pytest.fixture(autouse=True)
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def _import(text: str) -> tuple[dict[str, Any], str]:
    """The settings that differ from the defaults, once they have been read, and the notes."""
    imported = import_doveconf(text)
    Path("s.toml").write_text(imported.toml)
    read_settings({}, "s.toml", environment={})
    return tomllib.loads(imported.toml), "\n".join(imported.notes)


def _rcpt(recipient: str) -> int:
    """What a recipient is answered by the daemon at `s`."""
    with Peer("unix:s") as peer:
        peer.reply()
        peer.say("LHLO client.example")
        peer.say("MAIL FROM:<>")
        return int(peer.say(f"RCPT TO:<{recipient}>")[:3])


@pytest.mark.parametrize("name", _NAMES)
def test_outputs_of_doveconf_become_settings_that_are_good(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "import-dovecot", str(_OUTPUTS / f"{name}.conf")]) == os.EX_OK
    written, notes = capsys.readouterr()
    settings = tomllib.loads(written)
    if "tls" in settings:
        # What it names is not on this machine.
        trustme.CA().issue_cert("x.example").private_key_and_cert_chain_pem.write_to_path("x.pem")
        for key in ("certificate", "key"):
            written = written.replace(settings["tls"][key], "x.pem")
    Path("s.toml").write_text(written)
    assert main(["config", "check", "--config", "s.toml"]) == os.EX_OK
    assert capsys.readouterr() == ("", "")
    for note in notes.splitlines():
        setting, _, what = note.partition(": ")
        assert setting
        assert what
    # Each setting says where it comes from.
    lines = [line for line in written.splitlines() if line and not line.startswith(("[", " ", "]"))]
    for above, line in pairwise(lines):
        assert line.startswith("# ") or above.startswith("# ")


def test_a_stock_debian(start: Callable[..., Program], folder: Path) -> None:
    settings, notes = _import((_OUTPUTS / "debian-2.3.conf").read_text())
    assert settings["mail"] == "~/Maildir"
    assert settings["userdb"] == [{"driver": "system"}]
    assert settings["listener"] == [{"address": "unix:/run/dovecot/lmtp", "mode": "0666"}]
    assert "tls" not in settings
    assert "mail_location: mail in the format mbox cannot be delivered to" in notes
    assert "ssl_cert: doveconf hides where the key is" in notes
    text = Path("s.toml").read_text().replace("unix:/run/dovecot/lmtp", "unix:s")
    Path("s.toml").write_text(text)
    program = start("--config", "s.toml", "--workers", "1")
    assert program.addresses() == ["unix:s"]
    assert _rcpt("nobody-of-this-name@example.test") == 550
    assert program.stop() == 0


def test_debian_with_dovecot_2_4() -> None:
    settings, notes = _import((_OUTPUTS / "debian-2.4.conf").read_text())
    assert settings["mail"] == "~/Maildir"
    assert settings["mailbox_separator"] == "/"
    assert settings["listener"] == [{"address": "unix:/run/dovecot/lmtp", "mode": "0600"}]
    assert settings["tls"] == {
        "certificate": "/etc/dovecot/private/dovecot.pem",
        "key": "/etc/dovecot/private/dovecot.key",
    }
    assert settings["userdb"] == [{"driver": "system"}]
    assert "mail_inbox_path" not in notes


def test_docker_mailserver(start: Callable[..., Program], folder: Path) -> None:
    settings, notes = _import((_OUTPUTS / "docker-mailserver.conf").read_text())
    assert settings["hostname"] == "mail.example.org"
    assert settings["trace"] == {"original_recipient_header": "X-Original-To"}
    assert settings["quota"] == {
        "rules": ["*:storage=128M", "Trash:storage=+50M"],
        "grace": "10M",
        "max_mail_size": 10000 << 20,
    }
    (userdb,) = settings["userdb"]
    assert userdb["driver"] == "passwd-file"
    assert userdb["username_format"] == "%{user}"
    assert userdb["default_fields"]["uid"] == "5000"
    for told in ("mail_plugins: sieve", "quota_warning warn-80", "mail_access_groups"):
        assert told in notes
    # What is the container's there is the folder's here, and the user is whoever tests.
    # Root's daemon reads the file as somebody else.
    folder.chmod(0o755)
    mail = folder / "mail"
    (folder / "userdb").write_text("me@example.test:{PLAIN}x::::::\n")
    text = Path("s.toml").read_text()
    for old, new in (
        ("unix:/run/dovecot/lmtp", "unix:s"),
        ('user = "5000"\n', f'user = "{os.geteuid()}"\n'),
        ('group = "5000"\n', f'group = "{os.getegid()}"\n'),
        ('"5000"', f'"{max(os.geteuid(), 5000)}"'),
        ("/var/mail/", f"{mail}/"),
        ("/etc/dovecot/userdb", f"{folder}/userdb"),
        ("[tls]", "[tls]\n#"),
        ("\ncertificate = ", "\n# "),
        ("\nkey = ", "\n# "),
    ):
        assert old in text, old
        text = text.replace(old, new)
    Path("s.toml").write_text(text)
    program = start("--config", "s.toml", "--workers", "1")
    program.addresses()
    # Whether it can write as that user is another question.
    assert _rcpt("me+x@example.test") != 550
    assert _rcpt("you@example.test") == 550
    assert program.stop() == 0


def test_mailcow(start: Callable[..., Program], folder: Path) -> None:
    settings, notes = _import((_OUTPUTS / "mailcow.conf").read_text())
    assert settings["mail"] == "~"
    assert settings["user"] == "vmail"
    networks = ["172.22.1.0/24", "fd4d:6169:6c63:6f77::/64"]
    assert settings["listener"] == [
        {"address": "unix:/run/dovecot/lmtp", "mode": "0666"},
        {"address": "0.0.0.0:24", "tls": "starttls", "trusted_networks": networks},
        {"address": "[::]:24", "tls": "starttls", "trusted_networks": networks},
    ]
    assert settings["tls"]["key"] == "/etc/ssl/mail/key.pem"
    # Users whom only the database knows are not refused.
    assert [userdb["driver"] for userdb in settings["userdb"]] == ["passwd-file", "static"]
    assert settings["userdb"][1]["home"] == "/var/vmail/%d/%n"
    assert settings["quota"] == {"rules": ["Trash:storage=+100%"]}
    for told in (
        "userdb sql: there is no driver",
        "every address has a mailbox now",
        "mail_crypt: mail is stored as it is, not encrypted",
        "quota_warning2",
        "submission_host",
    ):
        assert told in notes
    # What is the container's there is the folder's here; root's daemon has to be somebody else.
    trustme.CA().issue_cert("x.example").private_key_and_cert_chain_pem.write_to_path("x.pem")
    folder.chmod(0o755)
    (folder / "mail").mkdir()
    user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    if os.geteuid() == 0:
        shutil.chown(folder / "mail", user)
    (folder / "master").write_text("admin@mailcow.local::::::\n")
    text = Path("s.toml").read_text()
    for old, new in (
        ("unix:/run/dovecot/lmtp", "unix:s"),
        ("0.0.0.0:24", "127.0.0.1:0"),
        ("[::]:24", "127.0.0.2:0"),
        ('user = "vmail"', f'user = "{user}"'),
        ("/var/vmail", f"{folder}/mail"),
        ("/etc/dovecot/dovecot-master.userdb", f"{folder}/master"),
        ("/etc/ssl/mail/cert.pem", f"{folder}/x.pem"),
        ("/etc/ssl/mail/key.pem", f"{folder}/x.pem"),
    ):
        assert old in text, old
        text = text.replace(old, new)
    Path("s.toml").write_text(text)
    assert main(["config", "check", "--config", "s.toml"]) == os.EX_OK
    program = start("--config", "s.toml", "--workers", "1")
    program.addresses(3)
    (reply,) = deliver("unix:s", "me+tag@example.test")
    assert reply.startswith("250 ")
    assert len(list((folder / "mail/example.test/me/new").iterdir())) == 1
    # Whom only the database knows is not known here: everybody, as the notes say.
    assert _rcpt("you@example.test") == 250
    assert _rcpt("no/body@example.test") == 550
    assert program.stop() == 0


_COMMON = "mail_location = maildir:/srv/mail/%d/%n\nprotocols = lmtp\n"


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("hostname = mx.example.org", "hostname", "mx.example.org"),
        ("login_greeting = Hello there.", "greeting", "Hello there."),
        ("recipient_delimiter = +-", "recipient_delimiter", "+-"),
        ("lmtp_save_to_detail_mailbox = yes", "save_to_detail_mailbox", True),
        ("protocol lmtp {\n  lda_mailbox_autocreate = yes\n}", "mailbox_autocreate", True),
        ("lmtp_hdr_delivery_address = original", "trace.delivered_to", "original"),
        ("lmtp_add_received_header = no", "trace.received", False),
        ("mail_fsync = never", "fsync", "never"),
        ("log_path = /var/log/mail.log", "log.path", "/var/log/mail.log"),
        ("log_path = /dev/stderr", "log.path", "stderr"),
        ("info_log_path = syslog\nsyslog_facility = local3", "log.syslog_facility", "local3"),
        ("debug_log_path = /d\nmail_debug = yes", "log.debug", True),
        ('log_timestamp = "%b %d %H:%M:%S "', "log.timestamp", "%b %d %H:%M:%S"),
        ("deliver_log_format = msgid=%m: %$", "log.deliver_format", "msgid=%m: %$"),
        ('mail_log_prefix = "%s(%u)<%{pid}>: "', "log.prefix", "%s(%u)<%{pid}>: "),
        ("lmtp_rawlog_dir = /tmp/x", "log.rawlog_dir", "/tmp/x"),
        ("mail_fsync = always", "fsync", "always"),
        ("mail_save_crlf = yes", "save_crlf", True),
        ("first_valid_uid = 5000", "first_valid_uid", 5000),
        ("auth_username_format = %Ln", "auth_username_format", "%Ln"),
        ("auth_username_format = %{user | username | lower}", "auth_username_format", None),
        ("mail_uid = 5000\nmail_gid = 5001", "group", "5001"),
        ("service lmtp {\n  user = vmail\n}", "user", "vmail"),
        ("service lmtp {\n  process_min_avail = 5\n}", "workers", 5),
        ("service lmtp {\n  client_limit = 7\n}", "limits.client_limit", 7),
        (
            "service lmtp {\n  client_limit = 2\n  process_limit = 50\n}",
            "limits.total_client_limit",
            100,
        ),
        ("service lmtp {\n  service_count = 100\n}", "worker.max_connections", 100),
        (
            "lmtp_client_workarounds = mailbox-for-path",
            "limits.client_workarounds",
            ["mailbox-for-path", "missing-domain"],
        ),
        ("ssl_cert = </c\nssl_key = </k", "tls", {"certificate": "/c", "key": "/k"}),
        ("ssl = no\nssl_cert = </c\nssl_key = </k", "tls", None),
        ("ssl_cert = </c\nssl_key = # hidden, use -P to show it", "tls", None),
        (
            "ssl_cert = </c\nssl_key = </k\nlocal_name a.org {\n ssl_cert = </d\n ssl_key = </l\n}",
            "tls.sni",
            {"a.org": {"certificate": "/d", "key": "/l"}},
        ),
        (
            (
                "service lmtp {\n  unix_listener lmtp {\n    mode = 0\n  }\n"
                "  inet_listener lmtp {\n    address = 192.0.2.1\n    port = 24\n    haproxy = yes"
                "\n  }\n}\n"
                "haproxy_trusted_networks = 192.0.2.0/24"
            ),
            "listener",
            [{"address": "192.0.2.1:24", "proxy_networks": ["192.0.2.0/24"]}],
        ),
        (
            (
                "service lmtp {\n  unix_listener /var/spool/postfix/private/dovecot-lmtp {\n"
                "    group = postfix\n    mode = 0600\n    user = postfix\n  }\n"
                "  unix_listener lmtp {\n    mode = 0\n  }\n}"
            ),
            "listener",
            [
                {
                    "address": "unix:/var/spool/postfix/private/dovecot-lmtp",
                    "mode": "0600",
                    "user": "postfix",
                    "group": "postfix",
                }
            ],
        ),
        (
            (
                "userdb {\n  args = uid=5000 gid=5000 home=/srv/%d/%n allow_all_users=yes\n"
                "  driver = static\n}"
            ),
            "userdb",
            [{"driver": "static", "home": "/srv/%d/%n", "fields": {"uid": "5000", "gid": "5000"}}],
        ),
        (
            "userdb static {\n  fields {\n    home = /srv/%{user}\n    uid = 5000\n  }\n}",
            "userdb",
            [{"driver": "static", "home": "/srv/%{user}", "fields": {"uid": "5000"}}],
        ),
        (
            (
                "userdb {\n  args = username_format=%n /etc/users\n  driver = passwd-file\n"
                "  override_fields = gid=5000\n  result_failure = return-fail\n}"
            ),
            "userdb",
            [
                {
                    "driver": "passwd-file",
                    "path": "/etc/users",
                    "username_format": "%n",
                    "override_fields": {"gid": "5000"},
                    "result_failure": "return-fail",
                }
            ],
        ),
        ("userdb {\n  driver = prefetch\n}\nuserdb passwd {\n}", "userdb", [{"driver": "system"}]),
        (
            (
                "mail_plugins = quota\nplugin {\n  quota = maildir:User quota\n"
                "  quota_rule = *:storage=1G\n  quota_rule2 = Trash:storage=+10%%\n"
                "  quota_grace = 5%%\n  quota_max_mail_size = 20M\n}\nquota_full_tempfail = yes"
            ),
            "quota",
            {
                "rules": ["*:storage=1G", "Trash:storage=+10%"],
                "grace": "5%",
                "max_mail_size": 20 << 20,
                "full_tempfail": True,
            },
        ),
        (
            (
                "mail_plugins = quota\nplugin {\n"
                "  quota = dict:User quota::redis:host=192.0.2.1:port=6380:prefix=q/\n}"
            ),
            "quota",
            {"backend": "redis", "url": "redis://192.0.2.1:6380/0", "prefix": "q/"},
        ),
        ("plugin {\n  quota_rule = *:storage=1G\n}", "quota", None),
    ],
)
def test_what_is_taken_over(text: str, path: str, value: object) -> None:
    settings: Any = _import(_COMMON + text + "\n")[0]
    for key in path.split("."):
        settings = settings.get(key) if isinstance(settings, dict) else None
    if path == "auth_username_format" and value is None:
        value = text.partition(" = ")[2]
    assert settings == value


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("lmtp_proxy = yes", "lmtp_proxy: there is no proxy yet"),
        ("deliver_log_format = %{x}", "deliver_log_format: '%{x}' is not allowed"),
        ("lmtp_rawlog_dir = /tmp/%u", "lmtp_rawlog_dir: '/tmp/%u': set log.rawlog_dir"),
        ("mail_location = mdbox:~/x", "mail in the format mdbox cannot be delivered to"),
        ("mail_location = maildir:/srv/x", "{user} is not in it"),
        ("mail_location = maildir:~/M:LAYOUT=fs", "LAYOUT=fs is not known here"),
        ("mail_location = maildir:~/M:INBOX=~/I", "INBOX=~/I is elsewhere"),
        ("auth_username_format = %q", "auth_username_format: '%q' is not allowed"),
        ("first_valid_uid = 0", "first_valid_uid: '0' is not allowed; allowed is a whole number"),
        ("recipient_delimiter = a", "recipient_delimiter: 'a' is not allowed; allowed is a text"),
        ("ssl_cert = </c\nssl_key = </k\nssl_min_protocol = TLSv1", "the oldest is TLSv1.2"),
        ("userdb {\n  driver = ldap\n  args = x\n}", "userdb ldap: there is no driver"),
        ("userdb {\n  driver = passwd-file\n  args = users\n}", "'users' is no absolute path"),
        ("haproxy_trusted_networks = x.example", "'x.example' is left out"),
        ("service lmtp {\n  inet_listener x {\n    port = 25\n  }\n}", "port 25 is for SMTP"),
        ("some_new_setting = x", "some_new_setting: 'x': there is nothing like it here"),
        ("imap_capability = x\npassdb pam {\n}", "not about LMTP: imap_capability, passdb pam"),
        ("protocols = imap", "protocols: lmtp is not among them"),
    ],
)
def test_what_is_not_taken_over_is_told(text: str, note: str) -> None:
    assert note in _import(_COMMON + text + "\n")[1]


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"", "there are no settings in it"),
        (b"service lmtp {\n", "line 1: a '}' is missing for 'service'"),
        (b"a = b\n}\n", "line 2: there is a '}' too many"),
        (b"a = b\nnonsense\n", "line 2: 'nonsense' is no setting"),
        (b"\x00\xff\xfe", "is no setting"),
        (b"a {\n" * 1000, "nested too deeply"),
    ],
)
def test_what_doveconf_has_not_written(
    octets: bytes, reason: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "x.conf").write_bytes(octets)
    assert main(["config", "import-dovecot", "x.conf"]) == os.EX_DATAERR
    written, told = capsys.readouterr()
    assert written == ""
    assert told.startswith("lmtp-server: x.conf: ")
    assert reason in told


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "import-dovecot", "none.conf"]) == os.EX_NOINPUT
    assert "'none.conf': No such file" in capsys.readouterr().err


def test_from_standard_input(folder: Path) -> None:
    done = run("config", "import-dovecot", cwd=folder, stdin=_COMMON.encode())
    assert done.returncode == os.EX_OK
    assert tomllib.loads(done.stdout.decode())["mail"] == "/srv/mail/%d/%n"


_KEYS: Final = (
    *("hostname", "mail_location", "mail_home", "recipient_delimiter", "auth_username_format"),
    *("ssl_cert", "ssl_key", "first_valid_uid", "login_greeting", "mail_temp_dir", "listen"),
    *("quota_storage_size", "quota_storage_grace", "args", "driver", "port", "mode", "user"),
    *("lda_original_recipient_header", "auth_username_chars", "separator", "mail_fsync", "inbox"),
)
_WORDS: Final = st.sampled_from(
    [
        *("yes", "no", "0", "24", "0600", "maildir:~/%d", "/srv/%n", "%q", "%{user}", "é", "\x01"),
        *("static", "passwd-file", "uid=5 home=/x", "</c", "*", "1G", "-1", "99999999", '"', "{"),
    ]
)
_HEADERS: Final = st.sampled_from(
    [
        *("service lmtp", "inet_listener x", "unix_listener lmtp", "userdb static", "userdb"),
        *("namespace inbox", "fields", "quota", "mailbox Trash", "plugin", "protocol lmtp"),
        *("local_name ä", "ssl_server", "warning x", "mail_plugins"),
    ]
)
_SETTINGS: Final = st.builds(lambda key, word: f"{key} = {word}\n", st.sampled_from(_KEYS), _WORDS)
_SECTIONS: Final = st.recursive(
    _SETTINGS,
    lambda inner: st.builds(
        lambda header, parts: header + " {\n" + "".join(parts) + "}\n",
        _HEADERS,
        st.lists(inner, max_size=4),
    ),
    max_leaves=12,
)


@given(st.lists(_SECTIONS, max_size=8).map("".join))
@example("quota_storage_size = -1\n")
@example("mail_fsync = yes\nnamespace inbox {\n  inbox = yes\n  separator = é\n}\n")
def test_whatever_doveconf_writes_becomes_settings_that_are_good(text: str) -> None:
    try:
        _import(text)
    except DovecotError:
        assert not text or "{\n" in text or "= {" in text
