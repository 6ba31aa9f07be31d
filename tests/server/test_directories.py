"""User directories: drivers, the rules between them, what is kept, and what an entry may say."""

import os
import pwd
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lmtp_proto import Address, Recipient, Reply
from lmtp_server._users import (
    Cached,
    Directory,
    DirectoryError,
    Fields,
    Located,
    MailTemplate,
    NameRules,
    NotFound,
    PasswdFile,
    Rule,
    Skip,
    StaticUsers,
    SystemUsers,
    Text,
    Userdb,
    UserEntry,
    Users,
    ValidIds,
    make_entry,
)


class _Driver:
    """Says what it is told to, and counts how often it is asked."""

    constant: Final = False

    def __init__(self, users: Mapping[str, Fields | Exception]) -> None:
        self.users = dict(users)
        self.asked: list[str] = []

    def recall(self, _user: str, /) -> Fields | NotFound | None:
        return None

    def lookup(self, user: str, /) -> Fields | NotFound:
        self.asked.append(user)
        answer = self.users.get(user, NotFound(user))
        if isinstance(answer, Exception):
            raise answer
        return answer


def _directory(*drivers: _Driver, **rules: Rule) -> Directory:
    """The first driver has the rules."""
    first, *others = (Userdb(name="x", driver=driver) for driver in drivers)
    changed = Userdb(name="x", driver=first.driver, **rules)  # type: ignore[arg-type]  # all are rules
    return Directory([changed, *others])


_YES: Final[Fields] = {"home": "/first", "uid": "1000"}
_NO: Final = NotFound("a")
_BROKEN: Final = DirectoryError("it is broken")


@pytest.mark.parametrize(
    ("first", "rules", "second", "expected"),
    [
        (_YES, {}, None, "/first"),
        (None, {}, {"home": "/second"}, "/second"),
        (None, {}, None, None),
        (None, {"result_failure": Rule.RETURN_FAIL}, {"home": "/second"}, None),
        (None, {"result_failure": Rule.RETURN}, {"home": "/second"}, None),
        (_BROKEN, {}, {"home": "/second"}, "/second"),
        (_BROKEN, {}, None, "failure"),
        (_BROKEN, {}, RuntimeError("a bug"), "failure"),
        (_BROKEN, {"result_internalfail": Rule.RETURN_FAIL}, {"home": "/second"}, "failure"),
        (_YES, {"result_success": Rule.CONTINUE_OK}, {"home": "/second"}, "/second"),
        (_YES, {"result_success": Rule.CONTINUE_OK}, {"uid": "1001"}, "/first"),
        (_YES, {"result_success": Rule.CONTINUE_OK}, None, "/first"),
        (_YES, {"result_success": Rule.CONTINUE}, None, None),
        (_YES, {"result_success": Rule.RETURN_FAIL}, {"home": "/second"}, None),
        (_YES, {"result_success": Rule.CONTINUE_FAIL}, None, None),
    ],
)
def test_rules(
    first: Fields | Exception | None,
    rules: dict[str, Rule],
    second: Fields | Exception | None,
    expected: str | None,
) -> None:
    drivers = [_Driver({} if answer is None else {"a": answer}) for answer in (first, second)]
    directory = _directory(*drivers, **rules)
    try:
        found = directory.lookup("a")
    except DirectoryError:
        assert expected == "failure"
    else:
        assert (found.home if isinstance(found, UserEntry) else None) == expected


def test_defaults_overrides_and_skips() -> None:
    first, second, third = _Driver({"a@b": {"home": "/h"}}), _Driver({}), _Driver({})
    directory = Directory(
        [
            Userdb(
                name="first",
                driver=first,
                default_fields={"home": Text("/not/this"), "mail": Text("/m/%d/%n")},
                override_fields={"quota_rule": Text("*:storage=1G")},
                result_success=Rule.CONTINUE_OK,
            ),
            Userdb(name="second", driver=second, skip=Skip.FOUND),
            Userdb(name="third", driver=third, skip=Skip.NOTFOUND),
        ],
        defaults={"quota_rule": "*:storage=1M", "quota_rule2": "Trash:storage=+10%"},
    )
    assert directory.lookup("a@b") == UserEntry(
        name="a@b",
        home="/h",
        mail="/m/b/a",
        quota_rules=("*:storage=1G", "Trash:storage=+10%"),
    )
    assert (second.asked, third.asked) == ([], ["a@b"])
    assert directory.lookup("x@b") == NotFound("x@b")
    assert (second.asked, third.asked) == (["x@b"], ["a@b"])


@pytest.mark.parametrize(
    ("fields", "entry"),
    [
        ({}, UserEntry(name="a@b")),
        ({"user": "c"}, UserEntry(name="c")),
        (
            {"uid": "5", "gid": "6", "groups": "0,6, 7"},
            UserEntry(name="a@b", uid=5, gid=6, groups=(6, 7)),
        ),
        ({"home": "/h/./x//"}, UserEntry(name="a@b", home="/h/x")),
        ({"home": "/h", "mail": "maildir:~/M"}, UserEntry(name="a@b", home="/h", mail="/h/M")),
        ({"home": "/h", "mail": "%h/M"}, UserEntry(name="a@b", home="/h", mail="/h/M")),
        ({"mail": "maildir:/v/%d/%1n/%n"}, UserEntry(name="a@b", mail="/v/b/a/a")),
        (
            {"quota_rule3": "a:ignore", "quota_rule": "*:bytes=1"},
            UserEntry(name="a@b", quota_rules=("*:bytes=1", "a:ignore")),
        ),
        ({"quota_storage_size": "1M"}, UserEntry(name="a@b", quota_rules=("*:storage=1M",))),
        (
            {"proxy": "yes", "host": "h"},
            UserEntry(name="a@b", fields={"proxy": "yes", "host": "h"}),
        ),
    ],
)
def test_what_an_entry_says(fields: Fields, entry: UserEntry) -> None:
    assert make_entry("a@b", fields) == entry


@pytest.mark.parametrize(
    "fields",
    [
        {"uid": "0"},
        {"gid": "00"},
        {"uid": "-1"},
        {"uid": "4294967295"},
        {"uid": "\u0661"},
        {"uid": "root"},
        {"home": "relative"},
        {"home": "/a/../b"},
        {"home": "/a\0b"},
        {"mail": "mbox:~/mail"},
        {"mail": "maildir:/a:INDEX=/b"},
        {"mail": "~/M"},
        {"mail": "M"},
        {"mail": "/v/%x"},
        {"quota_rule": "*:storage=lots"},
    ],
)
def test_an_entry_that_is_no_good_is_a_failure(fields: Fields) -> None:
    with pytest.raises(DirectoryError, match="no good"):
        make_entry("a@b", fields)


def test_names_in_paths_are_checked_even_if_the_directory_knows_them() -> None:
    directory = _directory(_Driver({"../x": {"mail": "/v/%n"}}))
    with pytest.raises(DirectoryError):
        directory.lookup("../x")


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_answers_are_kept_for_a_while_and_failures_never() -> None:
    driver = _Driver({"a": {"home": "/1"}, "bad": DirectoryError("down")})
    clock = _Clock()
    cached = Cached(driver, ttl=30, negative_ttl=5, size=2, clock=clock)
    assert cached.recall("a") is None
    for _ in range(2):
        assert cached.lookup("a") == {"home": "/1"}
        assert cached.lookup("nobody") == NotFound("nobody")
        for _ in range(2):
            with pytest.raises(DirectoryError, match="down"):
                cached.lookup("bad")
    assert driver.asked == ["a", "nobody", "bad", "bad", "bad", "bad"]
    assert cached.recall("a") == {"home": "/1"}
    clock.now = 5
    assert cached.recall("nobody") is None
    assert cached.recall("a") == {"home": "/1"}
    clock.now = 30
    assert cached.recall("a") is None
    driver.users["a"] = {"home": "/2"}
    assert cached.lookup("a") == {"home": "/2"}
    # The bound holds, and what was used last stays.
    for user in ("b", "c"):
        driver.users[user] = {}
        cached.lookup(user)
    assert (cached.recall("a"), cached.recall("b"), cached.recall("c")) == (None, {}, {})


@pytest.mark.parametrize("answer", [{"home": "/h"}, DirectoryError("down"), RuntimeError("bug")])
def test_many_who_ask_at_once_make_one_lookup(answer: Fields | Exception) -> None:
    asked = threading.Event()
    go_on = threading.Event()

    class _Slow(_Driver):
        def lookup(self, user: str, /) -> Fields | NotFound:
            asked.set()
            assert go_on.wait(20)
            return super().lookup(user)

    driver = _Slow({"a": answer})
    cached = Cached(driver, ttl=30, negative_ttl=5)
    started = threading.Semaphore(0)

    def ask() -> object:
        started.release()
        try:
            return cached.lookup("a")
        except DirectoryError as error:
            return str(error)

    with ThreadPoolExecutor(50) as pool:
        answers = [pool.submit(ask) for _ in range(50)]
        for _ in range(50):
            started.acquire()
        assert asked.wait(20)
        # All have begun; whoever is not waiting yet asks for what is kept by then.
        go_on.set()
        said = {repr(each.result(20)) for each in answers}
    assert len(said) == 1
    if not isinstance(answer, Exception):
        for _ in range(1000):
            cached.lookup("a")
        assert driver.asked == ["a"]


_PASSWD: Final = """\
# A comment
joe@example.org:{PLAIN}x:1001:1002:Joe:/home/joe::userdb_mail=maildir:~/Mail\
 userdb_quota_rule=*:storage=1G user=joe proxy host=10.0.0.1 nopassword
::::::
ann:::::/home/ann
old:x:1001:1002::/home/old:/bin/sh::/var/mail/old
justpass@example.org:{PLAIN}x
root:x:0:0::/root
bad:x:many:1002::/home/bad
twice:x:1001:1002::/1
twice:x:1001:1002::/2
named:x:%s:1002::/n
colons:x:1001:1002::/c::userdb_note=a:b:c userdb_empty= userdb_flag
percent:x:1001:1002::/p::userdb_quota_rule2=Trash:storage=+10%%
ctrl\x07:x:1001:1002::/h
"""


@pytest.fixture
def passwd(tmp_path: Path) -> Path:
    path = tmp_path / "passwd"
    path.write_text(_PASSWD % "nobody")
    return path


def _lookup(driver: PasswdFile, user: str) -> UserEntry | NotFound | None:
    """None is a failure."""
    try:
        return Directory([Userdb(name="f", driver=driver)]).lookup(user)
    except DirectoryError:
        return None


def test_a_passwd_file(passwd: Path, caplog: pytest.LogCaptureFixture) -> None:
    driver = PasswdFile(str(passwd))
    nobody = pwd.getpwnam("nobody").pw_uid
    assert _lookup(driver, "joe@example.org") == UserEntry(
        name="joe",
        uid=1001,
        gid=1002,
        home="/home/joe",
        mail="/home/joe/Mail",
        quota_rules=("*:storage=1G",),
        fields={"proxy": "yes", "host": "10.0.0.1"},
    )
    assert _lookup(driver, "ann") == UserEntry(name="ann", home="/home/ann")
    assert _lookup(driver, "old") == UserEntry(
        name="old", uid=1001, gid=1002, home="/home/old", mail="/var/mail/old"
    )
    assert _lookup(driver, "justpass@example.org") == NotFound("justpass@example.org")
    assert _lookup(driver, "joe") == NotFound("joe")
    assert _lookup(driver, "") == NotFound("")
    named = _lookup(driver, "named")
    assert isinstance(named, UserEntry)
    assert named.uid == nobody
    colons = _lookup(driver, "colons")
    assert isinstance(colons, UserEntry)
    assert colons.fields == {"note": "a:b:c", "flag": "yes"}
    percent = _lookup(driver, "percent")
    assert isinstance(percent, UserEntry)
    assert percent.quota_rules == ("Trash:storage=+10%",)
    twice = _lookup(driver, "twice")
    assert isinstance(twice, UserEntry)
    assert twice.home == "/1"
    # Whom a broken line names exists, somehow.
    assert [_lookup(driver, user) for user in ("root", "bad", "ctrl\a")] == [None] * 3
    told = [record.getMessage() for record in caplog.records if "line" in record.getMessage()]
    lines = [text for text in told if text.startswith(repr(str(passwd)))]
    assert [text.split(", ")[1] for text in lines] == ["line 7", "line 8", "line 10", "line 14"]


def test_a_passwd_file_is_read_again_when_it_has_changed(passwd: Path) -> None:
    driver = PasswdFile(str(passwd))
    assert driver.recall("ann") is None
    assert driver.lookup("ann") == {"home": "/home/ann"}
    assert driver.recall("ann") == {"home": "/home/ann"}
    # Another file in its place, as editors and deployments do it.
    new = passwd.with_name("new")
    new.write_text("ann:::::/home/eve\n")
    new.replace(passwd)
    assert driver.recall("ann") is None
    assert driver.lookup("ann") == {"home": "/home/eve"}
    # The same file, written in place.
    with passwd.open("a") as file:
        file.write("bob:::::/home/bob\n")
    assert driver.lookup("bob") == {"home": "/home/bob"}
    os.utime(passwd, ns=(1, 1))
    assert driver.recall("bob") is None
    passwd.unlink()
    with pytest.raises(DirectoryError, match="No such file"):
        driver.lookup("ann")


@pytest.mark.parametrize("kind", ["fifo", "directory", "link to nothing"])
def test_what_is_no_file_is_a_failure(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "passwd"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case _:
            path.symlink_to("nowhere")
    with pytest.raises(DirectoryError):
        PasswdFile(str(path)).lookup("a")


def test_a_file_for_each_domain(tmp_path: Path) -> None:
    (tmp_path / "example.org").write_text("me:::::/home/me\n")
    driver = PasswdFile(f"{tmp_path}/%d", username_format="%n")
    assert driver.lookup("me@example.org") == {"home": "/home/me"}
    assert driver.lookup("you@example.org") == NotFound("you@example.org")
    for stranger in ("me@example.net", "me", "me@..", f"me@../{tmp_path.name}/example.org"):
        assert driver.lookup(stranger) == NotFound(stranger)


def test_a_large_passwd_file_with_nothing_but_faults(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "passwd"
    lines = [f"u{number}:x:0:0::/h" for number in range(5000)]
    path.write_text("\n".join([*lines, "long:" + "x" * 1_000_000, "\0" * 1000, "ok:::::/ok"]))
    assert _lookup(PasswdFile(str(path)), "ok") == UserEntry(name="ok", home="/ok")
    # Twenty lines and how many more there are.
    assert len(caplog.records) == 21


_LINE = st.text(
    alphabet=st.sampled_from("ab:@%{}=#/~ .\t\r\0\u00e9\u2028") | st.characters(codec="utf-8"),
    max_size=60,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(_LINE | st.binary(max_size=30), max_size=8), asked=st.text(max_size=8))
@example(lines=["a:b:1:1::/h::userdb_mail=%", "a:::::::userdb_mail=%{"], asked="a")
def test_whatever_a_passwd_file_has_in_it(
    tmp_path: Path, lines: list[str | bytes], asked: str
) -> None:
    path = tmp_path / "any"
    octets = [line.encode() if isinstance(line, str) else line for line in lines]
    path.write_bytes(b"\n".join([b"good@example.org::1000:1000::/home/good::", *octets]))
    driver = PasswdFile(str(path))
    users = {line.split(b":")[0].decode("utf-8", "replace") for line in octets}
    for user in {asked, *users} - {"good@example.org"}:
        found = _lookup(driver, user)
        if isinstance(found, UserEntry):
            assert found.uid != 0
            assert found.home is None or found.home.startswith("/")
            assert found.mail is None or ".." not in found.mail.split("/")
    good = UserEntry(name="good@example.org", uid=1000, gid=1000, home="/home/good")
    assert _lookup(driver, "good@example.org") == good


def test_static_users_with_a_list(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("# people\nme@example.org\n@example.net\n")
    driver = StaticUsers({"quota_rule": "*:storage=1G"}, users=str(path))
    assert driver.recall("me@example.org") is None
    assert driver.lookup("me@example.org") == {"quota_rule": "*:storage=1G"}
    assert driver.recall("anybody@example.net") == {"quota_rule": "*:storage=1G"}
    assert driver.recall("you@example.org") == NotFound("you@example.org")
    path.write_text("you@example.org\n")
    assert driver.lookup("you@example.org") == {"quota_rule": "*:storage=1G"}
    path.unlink()
    with pytest.raises(DirectoryError, match="No such file"):
        driver.lookup("me@example.org")


def test_system_users() -> None:
    account = pwd.getpwnam("nobody")
    directory = Directory([Userdb(name="system", driver=SystemUsers())])
    assert directory.recall("nobody@example.org") is None
    found = directory.lookup("nobody@example.org")
    assert isinstance(found, UserEntry)
    assert (found.name, found.uid, found.home) == ("nobody", account.pw_uid, account.pw_dir)
    assert found.groups is not None
    assert account.pw_gid in found.groups
    assert directory.lookup("no-such-account") == NotFound("no-such-account")
    assert directory.lookup("a\0b") == NotFound("a\0b")
    with pytest.raises(DirectoryError, match="root"):
        directory.lookup("root")
    kept = Directory([Userdb(name="system", driver=SystemUsers(drop_domain=False))])
    assert kept.lookup("nobody@example.org") == NotFound("nobody@example.org")


Find = Callable[..., Located | Reply]


@pytest.fixture
def find(tmp_path: Path) -> Find:
    """What becomes of a recipient of a user with these fields."""

    def find(fields: Fields, *, mail: str = "~/Maildir", **options: object) -> Located | Reply:
        users = Users(
            Directory([Userdb(name="x", driver=_Driver({"me@example.org": fields}))]),
            MailTemplate(mail),
            names=NameRules(),
            **options,  # type: ignore[arg-type]  # as the tests say
        )
        job = users.find(Recipient(address=Address("Me+detail", "example.org")))
        assert callable(job)
        first = job()
        if isinstance(first, Located):
            # What is remembered of the home changes nothing.
            again = users.lookup("me@example.org")
            assert isinstance(again, Located)
            assert (again.entry, again.maildir) == (first.entry, first.maildir)
        return first

    return find


def _me(path: Path) -> Fields:
    return {"uid": str(os.stat(path).st_uid or 65534), "gid": "1000", "home": str(path)}


def test_a_home_that_is_the_users(find: Find, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    if os.geteuid() == 0:
        os.chown(home, 65534, -1)
    (tmp_path / "link").symlink_to("home")
    found = find(_me(home))
    assert isinstance(found, Located)
    assert (str(found.maildir), found.detail) == (f"{home}/Maildir", "detail")
    # The administrator's link is followed, since the store follows none.
    linked = find({**_me(home), "home": f"{tmp_path}/link", "mail": "~/x/M"})
    assert isinstance(linked, Located)
    assert str(linked.maildir) == f"{home}/x/M"


@pytest.mark.parametrize(
    ("fields", "options", "reason"),
    [
        ({"uid": "400"}, {}, "below first_valid_uid 500"),
        ({"uid": "900"}, {"ids": ValidIds(last_uid=899)}, "above last_valid_uid 899"),
        ({"uid": "900", "gid": "5"}, {"ids": ValidIds(first_gid=10)}, "below first_valid_gid 10"),
        ({"uid": "0"}, {}, "the uid is 0"),
        ({"uid": "900"}, {"own_uid": 901}, "cannot become that user"),
        ({"uid": "900", "home": "/proc/1/status"}, {}, "is no directory"),
        ({"uid": "900", "home": "/"}, {}, "belongs to uid 0, not to 900"),
        ({"uid": "900"}, {}, "it has no home"),
    ],
)
def test_whom_no_mail_is_delivered_to_now(
    find: Find,
    fields: Fields,
    options: dict[str, object],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    reply = find(fields, **options)
    assert reply == Reply(451, "<Me+detail@example.org> Temporary internal error", enhanced="4.3.0")
    assert len(caplog.records) == 1
    assert reason in caplog.text
    assert "'me@example.org'" in caplog.text


def test_a_mail_path_that_a_user_cannot_fill_is_no_reason_to_lose_mail(find: Find) -> None:
    reply = find({"user": "me"}, mail="/srv/{domain}/{user}")
    assert isinstance(reply, Reply)
    assert reply.code == 451


@pytest.mark.parametrize(
    ("rules", "local_part", "domain", "user"),
    [
        (NameRules(), "Me", "Example.ORG", "me@example.org"),
        (NameRules(format="%u"), "Me", "Example.ORG", "Me@Example.ORG"),
        (NameRules(format="%Ln"), "Me+x", "Example.ORG", "me"),
        (NameRules(format="%{user | username | lower}"), "Me", "x", "me"),
        (NameRules(characters="em@x."), "me", "x", "me@x"),
        (NameRules(characters="me@"), "me", "x", None),
        (NameRules(), "m!e", "x", None),
        (NameRules(characters=""), "m!e", "x", "m!e@x"),
        (NameRules(characters=""), "m\u00fc", "x", "m\u00fc@x"),
        (NameRules(), "m\u00fc", "x", None),
        (NameRules(characters=""), "a@b", "x", None),
        (NameRules(delimiters=""), "me+x", "x", "me+x@x"),
        (NameRules(hostname="MX.x"), "Postmaster", "", "postmaster@mx.x"),
    ],
)
def test_names(rules: NameRules, local_part: str, domain: str, user: str | None) -> None:
    driver = _Driver({})
    users = Users(
        Directory([Userdb(name="x", driver=driver)]), MailTemplate("~/Maildir"), names=rules
    )
    found = users.find(Recipient(address=Address(local_part, domain)))
    reply = found() if callable(found) else found
    assert isinstance(reply, Reply)
    assert (reply.code, reply.enhanced) == (550, "5.1.1")
    assert driver.asked == ([] if user is None else [user])
    if user is not None:
        assert reply.text.endswith(f"> User doesn't exist: {user}")
