"""Quota rules: Dovecot's syntax, and the limit that holds for a folder."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstore import Limits, QuotaPolicy, QuotaRules, Usage

_K, _M, _G, _T = 1 << 10, 1 << 20, 1 << 30, 1 << 40


@pytest.mark.parametrize(
    ("rules", "folder", "limits"),
    [
        ([], "INBOX", Limits()),
        (["*:storage=1G"], "INBOX", Limits(_G)),
        (["*:storage=1G:messages=1000"], "Any", Limits(_G, 1000)),
        (["*:storage=1"], "INBOX", Limits(_K)),
        (["*:storage=7b"], "INBOX", Limits(7)),
        (["*:bytes=7"], "INBOX", Limits(7)),
        (["*:bytes=7k"], "INBOX", Limits(7 * _K)),
        (["*:bytes=2M"], "INBOX", Limits(2 * _M)),
        (["*:storage=3T"], "INBOX", Limits(3 * _T)),
        (["*:messages=5"], "INBOX", Limits(0, 5)),
        # The last of two for the same folder holds, limit by limit.
        (["*:storage=1G", "*:messages=5"], "INBOX", Limits(_G, 5)),
        (["*:storage=1G", "*:storage=2G"], "INBOX", Limits(2 * _G)),
        # A rule for a folder is about the whole: so much more or less in all.
        (["*:bytes=1000", "Trash:bytes=+500"], "Trash", Limits(1500)),
        (["*:bytes=1000", "Trash:bytes=+500"], "INBOX", Limits(1000)),
        (["Trash:bytes=+500", "*:bytes=1000"], "Trash", Limits(1500)),
        (["*:bytes=1000", "Trash:bytes=500"], "Trash", Limits(1500)),
        (["*:bytes=1000", "Drafts:bytes=-400"], "Drafts", Limits(600)),
        (["*:bytes=1000:messages=10", "A:storage=+10%:messages=+50%"], "A", Limits(1100, 15)),
        (["*:bytes=1000", "A:storage=-50%"], "A", Limits(500)),
        (["*:bytes=1000:messages=10", "A:bytes=+1", "A:messages=+1"], "A", Limits(1001, 11)),
        # Without a limit for all there is none to raise.
        (["*:messages=10", "A:bytes=+5"], "A", Limits(0, 10)),
        # The first that fits holds.
        (["*:bytes=1000", "Ar*:bytes=+1", "Archive:bytes=+2"], "Archive", Limits(1001)),
        (["*:bytes=1000", "Lists/*:bytes=+1"], "Lists/a/b", Limits(1001)),
        (["*:bytes=1000", "?at:bytes=+1"], "cat", Limits(1001)),
        (["*:bytes=1000", "*a*b*c:bytes=+1"], "xaxbxbxc", Limits(1001)),
        (["*:bytes=1000", "*a*b*c:bytes=+1"], "xaxbxbx", Limits(1000)),
        # RFC 3501 5.1: INBOX is the one name that knows no case.
        (["*:bytes=1000", "inbox:bytes=+1"], "Inbox", Limits(1001)),
        (["*:bytes=1000", "trash:bytes=+1"], "Trash", Limits(1000)),
        (["*:bytes=1000", "Spam:ignore"], "Spam", None),
        (["Spam:ignore"], "Spam", None),
    ],
)
def test_limits(rules: list[str], folder: str, limits: Limits | None) -> None:
    found = QuotaRules(*rules)
    assert found.limits(folder) == limits
    assert found.counts(folder) is (limits is not None)


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        (["storage=1G"], "FOLDER:LIMITS"),
        ([":storage=1G"], "FOLDER:LIMITS"),
        (["*:"], "none of storage"),
        (["*:size=1"], "none of storage"),
        (["*:storage=1:ignore"], "none of storage"),
        (["*:backend=x"], "none of storage"),
        (["*:storage"], "not a number"),
        (["*:storage=x"], "not a number"),
        (["*:storage=1 G"], "not a number"),
        (["*:storage=1.5G"], "not a number"),
        (["*:storage=1P"], "not a number"),
        (["*:storage=\u0661"], "not a number"),
        (["*:bytes=99999999999999999999"], "not a number"),
        (["*:bytes=9223372036854775808"], "too large"),
        (["*:storage=8388608T"], "too large"),
        (["*:storage=-1"], "must not have a sign"),
        (["*:storage=+1"], "must not have a sign"),
        (["*:storage=10%"], "percentage of nothing"),
        (["A:bytes=+-1"], "not a number"),
        (["*:bytes=10", "A:bytes=-10"], "no room"),
        (["*:bytes=10", "A:bytes=-100%"], "no room"),
        (["*:messages=10", "A:messages=-11"], "no room"),
        (["?:storage=1G"], "file of the user's"),
    ],
)
def test_refused(rules: list[str], why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        QuotaRules(*rules)


_near_rules = st.text(
    st.sampled_from("*?:=+-%0123456789BKMGTbkmgt storagebytesmessagesignoreINBOX/\n\u0661"),
    max_size=40,
) | st.from_regex(
    r"(\*|A|INBOX):(storage|bytes|messages)=[+-]?[0-9]{1,20}[BKMGT%]?(:ignore)?", fullmatch=True
)


@given(rules=st.lists(_near_rules | st.text(max_size=20), max_size=4), folder=st.text(max_size=10))
def test_any_text_is_a_rule_or_a_value_error(rules: list[str], folder: str) -> None:
    try:
        found = QuotaRules(*rules)
    except ValueError:
        return
    for name in (folder, "A", "INBOX"):
        limits = found.limits(name)
        if limits is None:
            assert any(rule.endswith(":ignore") for rule in rules)
            continue
        # A limit stays one whatever the rules of folders say, and none is none.
        assert limits.octets >= 0
        assert limits.messages >= 0
        assert bool(limits.octets) == bool(found.default.octets)
        assert bool(limits.messages) == bool(found.default.messages)


@given(name=st.text("ab*?.", max_size=8), mask=st.text("ab*?", min_size=1, max_size=8))
def test_wildcards(name: str, mask: str) -> None:
    pattern = "".join({"*": ".*", "?": "."}.get(one, re.escape(one)) for one in mask)
    expected = re.fullmatch(pattern, name, re.DOTALL) is not None
    if mask not in {"*", "?"}:
        assert QuotaRules(f"{mask}:ignore").counts(name) is not expected


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"grace": "-1"}, "sign"),
        ({"grace": "much"}, "not a number"),
        ({"mail_size": "10%"}, "percentage"),
        ({"exceeded_message": "voll \xfc"}, "ASCII"),
        ({"exceeded_message": "a\nb"}, "ASCII"),
        ({"warnings": [("storage=95%", [])]}, "no command"),
        ({"warnings": [("size=1", ["true"])]}, "none of storage"),
        ({"warnings": [("storage=--1%", ["true"])]}, "not a number"),
    ],
)
def test_refused_policies(settings: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        QuotaPolicy.parse("*:storage=1G", **settings)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    ("definition", "before", "after", "applies"),
    [
        ("storage=90%", Usage(899, 0), Usage(900, 0), True),
        ("storage=90%", Usage(900, 0), Usage(950, 0), False),
        ("storage=90%", Usage(0, 0), Usage(899, 0), False),
        ("+storage=90%", Usage(0, 0), Usage(2000, 0), True),
        ("bytes=5", Usage(0, 0), Usage(5, 0), True),
        ("storage=1", Usage(1023, 0), Usage(1024, 0), True),
        ("messages=80%", Usage(0, 7), Usage(0, 8), True),
        ("storage=90%:messages=80%", Usage(0, 7), Usage(0, 8), True),
        ("messages=80%", Usage(0, 8), Usage(0, 7), False),
        ("-storage=90%", Usage(900, 0), Usage(899, 0), True),
        ("-storage=90%", Usage(899, 0), Usage(900, 0), False),
    ],
)
def test_warnings_apply_when_crossed(
    definition: str, before: Usage, after: Usage, applies: bool
) -> None:
    policy = QuotaPolicy.parse("*:bytes=1000:messages=10", warnings=[(definition, ["true"])])
    found = policy.warning(before, after)
    assert (found is not None) is applies


def test_the_first_warning_that_applies_is_run() -> None:
    warnings = [("storage=95%", ["a"]), ("storage=80%", ["b"])]
    policy = QuotaPolicy.parse("*:bytes=1000", warnings=warnings)
    for after, command in ((990, ("a",)), (850, ("b",))):
        found = policy.warning(Usage(0, 0), Usage(after, 1))
        assert found is not None
        assert found.command == command
