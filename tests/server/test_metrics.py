"""What a daemon counts, and that nothing it goes through makes a counter go back."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server._metrics import get, read, settings, wait_for
from tests.server._peer import Peer, deliver
from tests.server._program import Program, run, without_log

Start = Callable[..., Program]
Config = Callable[..., str]


def _page(folder: Path) -> str:
    return f"unix:{folder}/metrics"


# A loop, greenlets and threads: who counts is called in another way by each.
@pytest.mark.parametrize("runtime", ["asyncio", "gevent", "blocking"])
def test_dialogues_are_counted_by_all_workers_together(
    start: Start, folder: Path, config: Config, runtime: str
) -> None:
    program = start("--config", config(*settings(folder, f'runtime = "{runtime}"')))
    (address,) = program.addresses()
    page = _page(folder)
    for _ in range(4):
        deliver(address, "a@example.test", "b@example.test")
    with Peer(address) as peer:
        peer.greet()
        assert peer.say("MAIL FROM:<s@example.test>").startswith("250")
        assert peer.say("RCPT TO:<x/y@example.test>").startswith("550")
        assert peer.say("RCPT TO:<c@example.test>").startswith("250")
        amid = wait_for(page, lambda now: now["lmtp_recipients_in_flight"] == 1)
        assert amid["lmtp_open_sessions"] == 1
        assert peer.say("RSET").startswith("250")
        assert peer.say("MAKE-UP-A-LABEL").startswith("500")
        assert peer.say("QUIT").startswith("221")
    counted = wait_for(
        page,
        lambda now: (
            now["lmtp_sessions_total{end=lost}"] + now["lmtp_sessions_total{end=quit}"] == 5
        ),
    )
    expected = {
        "lmtp_connections_total": 5,
        "lmtp_sessions_total{end=lost}": 4,
        "lmtp_sessions_total{end=quit}": 1,
        "lmtp_open_sessions": 0,
        "lmtp_recipients_in_flight": 0,
        "lmtp_commands_total{reply=2xx,verb=MAIL}": 5,
        "lmtp_commands_total{reply=3xx,verb=DATA}": 4,
        "lmtp_commands_total{reply=5xx,verb=other}": 1,
        "lmtp_rcpt_total{outcome=accepted}": 9,
        "lmtp_rcpt_total{outcome=refused}": 1,
        "lmtp_rcpt_duration_seconds_count": 10,
        "lmtp_recipients_total{code=250}": 8,
        "lmtp_recipient_statuses_total{status=2.0.0}": 8,
        "lmtp_messages_total{outcome=delivered}": 4,
        "lmtp_messages_total{outcome=dropped}": 1,
        "lmtp_message_size_bytes_count": 4,
        "lmtp_message_size_bytes_sum": 4 * len(b"Subject: x\r\n\r\nx\r\n"),
        "lmtp_content_duration_seconds_count": 4,
        "lmtp_delivery_duration_seconds_count": 8,
        "lmtp_store_deliveries_total": 8,
        "lmtp_workers{state=serving}": 2,
        "lmtp_workers_wanted": 2,
        "lmtp_worker_starts_total": 2,
        "lmtp_worker_failures_total": 0,
    }
    assert {name: counted.get(name) for name in expected} == expected
    assert counted["lmtp_received_bytes_total"] > 0
    assert counted["lmtp_sent_bytes_total"] > 0
    assert all(counted[f"lmtp_worker_memory_bytes{{worker={each}}}"] > 0 for each in (0, 1))
    assert not any("MAKE" in name for name in counted)
    assert program.stop() == 0


def test_counters_survive_killed_workers_and_reloads(
    start: Start, folder: Path, config: Config
) -> None:
    program = start("--config", config(*settings(folder)))
    (address,) = program.addresses()
    page = _page(folder)
    with Peer(address) as peer:
        peer.greet()
        deliver(address, "a@example.test")
        before = wait_for(page, lambda now: now["lmtp_sessions_total{end=lost}"] == 1)
        assert before["lmtp_open_sessions"] == 1
        for pid in program.workers():
            os.kill(pid, signal.SIGKILL)
        # The process that answers was one of them.
        program.wait_for("the process that answers for metrics has ended")
        assert peer.read_to_end() == b""
    wait_for_answers(page)
    after = wait_for(page, lambda now: now["lmtp_workers{state=serving}"] == 2)
    assert after["lmtp_worker_failures_total"] == 2
    assert after["lmtp_open_sessions"] == 0
    assert after["lmtp_connections_total"] == 2
    program.send_signal(signal.SIGHUP)
    program.wait_for("INFO .* reloaded")
    deliver(address, "a@example.test")
    last = wait_for(page, lambda now: now["lmtp_sessions_total{end=lost}"] == 2)
    assert last["lmtp_worker_starts_total"] == 6
    assert last["lmtp_messages_total{outcome=delivered}"] == 2
    shrunk = [
        name
        for name in before
        if name.endswith("_total") or "_bucket" in name
        if last[name] < before[name]
    ]
    assert not shrunk
    assert program.stop() == 0
    assert without_log(program.stderr) == [f"listening on {address}"]


def wait_for_answers(page: str) -> None:
    """Its socket stays: who connects waits until the next process takes him."""
    assert get(page, "/metrics")[0] == 200


def test_a_reload_may_bring_the_page_and_take_it_away(
    start: Start, folder: Path, config: Config
) -> None:
    without = ['listen = ["127.0.0.1:0"]', "workers = 1"]
    program = start("--config", config(*without))
    (address,) = program.addresses()
    assert len(program.workers()) == 1
    config(*settings(folder, workers=1))
    program.send_signal(signal.SIGHUP)
    program.wait_for("INFO .* reloaded")
    deliver(address, "a@example.test")
    wait_for(_page(folder), lambda now: now["lmtp_messages_total{outcome=delivered}"] == 1)
    config(*without)
    program.send_signal(signal.SIGHUP)
    program.wait_for("INFO .* reloaded", 2)
    assert not (folder / "metrics").exists()
    assert not (folder / "control").exists()
    assert program.stop() == 0


@pytest.mark.parametrize("key", ["listen", "control"])
def test_a_place_where_nobody_can_answer_is_a_fault(folder: Path, config: Config, key: str) -> None:
    value = f'["unix:{folder}/none/s"]' if key == "listen" else f'"{folder}/none/s"'
    path = config('listen = ["127.0.0.1:0"]', "[metrics]", f"{key} = {value}")
    ended = run("serve", "--config", path, cwd=folder)
    assert ended.returncode == os.EX_CONFIG
    assert f"{folder}/none/s" in ended.stderr.decode()
    assert ended.stderr.startswith(b"lmtp-server: metrics: ")


def test_who_may_ask_is_up_to_the_files(start: Start, folder: Path, config: Config) -> None:
    program = start("--config", config(*settings(folder, workers=1)))
    program.addresses()
    modes = {name: (folder / name).stat().st_mode & 0o777 for name in ("control", "metrics")}
    assert modes == {"control": 0o600, "metrics": 0o660}
    assert program.stop() == 0
    assert not (folder / "control").exists()
    assert not (folder / "metrics").exists()


def test_the_older_text_format_is_given_where_it_is_asked_for(
    start: Start, folder: Path, config: Config
) -> None:
    program = start("--config", config(*settings(folder, workers=1)))
    program.addresses()
    page = _page(folder)
    _, head, body = get(page, "/metrics", "Accept: text/plain;version=0.0.4")
    assert "Content-Type: text/plain" in head
    assert not body.endswith("# EOF\n")
    _, head, body = get(page, "/metrics", "Accept: application/openmetrics-text;version=1.0.0")
    assert "Content-Type: application/openmetrics-text" in head
    assert body.endswith("# EOF\n")
    assert read(page)["lmtp_workers{state=serving}"] == 1
