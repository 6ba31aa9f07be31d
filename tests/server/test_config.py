"""`config check` and `config show`, and what the settings file, the environment and secrets do."""

import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lmtp_server.__main__ import main
from lmtp_server._settings import SettingsError, read_settings
from lmtp_server._settings._positions import find_lines
from lmtp_server._settings._reference import describe_dovecot
from lmtp_server._settings._show import show_settings
from lmtp_server._settings._toml import toml_key, toml_value

Check = Callable[[str], list[str]]


@pytest.fixture(autouse=True)
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for name in os.environ:
        if name.startswith("LMTP_SERVER_"):
            monkeypatch.delenv(name)


@pytest.fixture
def check(folder: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Give the faults that `config check` tells of in a file with this text."""

    def check(text: str) -> list[str]:
        (folder / "s.toml").write_text(text, encoding="utf-8")
        code = main(["config", "check", "--config", "s.toml"])
        out, told = capsys.readouterr()
        assert out == ""
        faults = told.splitlines()
        assert code == (os.EX_CONFIG if faults else os.EX_OK)
        assert all(fault.startswith("lmtp-server: ") for fault in faults)
        return [fault.removeprefix("lmtp-server: ") for fault in faults]

    return check


def _show(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["config", "show", *arguments]) == os.EX_OK
    out, told = capsys.readouterr()
    assert told == ""
    return out


def test_nothing_is_said_of_good_settings(check: Check) -> None:
    assert check('hostname = "mx.example.org"\n[quota]\nrules = ["*:storage=1G"]\n') == []
    assert check("") == []


_MANY = """\
hostname = "a b"

[[listener]]
address = "127.0.0.1:24"
tls = "on"          # comment
[[listener]]
mode = "0999"

[[userdb]]
driver = "static"
fields = { quota_rule = "%q" }
[[userdb]]
driver = "sttic"
[quota]
rules = [
    "*:storage=1G",
    "*:strage=1G",
]
[[quota.warnings]]
at = "storage=95%"
command = []
[tls]
key = "a"
[tls.sni."x y"]
certificate = "c"
[limits]
message_size = "50X"
command_timeout = "soon"
"""


def test_all_faults_at_once_with_their_lines(check: Check) -> None:
    expected = [
        "s.toml:1: hostname: 'a b' is not allowed; allowed is the name of a host",
        "s.toml:5: listener[0].tls: 'on' is not allowed; allowed is off, starttls or implicit",
        "s.toml:6: listener[1].address: it is missing; allowed is HOST:PORT",
        "s.toml:7: listener[1].mode: '0999' is not allowed; allowed is a text of octal digits",
        "s.toml:11: userdb[0].fields.quota_rule: '%q' is no variable here",
        "s.toml:13: userdb[1].driver: 'sttic' is not allowed; allowed is static, passwd-file",
        "s.toml:15: quota.rules: 'strage' in the quota rule",
        "s.toml:21: quota.warnings[0].command: [] is not allowed; allowed is a list",
        's.toml:24: tls.sni."x y": ',
        "s.toml:27: limits.message_size: '50X' is not allowed; allowed is a number of octets",
        "s.toml:28: limits.command_timeout: 'soon' is not allowed; allowed are seconds",
    ]
    faults = check(_MANY)
    assert len(faults) == len(expected)
    for fault, start in zip(faults, expected, strict=True):
        assert fault.startswith(start)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[tls]\nkey = 'k'", "s.toml:2: tls.key: there is no certificate for it"),
        ("[tls]\ncertificate='c'\nverify=true", "s.toml:3: tls.verify: nothing to verify with"),
        ("[quota]\nbackend = 'redis'", "s.toml:2: quota.backend: redis needs quota.url"),
        ("[quota]\nbackend = 'redis'\nurl = 'http://x'", "s.toml:3: quota.url: it begins with"),
        ("mail = '~/Maildir'", "s.toml:1: mail: '~/Maildir' is in the users' homes"),
        ("hard_links = true", "s.toml:1: hard_links: copies name their recipients"),
        ("base_dir = 3", "s.toml:1: base_dir: 3 is not allowed; allowed is a path"),
        ("group = 'mail'", "s.toml:1: group: a group needs a user"),
        ("first_valid_uid = 9\nlast_valid_uid = 8", "s.toml:2: last_valid_uid: 8 is below"),
        (
            "[[listener]]\naddress = 'unix:s'\n\n[[listener]]\naddress='h:24'\ntls='implicit'",
            "s.toml:6: listener[1].tls: there is no certificate",
        ),
        ("[[listener]]\naddress = 'h:24'\nuser = 'u'", "s.toml:3: listener[0].user: h:24 has no"),
        ("[[userdb]]\npath = '/x'", "s.toml:1: userdb[0].driver: it is missing; allowed is static"),
        ("[[userdb]]\ndriver='passwd-file'\npath='x'", "s.toml:3: userdb[0].path: 'x' is no abs"),
        ("[[userdb]]\ndriver='static'\nmail='~/M'", "s.toml:3: userdb[0].mail: it is in the home"),
        ("[[userdb]]\ndriver='static'\nhome='~/M'", "s.toml:3: userdb[0].home: a home is not in"),
        ("quota = 3", "s.toml:1: quota: 3 is not allowed; allowed is a table"),
        ("listener = 3", "s.toml:1: listener: 3 is not allowed; allowed is tables [[listener]]"),
        ("listener = [3]", "s.toml:1: listener[0]: 3 is not allowed; allowed is a table"),
        ("content = {line_length = 9}", "s.toml:1: content.line_length: 9 is not allowed"),
        ("drain = nan", "s.toml:1: drain: nan is not allowed"),
        ("recipient_delimiter = 1979-05-27", "s.toml:1: recipient_delimiter: datetime.date(1979"),
    ],
)
def test_what_does_not_go_together(text: str, fault: str, check: Check) -> None:
    (found,) = check(text)
    assert found.startswith(fault)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("wrokers = 1", "is it workers or worker?"),
        ("Recipient-Delimiter = '+'", "is it recipient_delimiter?"),
        ("[quota]\nrule = []", "is it rules?"),
        ("grace = '10%'", "is it quota.grace?"),
        ("[nonsense]\nx = 1", "those there are: auth_username_chars, "),
        (
            "lmtp_hdr_delivery_address = 'final'",
            "Dovecot's lmtp_hdr_delivery_address is trace.deli",
        ),
        ("mail_location = 'maildir:~/Maildir'", "Dovecot's mail_location is mail here"),
        ("postmaster_address = 'a@b'", "Dovecot's postmaster_address has no counterpart: there is"),
    ],
)
def test_an_unknown_name_is_told_with_those_that_are_near(
    text: str, fault: str, check: Check
) -> None:
    (found,) = check(text)
    assert "there is no such setting" in found
    assert fault in found


class TestEnvironment:
    def test_it_wins_over_the_file_and_a_flag_wins_over_it(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (folder / "s.toml").write_text(
            'hostname = "file"\ngreeting = "file"\n[quota]\ngrace = "1%"\n'
            '[[listener]]\naddress = "unix:a"\n'
        )
        monkeypatch.setenv("LMTP_SERVER_CONFIG", "s.toml")
        monkeypatch.setenv("LMTP_SERVER_GREETING", "environment")
        monkeypatch.setenv("LMTP_SERVER_QUOTA__GRACE", "2%")
        monkeypatch.setenv("LMTP_SERVER_QUOTA__FULL_TEMPFAIL", "yes")
        monkeypatch.setenv("LMTP_SERVER_LISTENER__0__MODE", "0600")
        monkeypatch.setenv("LMTP_SERVER_LISTENER__1__ADDRESS", "unix:b")
        monkeypatch.setenv("LMTP_SERVER_LISTEN", "127.0.0.1:1, unix:c")
        monkeypatch.setenv("LMTP_SERVER_WORKERS", "3")
        monkeypatch.setenv("LMTP_SERVER_LIMITS__CLIENT_WORKAROUNDS", '["missing-domain"]')
        shown = tomllib.loads(_show(capsys, "--diff"))
        assert shown == {
            "hostname": "file",
            "greeting": "environment",
            "listen": ["127.0.0.1:1", "unix:c"],
            "workers": 3,
            "quota": {"grace": "2%", "full_tempfail": True},
            "listener": [{"address": "unix:a", "mode": "0600"}, {"address": "unix:b"}],
            "limits": {"client_workarounds": ["missing-domain"]},
        }
        settings = read_settings({"greeting": "flag"}, None, environment=os.environ)
        assert settings.greeting == "flag"

    def test_its_faults_name_the_variable(
        self, monkeypatch: pytest.MonkeyPatch, check: Check
    ) -> None:
        monkeypatch.setenv("LMTP_SERVER_WORKERS", "many")
        monkeypatch.setenv("LMTP_SERVER_WROKERS", "1")
        monkeypatch.setenv("LMTP_SERVER_QUOTA__GRACE", "much")
        monkeypatch.setenv("LMTP_SERVER_LISTENER__7__ADDRESS", "unix:a")
        monkeypatch.setenv("LMTP_SERVER_HOSTNAME__X", "a")
        faults = check('hostname = "mx"\nworkers = 0\n')
        assert sorted(fault.partition(": ")[0] for fault in faults) == [
            "LMTP_SERVER_HOSTNAME__X",
            "LMTP_SERVER_LISTENER__7__ADDRESS",
            "LMTP_SERVER_QUOTA__GRACE",
            "LMTP_SERVER_WORKERS",
            "LMTP_SERVER_WROKERS",
        ]

    def test_what_kubernetes_sets_for_a_service_of_this_name_is_none_of_ours(
        self, monkeypatch: pytest.MonkeyPatch, check: Check
    ) -> None:
        for name in (
            *("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_LMTP", "PORT", "PORT_24_TCP"),
            *("PORT_24_TCP_ADDR", "PORT_24_TCP_PROTO"),
        ):
            monkeypatch.setenv(f"LMTP_SERVER_{name}", "tcp://10.0.0.1:24")
        assert check("") == []


class TestSecrets:
    _REDIS = "[quota]\nbackend = 'redis'\nurl = "

    def test_from_a_file_and_from_a_credential(
        self,
        folder: Path,
        check: Check,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        (folder / "redis").write_text("redis://:hush@127.0.0.1/0\n")
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
        for source in ("{ file = 'redis' }", "{ credential = 'redis' }"):
            assert check(self._REDIS + source) == []
            settings = read_settings({}, "s.toml", environment={})
            assert settings.quota.url is not None
            assert settings.quota.url.reveal() == "redis://:hush@127.0.0.1/0"
            shown = _show(capsys, "--config", "s.toml")
            assert tomllib.loads(shown)["quota"]["url"] == tomllib.loads(f"x = {source}")["x"]
            assert "hush" not in shown

    def test_one_in_the_file_itself_is_not_shown(
        self, check: Check, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert check(self._REDIS + "'redis://:hush@127.0.0.1/0'") == []
        shown = _show(capsys, "--config", "s.toml")
        assert "hush" not in shown
        assert "# url is a secret" in shown

    def test_texts_that_plugins_are_told_may_be_some(
        self, folder: Path, check: Check, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (folder / "url").write_text("http://hush.example/\n")
        start = "plugins = ['mail_log', 'push_notification']\n[plugin.mail_log]\nfields = ['box']\n"
        start += "[plugin.push_notification]\nqueue = 7\nurl = "
        assert check(start + "'http://hush.example/'") == []
        shown = _show(capsys, "--config", "s.toml", "--diff")
        assert "hush" not in shown
        assert "# plugin.push_notification.url may be a secret" in shown
        assert "# plugin.mail_log.fields may be a secret" in shown
        table = tomllib.loads(shown)["plugin"]
        assert table == {"mail_log": {}, "push_notification": {"queue": 7}}
        assert check(start + "{ file = 'url' }") == []
        shown = _show(capsys, "--config", "s.toml", "--diff")
        assert "hush" not in shown
        table = tomllib.loads(shown)["plugin"]["push_notification"]
        assert table == {"queue": 7, "url": {"file": "url"}}
        (fault,) = check(start + "{ file = 'missing' }")
        assert "plugin.push_notification: url: cannot read 'missing'" in fault
        # The table itself refers to nothing.
        (fault,) = check("plugins = ['mail_log']\n[plugin.mail_log]\nfile = 'url'\n")
        assert "plugin.mail_log: there is no 'file'" in fault
        (fault,) = check("[plugin.file]\nx = 1\n")
        assert "plugin.file: it is not in use" in fault

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ("{ file = 'missing' }", "cannot read 'missing': No such file"),
            ("{ file = '.' }", "cannot read '.': Is a directory"),
            ("{ file = 'two' }", "'two' does not hold one line"),
            ("{ file = 'empty' }", "'empty' does not hold one line"),
            ("{ file = 'latin' }", "cannot read 'latin': it is no text in UTF-8"),
            ("{ credential = 'x' }", "$CREDENTIALS_DIRECTORY is not set"),
            ("{ credential = '../x' }", "'../x' is no name of a credential"),
            ("{ hush = 'hush' }", "allowed is a text, { file = PATH }"),
            ("['hush']", "allowed is a text, { file = PATH }"),
            ("'hush://hush'", "it begins with none of redis://"),
        ],
    )
    def test_what_is_wrong_with_one_is_said_without_it(
        self,
        value: str,
        reason: str,
        folder: Path,
        check: Check,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
        (folder / "two").write_text("hush\nhush\n")
        (folder / "empty").write_text("")
        (folder / "latin").write_bytes(b"hush\xff")
        (fault,) = check(self._REDIS + value)
        assert fault.startswith("s.toml:3: quota.url: ")
        assert reason in fault
        assert "hush" not in fault

    def test_one_that_the_environment_names(
        self, folder: Path, check: Check, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / "redis").write_text("redis://:hush@127.0.0.1/0")
        monkeypatch.setenv("LMTP_SERVER_QUOTA__URL", "{ file = 'redis' }")
        assert check("") == []
        settings = read_settings({}, "s.toml", environment=os.environ)
        assert settings.quota.url is not None
        assert settings.quota.url.reveal() == "redis://:hush@127.0.0.1/0"

    def test_nor_is_one_of_the_environment_told(
        self, check: Check, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LMTP_SERVER_QUOTA__URL", "hush://hush")
        (fault,) = check("")
        assert fault.startswith("LMTP_SERVER_QUOTA__URL: ")
        assert "hush" not in fault


class TestShow:
    def test_what_is_shown_is_read_as_the_same(
        self, folder: Path, check: Check, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shown = _show(capsys)
        assert check(shown) == []
        assert _show(capsys, "--config", "s.toml") == shown

    def test_the_difference_to_the_defaults_alone(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert _show(capsys, "--diff") == ""
        (folder / "s.toml").write_text('mail = "./mail/{domain}/{user}"\ndrain = "1m"\n')
        assert _show(capsys, "--diff", "--config", "s.toml") == "drain = 60.0\n"

    def test_wrong_settings_are_not_shown(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["config", "show", "--config", "missing.toml"]) == os.EX_CONFIG
        out, told = capsys.readouterr()
        assert out == ""
        assert "missing.toml" in told


_NAMES = st.text(st.characters(codec="ascii", min_codepoint=33, max_codepoint=126), min_size=1)
_LINES = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20)


def _tables() -> st.SearchStrategy[Mapping[str, object]]:
    """Settings that are allowed."""
    return st.fixed_dictionaries(
        {},
        optional={
            "hostname": st.just("mx.example.org"),
            "greeting": st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
            "base_dir": _LINES.filter(bool),
            "listen": st.lists(
                st.sampled_from(["127.0.0.1:24", "[::1]:2424", "unix:/a b", "systemd:x"]),
                min_size=1,
            ),
            "mail": st.sampled_from(["/srv/%d/%n", "./{domain}/{user}", "/m/%{user | lower}"]),
            "drain": st.floats(0, 86400) | st.sampled_from(["5m", "1 h", "30secs"]),
            "recipient_delimiter": st.sampled_from(["", "+", "+-\"'\\"]),
            "auth_username_chars": _NAMES,
            "fsync": st.sampled_from(["always", "optimized", "syncfs", "never"]),
            "spool_threshold": st.integers(0, 1 << 50) | st.just("1M"),
            "quota": st.fixed_dictionaries(
                {},
                optional={
                    "rules": st.just(["*:storage=1G:messages=5", "Trash:storage=+10%"]),
                    "warnings": st.lists(
                        st.fixed_dictionaries(
                            {
                                "at": st.sampled_from(["storage=95%", "-messages=9"]),
                                "command": st.lists(_LINES, min_size=1).filter(lambda row: row[0]),
                            }
                        ),
                        max_size=2,
                    ),
                },
            ),
            "listener": st.lists(
                st.fixed_dictionaries(
                    {"address": st.just("unix:/run/x")},
                    optional={
                        "mode": st.integers(0, 0o777),
                        "user": st.integers(0, 9) | st.just("vmail"),
                        "trusted_networks": st.lists(
                            st.sampled_from(["10.0.0.0/8", "::1", "192.0.2.1"])
                        ),
                    },
                ),
                max_size=2,
            ),
            "tls": st.fixed_dictionaries(
                {"certificate": _LINES.filter(bool)},
                optional={
                    "sni": st.dictionaries(
                        st.sampled_from(["a.example", "b"]),
                        st.just({"certificate": "c", "key": "k"}),
                    )
                },
            ),
            "userdb": st.lists(
                st.sampled_from(
                    [
                        {"driver": "system", "cache_ttl": 5},
                        {"driver": "passwd-file", "path": "/etc/%d", "result_failure": "return"},
                        {"driver": "static", "home": "/h/%n", "fields": {"uid": "5", "a.b": "%u"}},
                    ]
                ),
                max_size=3,
            ),
        },
    )


def _read(text: str) -> str:
    """What the settings in `text` are shown as."""
    path = Path("property.toml")
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return show_settings(read_settings({}, str(path), environment={}))


def _faults(octets: bytes) -> list[str]:
    """What is told of a file with these octets."""
    Path("property.toml").write_bytes(octets)
    try:
        read_settings({}, "property.toml", environment={})
    except SettingsError as error:
        return error.faults
    return []


@settings(max_examples=40)
@given(_tables())
def test_settings_shown_are_settings_read(values: Mapping[str, object]) -> None:
    text = "".join(f"{key} = {toml_value(value)}\n" for key, value in values.items())
    shown = _read(text)
    assert _read(shown) == shown
    read = read_settings({}, "property.toml", environment={})
    assert _read(show_settings(read, diff=True)) == shown


_ANY_VALUES = st.recursive(
    st.booleans() | st.integers(-5, 5) | st.text(max_size=5) | st.just("a\n'''\"\"\"#]}\\"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["mail", "quota", "listener", "tls", "x"]), _ANY_VALUES))
@example({"quota": {"\n": ""}})
def test_whatever_is_set_is_taken_or_told(values: dict[str, object]) -> None:
    text = "".join(f"{toml_key(key)} = {toml_value(value)}\n" for key, value in values.items())
    assert tomllib.loads(text) == values
    for fault in _faults(text.encode("utf-8", "surrogatepass")):
        assert fault.startswith("property.toml:")
        assert "\n" not in fault


@given(st.binary(max_size=40) | st.text("[]{}=.'\"\\ \n#ab,1_", max_size=40).map(str.encode))
@example(b"a = " + b"[" * 5000)
@example(b"a" + b".a" * 5000 + b" = 1")
@example(b"[[a]]\n[a]\n")
@example(b"\xef\xbb\xbfa = 1")
def test_a_hostile_file_is_told_of(octets: bytes) -> None:
    assert all(fault.startswith("property.toml:") for fault in _faults(octets))


def _paths(values: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    if isinstance(values, dict):
        for key, value in values.items():
            yield from _paths(value, (*path, key))
    elif isinstance(values, list):
        for number, value in enumerate(values):
            yield from _paths(value, (*path, number))


_DOCUMENTS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                *("[a]", "[a.b]", "[[c]]", "[[c.d]]", "[ 'a' . \"b c\" ]", "[c.e]", "# a = 1"),
                *("x = 1", "y.z = [1, [2, 3], {k = 4, 'l m' = [5]}]", "'x y' = '''\n'x'\n''''"),
                *('w = """\\"""\n"""', "u = [\n  1, # one\n  2,\n]", "v = {}", "t = '#'", ""),
                *('"\\u0041" = 1', "d = 1979-05-27 07:32:00", "f = { a.b = 1 }", "e = -inf"),
            ]
        ),
        st.builds(
            lambda key, value: f"{toml_key(key)} = {toml_value(value)}", st.text(), _ANY_VALUES
        ),
    ),
    max_size=8,
).map("\n".join)


@given(_DOCUMENTS, st.booleans())
def test_every_key_of_a_document_has_a_line(text: str, crlf: bool) -> None:
    if crlf:
        text = text.replace("\n", "\r\n")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    lines = find_lines(text)
    assert set(lines) == set(_paths(values))
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


_DOVECOT = [
    "lmtp_proxy",
    "lmtp_save_to_detail_mailbox",
    "lmtp_rcpt_check_quota",
    "lmtp_add_received_header",
    "lmtp_verbose_replies",
    "lmtp_user_concurrency_limit",
    "lmtp_hdr_delivery_address",
    "lmtp_rawlog_dir",
    "lmtp_proxy_rawlog_dir",
    "lmtp_client_workarounds",
    "login_greeting",
    "login_trusted_networks",
    "mail_utf8_extensions",
    "mail_max_lock_timeout",
    "hostname",
    "postmaster_address",
    "rejection_subject",
    "rejection_reason",
    "deliver_log_format",
    "recipient_delimiter",
    "lda_original_recipient_header",
    "quota_full_tempfail",
    "lda_mailbox_autocreate",
    "lda_mailbox_autosubscribe",
    "sendmail_path",
    "submission_host",
    "submission_ssl",
    "submission_timeout",
    "mail_temp_dir",
    "mail_driver",
    "mail_path",
    "mail_inbox_path",
    "mail_location",
    "mail_home",
    "mail_uid",
    "mail_gid",
    "mail_access_groups",
    "mail_privileged_group",
    "first_valid_uid",
    "last_valid_uid",
    "first_valid_gid",
    "last_valid_gid",
    "valid_chroot_dirs",
    "mail_chroot",
    "mail_fsync",
    "mail_save_crlf",
    "maildir_copy_with_hardlinks",
    "maildir_very_dirty_syncs",
    "maildir_broken_filename_sizes",
    "maildir_empty_new",
    "maildir_stat_dirs",
    "mail_temp_scan_interval",
    "lock_method",
    "mail_plugins",
    "mail_attachment_dir",
    "protocols",
    "process_limit",
    "restart_request_count",
    "idle_kill",
    "shutdown_clients",
    "unix_listener",
    "haproxy_trusted_networks",
    "haproxy_timeout",
    "ssl",
    "ssl_cert",
    "ssl_key",
    "ssl_min_protocol",
    "verbose_proctitle",
    "import_environment",
    "chroot",
    "privileged_group",
    "extra_groups",
    "drop_priv_before_exec",
    "reuse_port",
    "prefetch",
    "auth_username_format",
    "auth_username_chars",
    "auth_cache_size",
    "auth_cache_ttl",
    "auth_cache_negative_ttl",
    "result_success",
    "result_failure",
    "result_internalfail",
    "quota_rule",
    "quota_storage_size",
    "quota_storage_percentage",
    "quota_storage_extra",
    "quota_message_percentage",
    "quota_mail_size",
    "quota_max_mail_size",
    "quota_mailbox_count",
    "quota_mailbox_message_count",
    "quota_grace",
    "quota_storage_grace",
    "quota_exceeded_message",
    "quota_warning",
    "quota_enforce",
    "quota_ignore",
    "quota_hidden",
    "log_path",
    "info_log_path",
    "debug_log_path",
    "log_timestamp",
    "syslog_facility",
]


def test_every_setting_of_dovecot_that_bears_on_lmtp_has_a_place_or_a_reason() -> None:
    named = {name for name, said in describe_dovecot() if said}
    assert set(_DOVECOT) - named == set()
