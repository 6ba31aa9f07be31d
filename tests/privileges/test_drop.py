"""Becoming another user for good, and what a process may do from then on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmtp_server._privileges import Identity, Mode, PrivilegesError, ValidIds, plan
from tests.privileges.conftest import NETWORK_UID, ROOT, SECONDS, Site

PREAMBLE = f"""
import errno, os, signal, socket, subprocess, sys, threading
from lmtp_server._privileges import Capability, Confinement, Identity, PrivilegesError
from lmtp_server._privileges import drop, harden

somebody = Identity({NETWORK_UID}, {NETWORK_UID}, (30001, 30002))

def fails(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return error.errno in (errno.EPERM, errno.EACCES)
    return False
"""


def run(code: str) -> str:
    """Run `code` in a process of its own; what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + code],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'adapters'}"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_there_is_no_way_back() -> None:
    code = """
drop(somebody)
print(os.getresuid(), os.getresgid(), sorted(os.getgroups()))
print(fails(os.setuid, 0), fails(os.setgid, 0), fails(os.setgroups, [0]), fails(os.chroot, "/"))
print(fails(os.kill, os.getppid(), 0), fails(open, "/proc/1/environ"))
"""
    uid = NETWORK_UID
    assert run(code).splitlines() == [
        f"({uid}, {uid}, {uid}) ({uid}, {uid}, {uid}) [30001, 30002]",
        "True True True True",
        "True True",
    ]


def test_a_capability_may_be_kept_for_the_process_itself() -> None:
    code = """
drop(somebody, keep=[Capability.NET_BIND_SERVICE])
with socket.create_server(("127.0.0.1", 0)) as probe:
    pass
for port in range(900, 1000):
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        assert error.errno == errno.EADDRINUSE, error
    else:
        break
print(fails(os.setuid, 0), fails(os.chown, "/", 1, 1))
pid = os.fork()
if not pid:
    drop_bounding = [line for line in open("/proc/self/status") if line.startswith("CapBnd")]
    print(drop_bounding[0].split()[1])
    sys.stdout.flush()
    os._exit(0)
os.waitpid(pid, 0)
"""
    assert sorted(run(code).split()) == ["0" * 16, "True", "True"]


def test_a_process_in_a_chroot_sees_nothing_else(site: Site) -> None:
    (site.path / "here").touch()
    code = f"""
drop(somebody, chroot={str(site.path)!r})
print(os.getcwd(), os.path.exists("/here"), os.path.exists("/etc"))
"""
    assert run(code) == "/ True False"


def test_threads_and_users_who_are_not_root_are_refused() -> None:
    code = """
ended = threading.Event()
thread = threading.Thread(target=ended.wait)
thread.start()
try:
    drop(somebody)
except PrivilegesError as error:
    print(error)
ended.set()
thread.join()
# To the system it lives on for a moment.
while len(os.listdir("/proc/self/task")) > 1:
    pass
drop(somebody)
try:
    drop(Identity(12345, 12345))
except PrivilegesError as error:
    print(error)
"""
    first, second = run(code).splitlines()
    assert first == "one of 2 threads cannot change the user of them all"
    assert second.startswith("UID 12345 is out of reach: ")


def test_what_is_never_needed_is_forbidden() -> None:
    code = """
for network, execute in ((False, False), (True, False), (False, True)):
    sys.stdout.flush()
    if pid := os.fork():
        os.waitpid(pid, 0)
        continue
    if harden(Confinement(network=network, execute=execute)):
        socket.socketpair()
        print(fails(socket.socket), fails(subprocess.run, ["/bin/true"]), fails(os.setuid, 12345))
    else:
        print("no filter")
    sys.stdout.flush()
    os._exit(0)
"""
    said = run(code).splitlines()
    if said[0] == "no filter":
        pytest.skip("this kernel filters no system calls")
    assert said == ["True True True", "False True True", "True False True"]


def test_uid_0_is_nobody_who_gets_mail() -> None:
    with pytest.raises(PrivilegesError, match=r"UID 0 \(root\)"):
        Identity(0, 100)
    with pytest.raises(PrivilegesError, match="no id"):
        Identity(-1, 100)
    with pytest.raises(PrivilegesError, match="no id"):
        Identity(100, 2**32 - 1)
    with pytest.raises(PrivilegesError, match="there is no user 'nosuchuser'"):
        Identity.of("nosuchuser")
    with pytest.raises(PrivilegesError, match="there is no group 'nosuchgroup'"):
        Identity.of("nobody", "nosuchgroup")


@pytest.mark.parametrize(
    ("identity", "fault"),
    [
        (Identity(500, 1), None),
        (Identity(600, 90), None),
        (Identity(499, 1), "UID 499 is not allowed"),
        (Identity(601, 1), r"500 \(first_valid_uid\) to 600 \(last_valid_uid\)"),
        (Identity(500, 0), "GID 0 is not allowed"),
        (Identity(500, 91), "GID 91 is not allowed"),
    ],
)
def test_ids_out_of_range_are_refused(identity: Identity, fault: str | None) -> None:
    valid = ValidIds(first_uid=500, last_uid=600, first_gid=1, last_gid=90)
    if fault is None:
        assert valid.check(identity) == identity
    else:
        with pytest.raises(PrivilegesError, match=fault):
            valid.check(identity)


def test_groups_out_of_range_are_left_out() -> None:
    identity = Identity(1000, 1000, (0, 5, 200, 1000))
    assert ValidIds(first_gid=5).check(identity).groups == (5, 200, 1000)


class TestPlan:
    def test_root_with_one_user_for_all_mail(self) -> None:
        found = plan(user="nobody", valid_ids=ValidIds())
        assert found.mode is Mode.ONE_USER
        assert found.identity == Identity.of("nobody")

    def test_root_without_one_needs_a_broker(self) -> None:
        found = plan(network_user="nobody", valid_ids=ValidIds())
        assert (found.mode, found.identity) == (Mode.BROKER, Identity.of("nobody"))
        assert plan(valid_ids=ValidIds()).mode is Mode.BROKER

    def test_root_is_no_user_for_anything(self) -> None:
        for settings in ({"user": "root"}, {"network_user": "root"}, {"user": "0"}):
            with pytest.raises(PrivilegesError, match="UID 0"):
                plan(**settings, valid_ids=ValidIds())

    def test_a_user_out_of_range_is_refused(self) -> None:
        with pytest.raises(PrivilegesError, match="first_valid_uid"):
            plan(user="nobody", valid_ids=ValidIds(last_uid=1000))
        with pytest.raises(PrivilegesError, match="a group without a user"):
            plan(group="nogroup", valid_ids=ValidIds())

    def test_somebody_else_changes_nothing(self) -> None:
        code = """
from lmtp_server._privileges import ValidIds, plan
drop(Identity(65534, 65534))
print(plan(valid_ids=ValidIds()).mode, plan(user="65534", valid_ids=ValidIds()).mode)
try:
    plan(user="1", valid_ids=ValidIds(first_uid=1))
except PrivilegesError as error:
    print(error)
"""
        assert run(code).splitlines() == [
            "unchanged unchanged",
            "only root can start a server that runs as '1'",
        ]


def test_the_numbers_of_system_calls_are_those_of_the_kernel_headers() -> None:
    from lmtp_server._privileges import _seccomp

    headers = {
        0: Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        1: Path("/usr/include/asm-generic/unistd.h"),
    }
    for column, path in headers.items():
        if not path.exists():
            pytest.skip("there are no headers of the kernel")
        known: dict[str, int] = {}
        for line in path.read_text().splitlines():
            words = line.replace("__NR3264_", "__NR_").split()
            match words:
                case ["#define", name, number] if name.startswith("__NR_") and number.isdecimal():
                    known[name[5:]] = int(number)
        listed = {**_seccomp._NEVER, **_seccomp._EXECUTE, "socket": _seccomp._SOCKET}
        found = {name: numbers[column] for name, numbers in listed.items()}
        assert found == {name: known.get(name) for name in found}
