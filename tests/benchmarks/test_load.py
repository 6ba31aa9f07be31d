"""The load generator sends what it says and accepts nothing but the replies it is owed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks._messages import content, on_the_wire
from tests.benchmarks._scripted import right, scripted

_ROOT = Path(__file__).parents[2]
_SIZE = 40_000


def _generate(address: str, *options: str) -> tuple[int, list[dict[str, Any]]]:
    """Run the generator; return its exit status and its events."""
    command = [sys.executable, "-m", "benchmarks._load", address, "--size", str(_SIZE), *options]
    done = subprocess.run(command, cwd=_ROOT, stdout=subprocess.PIPE, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("mode", ["pipelined", "unpipelined", "ahead"])
def test_every_message_arrives_whole(mode: str) -> None:
    with scripted(right) as (address, contents):
        status, events = _generate(
            address, "--messages=7", "--connections=2", "--recipients=3", f"--mode={mode}"
        )
    assert status == 0
    assert [event["event"] for event in events] == ["begin", "end", "result"]
    result = events[-1]
    assert (result["messages"], result["acknowledged"]) == (7, 7)
    assert (result["bad_replies"], result["connection_errors"]) == (0, 0)
    assert result["octets"] == 7 * _SIZE
    assert 0 < result["p50_ms"] <= result["p99_ms"] <= result["max_ms"]
    assert contents == [on_the_wire(content(_SIZE)).removesuffix(b".\r\n")] * 7


def test_warm_up_is_outside_the_window(tmp_path: Path) -> None:
    with scripted(right, path=str(tmp_path / "lmtp")) as (address, contents):
        status, events = _generate(address, "--messages=5", "--warmup=0.1", "--connections=3")
    assert status == 0
    assert events[-1]["messages"] == 5
    assert events[-1]["acknowledged"] == len(contents) > 5


def test_a_duration_ends_it() -> None:
    with scripted(right) as (address, contents):
        status, events = _generate(address, "--duration=0.2", "--connections=2", "--no-dots")
    assert status == 0
    assert events[-1]["messages"] == len(contents) > 0
    assert contents[0] == content(_SIZE, dots=False)


def test_one_final_reply_a_message_only_when_asked_for() -> None:
    def once(verb: str, recipients: int) -> bytes:
        return right(verb, 1)

    with scripted(once) as (address, _):
        status, events = _generate(address, "--messages=4", "--recipients=3", "--replies=1")
    assert (status, events[-1]["messages"]) == (0, 4)


@pytest.mark.parametrize("mode", ["pipelined", "unpipelined", "ahead"])
@pytest.mark.parametrize(
    ("verb", "replies", "sample"),
    [
        ("", b"421 4.3.2 later\r\n", "should be 220"),
        ("LHLO", b"250-more\r\n500 no\r\n", "should be 250"),
        ("RCPT", b"550 5.1.1 unknown\r\n", "should be 250"),
        ("DATA", b"250 2.0.0 not 354\r\n", "should be 354"),
        (".", b"250 2.0.0 saved\r\n452 4.2.2 full\r\n", "452 4.2.2 full"),
        (".", b"250 2.0.0 saved\r\n", "replies had come"),
        (".", b"250 2.0.0 saved\n250 2.0.0 saved\n", "replies had come"),
        (".", b"250-2.0.0 a\r\n250-2.0.0 b\r\n", "replies had come"),
        ("QUIT", b"221 2.0.0 bye\r\n250 2.0.0 saved\r\n", "250 2.0.0 saved"),
    ],
)
def test_wrong_replies_are_counted(mode: str, verb: str, replies: bytes, sample: str) -> None:
    def wrong(given: str, recipients: int) -> bytes:
        return replies if given == verb else right(given, recipients)

    with scripted(wrong) as (address, _):
        status, events = _generate(
            address,
            "--messages=1",
            "--connections=1",
            "--recipients=2",
            f"--mode={mode}",
            "--timeout=0.3",
        )
    result = events[-1]
    assert status == 1
    assert (result["bad_replies"], result["connection_errors"]) == (1, 0)
    assert sample in result["samples"][0]


@pytest.mark.parametrize("mode", ["pipelined", "unpipelined", "ahead"])
def test_a_reply_too_many_is_counted(mode: str) -> None:
    def generous(verb: str, recipients: int) -> bytes:
        return right(verb, recipients + (verb == "."))

    with scripted(generous) as (address, _):
        status, events = _generate(address, "--messages=3", "--connections=1", f"--mode={mode}")
    assert status == 1
    assert events[-1]["bad_replies"] == 1


def test_a_message_counts_only_with_all_its_replies() -> None:
    def once(verb: str, recipients: int) -> bytes:
        return right(verb, 1)

    with scripted(once) as (address, _):
        status, events = _generate(
            address, "--messages=4", "--recipients=3", "--connections=4", "--timeout=0.3"
        )
    assert status == 1
    assert (events[-1]["messages"], events[-1]["bad_replies"]) == (0, 4)


def test_a_closed_connection_is_an_error() -> None:
    def closing(verb: str, recipients: int) -> bytes | None:
        return None if verb == "DATA" else right(verb, recipients)

    with scripted(closing) as (address, _):
        status, events = _generate(address, "--messages=2", "--connections=2")
    assert status == 1
    assert events[-1]["messages"] == 0
    assert (events[-1]["bad_replies"], events[-1]["connection_errors"]) == (0, 2)


def test_nobody_there_is_an_error(tmp_path: Path) -> None:
    status, events = _generate(f"unix:{tmp_path}/none", "--messages=1", "--connections=2")
    assert status == 1
    assert events[-1]["connection_errors"] == 2


def test_content_has_its_size_and_whole_lines() -> None:
    # A whole line's length of sizes: the cut falls on every place of a line and of its end.
    for size in range(1000, 1080):
        message = content(size)
        assert len(message) == size
        assert message.endswith(b"\r\n")
        lines = message.removesuffix(b"\r\n").split(b"\r\n")
        assert max(map(len, lines)) <= 78
        assert not any(b"\r" in line or b"\n" in line for line in lines)


def test_one_line_in_200_is_dot_stuffed() -> None:
    message = content(200 * 78 * 10)
    wire = on_the_wire(message)
    assert wire.count(b"\r\n..") == 10
    assert wire.endswith(b"\r\n.\r\n")
    assert wire.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.") == message


def test_content_without_dots_needs_no_stuffing() -> None:
    message = content(100_000, dots=False)
    assert on_the_wire(message) == message + b".\r\n"


def test_a_size_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="message size 100: give at least"):
        content(100)
