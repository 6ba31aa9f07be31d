"""What the broker and the agents say to a worker that somebody has taken over."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.privileges.conftest import FIRST_UID, Site, Started

Start = Callable[[str], Started]

RECIPIENT = {
    "to": "u0@example.org",
    "orcpt": [],
    "ignore_quota": False,
    "index": 0,
    "number": 7,
    "mailbox": "INBOX",
    "flags": "",
    "keywords": [],
}
DELIVER = {
    "do": "deliver",
    "id": "ID1",
    "peer": "test",
    "client_ip": None,
    "lhlo_domain": "client.example.net",
    "tls": None,
    "reverse_path": "from@example.net",
    "count": 1,
    "recipients": [RECIPIENT],
}


def deliver(shell: Started, site: Site, user: str = "u0", channel: str = "good") -> None:
    """Get an agent and have it deliver, as an honest worker does."""
    before = len(site.mail(user))
    assert shell.say(on=channel, text=f"ask 1 {user}") == {"text": "agent 1"}
    said = shell.say(on="agent 1", fields=DELIVER, octets="Subject: x\r\n\r\nx\r\n")
    assert said["fields"]["reply"][:2] == [250, "2.0.0"]
    assert len(site.mail(user)) == before + 1
    shell.say(on=channel, text="end 1", silent=True)


REFUSED = {
    "nosuch": "unknown",
    "../u0": "unknown",
    "/etc": "unknown",
    "..": "unknown",
    "u0\x00": "unknown",
    "u0\n": "unknown",
    "\xff\xfe": "failed",
    "root": "failed",
    "low": "failed",
    "high": "failed",
    "rootgroup": "failed",
    "relative": "failed",
    "dots": "failed",
}


def test_users_who_must_have_no_agent_get_none(site: Site, start: Start) -> None:
    users = site.settings["users"]
    site.settings["valid_ids"] = {"first_uid": 500, "last_uid": 60000}
    users["root"] = {**users["u0"], "uid": 0}
    users["low"] = {**users["u0"], "uid": 499}
    users["high"] = {**users["u0"], "uid": 60001}
    users["rootgroup"] = {**users["u0"], "gid": 0}
    users["relative"] = {**users["u0"], "mail": "Maildir"}
    users["dots"] = {**users["u0"], "mail": "/home/../etc"}
    shell = start("broker_shell")
    found = {name: shell.say(on="w", text=f"ask 5 {name}")["text"] for name in REFUSED}
    assert found == {name: f"refused 5 {why}" for name, why in REFUSED.items()}
    # Not even the channel is lost by that.
    deliver(shell, site, channel="w")


NO_REQUESTS: list[dict[str, Any]] = [
    {"text": "\x00" * 40},
    {"text": "ask"},
    {"text": "ask 5"},
    {"text": "ask x u0"},
    {"text": "ask 99999999999 u0"},
    {"text": "ask -1 u0"},
    {"text": "end 5 u0"},
    {"text": "run 5 /bin/sh"},
    {"text": "worker"},
    {"text": "reload"},
    {"text": "ask 5 " + "u" * 100_000},
    {"text": "ask 5 u0", "descriptors": 1},
    {"text": "ask 5 u0", "descriptors": 200},
]


def test_who_sends_what_no_worker_sends_is_not_heard_again(site: Site, start: Start) -> None:
    shell = start("broker_shell")
    deliver(shell, site)
    descriptors = len(os.listdir(f"/proc/{shell.said['broker']}/fd"))
    for number, order in enumerate(NO_REQUESTS):
        assert shell.say(on=f"bad {number}", **order) == {"text": None}, order
    assert shell.log.count("it is not heard again") == len(NO_REQUESTS)
    deliver(shell, site)
    # Nothing of the bad ones is left open.
    assert len(os.listdir(f"/proc/{shell.said['broker']}/fd")) == descriptors


def test_who_asks_and_does_not_read_the_answers_holds_up_nobody(site: Site, start: Start) -> None:
    shell = start("broker_shell")
    shell.say(on="bad", text="ask 5 nosuch", times=5000, silent=True)
    deliver(shell, site)


def test_no_worker_ends_the_agents_of_another(site: Site, start: Start) -> None:
    site.settings["broker"] = {"grace": 0.0}
    shell = start("broker_shell")
    assert shell.say(on="good", text="ask 1 u0") == {"text": "agent 1"}
    shell.say(on="bad", text="end 1", silent=True)
    assert shell.say(on="bad", text="ask 2 nosuch") == {"text": "refused 2 unknown"}
    said = shell.say(on="agent 1", fields=DELIVER, octets="Subject: x\r\n\r\nx\r\n")
    assert said["fields"]["reply"][0] == 250


def test_there_are_no_more_agents_than_allowed(site: Site, start: Start) -> None:
    site.settings["broker"] = {"most_agents": 2}
    shell = start("broker_shell")
    assert shell.say(on="w", text="ask 1 u0") == {"text": "agent 1"}
    assert shell.say(on="w", text="ask 2 u0") == {"text": "agent 2"}
    assert shell.say(on="w", text="ask 3 u1") == {"text": "refused 3 busy"}


NONSENSE: list[dict[str, Any]] = [
    {"text": "garbage"},
    {"text": "\x00\x00\x00\x02[]"},
    {"text": "\x00\x00\x00\x02{]"},
    {"text": "\xff\xff\xff\xff{}"},
    {"fields": {}},
    {"fields": {"do": "exec"}},
    {"fields": {**DELIVER, "recipients": 5}},
    {"fields": {**DELIVER, "recipients": ["x"]}},
    {"fields": {**DELIVER, "count": 10**12}},
    {"fields": {**DELIVER, "count": 0}},
    {"fields": {**DELIVER, "peer": None}},
    {"fields": {**DELIVER, "reverse_path": "not a path"}},
    {"fields": {**DELIVER, "recipients": [{**RECIPIENT, "to": "a@b\r\nc"}]}},
    {"fields": {**DELIVER, "recipients": [{**RECIPIENT, "flags": "/../"}]}},
    {"fields": DELIVER, "descriptors": 2},
]


def test_an_agent_that_is_sent_nonsense_ends_without_harm(site: Site, start: Start) -> None:
    shell = start("broker_shell")
    for number, order in enumerate(NONSENSE, 2):
        assert shell.say(on="w", text=f"ask {number} u1") == {"text": f"agent {number}"}
        assert shell.say(on=f"agent {number}", **order) == {"fields": None}, order
    deliver(shell, site)
    assert not site.maildir("u1").exists()


def test_no_name_of_a_mailbox_leads_out_of_the_maildir(site: Site, start: Start) -> None:
    shell = start("broker_shell")
    shell.say(on="w", text="ask 9 u0")
    for mailbox in ("../../u1/Maildir", "/etc", "..", "a/../../b", "x" * 5000, "\0"):
        fields = {**DELIVER, "recipients": [{**RECIPIENT, "mailbox": mailbox}]}
        said = shell.say(on="agent 9", fields=fields, octets="Subject: x\r\n\r\nx\r\n")
        assert said["fields"]["number"] == 7
    outside = [path for path in site.path.rglob("*S=*") if "/u0/Maildir/" not in str(path)]
    assert outside == []


def test_content_that_is_in_no_file_is_refused(site: Site, start: Start) -> None:
    shell = start("broker_shell")
    shell.say(on="w", text="ask 9 u0")
    said = shell.say(on="agent 9", fields=DELIVER, descriptors=1)
    assert said["fields"]["reply"][:2] == [451, "4.3.0"]
    assert site.mail("u0") == []


def test_the_broker_has_nothing_open_but_its_channels(site: Site, start: Start) -> None:
    shell = start("broker_shell")
    deliver(shell, site)
    folder = Path(f"/proc/{shell.said['broker']}/fd")
    links = sorted(os.readlink(folder / name) for name in os.listdir(folder))
    kinds = {link.partition(":")[0] for link in links}
    assert kinds <= {"/dev/null", "socket", "anon_inode", str(site.path / "log")}


def test_an_agent_is_its_user_and_nobody_else(site: Site, start: Start) -> None:
    site.settings["users"]["u1"]["groups"] = [30_001, 30_002, 0]
    shell = start("broker_shell")
    shell.say(on="w", text="ask 9 u1")
    # It is there, and has become its user, once it answers.
    said = shell.say(on="agent 9", fields=DELIVER, octets="Subject: x\r\n\r\nx\r\n")
    assert said["fields"]["reply"][0] == 250
    pid = max(shell.pids())
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    uid = str(FIRST_UID + 1)
    assert status["Uid"] == status["Gid"] == [uid] * 4
    # Groups that are out of range are left out.
    assert status["Groups"] == ["30001", "30002"]
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name][0], 16) == 0
    assert status["NoNewPrivs"] == ["1"]
    assert {path.stat().st_uid for path in site.maildir("u1").rglob("*")} == {FIRST_UID + 1}
    assert {path.stat().st_mode & 0o077 for path in site.maildir("u1").rglob("*")} == {0}


def test_an_agent_stays_in_its_chroot(site: Site, start: Start) -> None:
    home = site.path / "u0"
    site.settings["users"]["u0"] |= {"chroot": str(home), "home": "/", "mail": "/Maildir"}
    shell = start("broker_shell")
    shell.say(on="w", text="ask 9 u0")
    said = shell.say(on="agent 9", fields=DELIVER, octets="Subject: x\r\n\r\nx\r\n")
    assert said["fields"]["reply"][0] == 250
    assert os.readlink(f"/proc/{max(shell.pids())}/root") == str(home)
    assert len(list((home / "Maildir" / "new").iterdir())) == 1
