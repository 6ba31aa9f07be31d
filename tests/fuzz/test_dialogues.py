"""Some of the dialogues that `python -m tests.fuzz` holds by the million, and what they find."""

import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from lmtp_proto import ClientConnection, RecipientReplied, Reply, ServerConnection

# The faults are put where only the insides of the machine are.
from lmtp_proto._buffer import InputBuffer, LineFault
from lmtp_proto._content import DotDecoder
from tests.fuzz import server
from tests.fuzz.dialogues import ROLES, play, play_all

_ROOT: Final = Path(__file__).parents[2]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *arguments],
        capture_output=True,
        text=True,
        cwd=_ROOT,
        check=False,
    )


@pytest.mark.parametrize("role", ROLES)
def test_random_dialogues(role: str) -> None:
    tally = play_all(range(600), role)
    assert tally.failure == ""
    assert tally.dialogues == {role: 600}
    assert tally.replies > 600


def test_the_same_seed_is_the_same_dialogue() -> None:
    replies = [play(seed) for seed in range(40)]
    assert replies == [play(seed) for seed in range(40)]
    assert len(set(replies)) > 5


class TestCommand:
    def test_it_says_what_it_did(self) -> None:
        done = _run("--dialogues", "40")
        assert done.returncode == 0
        assert done.stdout.startswith(
            "40 dialogues (24 server, 10 client, 6 joined; 17 measured), "
        )

    def test_processes_hold_the_same_dialogues(self) -> None:
        one = _run("--dialogues", "600", "--seed", "100", "--role", "client")
        two = _run("--dialogues", "600", "--seed", "100", "--role", "client", "--jobs", "2")
        assert two.returncode == 0
        assert two.stdout.split(";")[:2] == one.stdout.split(";")[:2]

    @pytest.mark.parametrize("jobs", ["1", "2"])
    def test_an_interrupt_leaves_the_seed(self, jobs: str) -> None:
        arguments = ["--seed", "9800", "--dialogues", "999999999"]
        with subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz", "--jobs", jobs, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
        ) as process:
            assert process.stderr is not None
            assert process.stderr.readline() == "500 dialogues, all well below 10300\n"
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate()
        assert process.returncode == 130, output
        seed = int(output.split("--seed ")[1].split()[0])
        assert seed >= 10300
        assert output.endswith(
            f"stopped: go on with --seed {seed} --dialogues {10**9 + 9799 - seed}\n"
        )


def _say_twice(patch: pytest.MonkeyPatch) -> None:
    send = ServerConnection.send

    def wrong(self: ServerConnection, answer: Reply) -> bytes:
        octets = send(self, answer)
        return octets * 2 if octets.startswith(b"252") else octets

    patch.setattr(ServerConnection, "send", wrong)


def _say_nothing(patch: pytest.MonkeyPatch) -> None:
    send = ServerConnection.send

    def wrong(self: ServerConnection, answer: Reply) -> bytes:
        octets = send(self, answer)
        return b"" if octets.startswith(b"214") else octets

    patch.setattr(ServerConnection, "send", wrong)


def _lose_an_octet(patch: pytest.MonkeyPatch) -> None:
    decode = DotDecoder.decode

    def wrong(self: DotDecoder, data: bytes) -> tuple[bytes, int]:
        content, used = decode(self, data)
        return content.removesuffix(b"\rx\r\n\r\n"), used

    patch.setattr(DotDecoder, "decode", wrong)


def _keep_endless_lines(patch: pytest.MonkeyPatch) -> None:
    next_line = InputBuffer.next_line

    def wrong(self: InputBuffer, limit: int) -> bytes | LineFault | None:
        return next_line(self, 10**9)

    patch.setattr(InputBuffer, "next_line", wrong)


def _search_octet_by_octet(patch: pytest.MonkeyPatch) -> None:
    feed = InputBuffer.feed

    def wrong(self: InputBuffer, data: bytes) -> None:
        for place in range(len(data)):
            data.startswith(b"\r", place) or data.startswith(b"\n", place) or data.isspace()
        feed(self, data)

    patch.setattr(InputBuffer, "feed", wrong)


def _crash(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: ServerConnection) -> list[str]:
        raise IndexError

    patch.setattr(ServerConnection, "verbs", property(wrong))


def _mix_recipients_up(patch: pytest.MonkeyPatch) -> None:
    final = ClientConnection._final

    def wrong(self: ClientConnection, reply: Reply) -> RecipientReplied:
        self._owed.rotate()
        event = final(self, reply)
        assert isinstance(event, RecipientReplied)
        self._owed.rotate(-1)
        return event

    patch.setattr(ClientConnection, "_final", wrong)


def _forget_the_silence(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: InputBuffer) -> bool:
        return False

    patch.setattr(InputBuffer, "drop", wrong)


@pytest.mark.parametrize(
    ("fault", "role", "words"),
    [
        (_say_twice, "server", "252 answers"),
        (_say_nothing, "server", "no reply to"),
        (_lose_an_octet, "server", "the content is not what was sent"),
        (_keep_endless_lines, "server", "no reply to"),
        (_crash, "server", "IndexError"),
        (_mix_recipients_up, "client", "not the reply in its place"),
        (_mix_recipients_up, "joined", "assert replies == "),
        (_forget_the_silence, "client", "behind a reply too many"),
    ],
)
def test_faults_are_found(
    fault: Callable[[pytest.MonkeyPatch], None],
    role: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fault(monkeypatch)
    assert any(words in play_all(range(seed, seed + 1), role).failure for seed in range(3000))


@pytest.mark.parametrize(
    ("fault", "words"),
    [(_keep_endless_lines, "octets are kept"), (_search_octet_by_octet, "calls, ")],
)
def test_what_costs_too_much_is_found(
    fault: Callable[[pytest.MonkeyPatch], None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError, match=words):
        _measure(range(1000))


def _measure(seeds: range) -> None:
    for seed in seeds:
        chance = random.Random(seed)
        server.hold_measured(server.long_dialogue(chance), chance)
