"""Traces of a running daemon, as a collector gets them, and what a bad collector does to it."""

import json
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.server._collector import Collector, Span
from tests.server._peer import Peer, deliver
from tests.server._program import Program, run, warnings

Start = Callable[..., Program]
Config = Callable[..., str]

_CONTENT = b"Subject: hush\r\nMessage-ID: <hush@example.test>\r\n\r\nhush\r\n"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(autouse=True)
def _only_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    # So what comes in a test is what was sent as the worker ended, or in full batches.
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")


def _settings(*lines: str, workers: int = 1) -> list[str]:
    return ['listen = ["127.0.0.1:0"]', f"workers = {workers}", "[traces]", *lines]


def _named(spans: list[Span], name: str) -> list[Span]:
    return [span for span in spans if span.name == f"lmtp {name}"]


# A loop, greenlets and threads: who traces is called in another way by each.
@pytest.mark.parametrize("runtime", ["asyncio", "gevent", "blocking"])
def test_a_session_is_a_trace(
    start: Start, folder: Path, config: Config, collector: Collector, runtime: str
) -> None:
    lines = [*_settings(f'endpoint = "{collector.url}"'), "[log]", 'format = "json"']
    program = start("--runtime", runtime, "--config", config(*lines))
    (address,) = [
        line.removeprefix("listening on ") for line in program.wait_for("^listening on .*")
    ]
    with Peer(address) as peer:
        peer.greet()
        assert peer.say("MAIL FROM:<sender@example.test>").startswith("250")
        assert peer.say("RCPT TO:<x/y@example.test>").startswith("550")
        assert peer.say("RCPT TO:<a@example.test>").startswith("250")
        assert peer.say("RCPT TO:<b@example.test>").startswith("250")
        assert peer.say("DATA").startswith("354")
        peer.write(_CONTENT + b".\r\n")
        assert [reply[:3] for reply in peer.replies(2)] == ["250", "250"]
        assert peer.say("MAIL FROM:<sender@example.test>").startswith("250")
        assert peer.say("RSET").startswith("250")
        assert peer.say("QUIT").startswith("221")
        assert peer.read_to_end() == b""
    (line, _) = program.wait_for(r'^\{.*"message": ".*saved mail to.*', 2)
    assert program.stop() == 0

    spans = collector.spans
    (session,) = _named(spans, "session")
    first, second = _named(spans, "transaction")
    refused, one, other = _named(spans, "recipient")
    assert {span.trace for span in spans} == {session.trace}
    assert json.loads(line)["trace_id"] == session.trace
    assert session.parent == ""
    assert (first.parent, second.parent) == (session.id, session.id)
    assert [each.parent for each in (refused, one, other)] == [first.id] * 3
    assert session.start <= first.start <= one.start <= one.end <= first.end <= session.end
    assert session.kind == WireSpan.SPAN_KIND_SERVER
    assert session.resource["service.name"] == "lmtp-server"
    assert session.resource["process.pid"] == json.loads(line)["pid"]

    ours = session.attributes
    assert ours.pop("client.port") == ours.pop("network.peer.port")
    octets = ours.pop("lmtp.session.octets_in"), ours.pop("lmtp.session.octets_out")
    assert all(isinstance(each, int) and each > len(_CONTENT) for each in octets)
    assert json.loads(line)["session"] == ours["lmtp.session.id"]
    assert ours == {
        "client.address": "127.0.0.1",
        "lmtp.lhlo": "client.test",
        "lmtp.listener": "127.0.0.1:0",
        "lmtp.session.id": ours["lmtp.session.id"],
        "lmtp.session.transactions": 2,
        "network.peer.address": "127.0.0.1",
        "network.protocol.name": "lmtp",
        "network.transport": "tcp",
        "server.address": ours["server.address"],
    }
    identity = ours["lmtp.session.id"]
    assert first.attributes == {
        "lmtp.transaction.id": identity,
        "lmtp.transaction.outcome": "delivered",
        "lmtp.transaction.recipients": 2,
        "lmtp.content.size": len(_CONTENT),
    }
    assert second.attributes["lmtp.transaction.id"] == f"{identity}:T2"
    assert second.attributes["lmtp.transaction.outcome"] == "dropped"
    assert refused.status == Status.STATUS_CODE_ERROR
    assert refused.attributes["error.type"] == refused.attributes["lmtp.reply.enhanced"]
    assert refused.attributes["lmtp.outcome"] == "refused"
    assert refused.attributes["lmtp.reply.code"] == 550
    assert one.status == Status.STATUS_CODE_UNSET
    (file,) = folder.glob("mail/example.test/a/new/*")
    assert one.attributes == {
        "lmtp.mailbox": "INBOX",
        "lmtp.message.size": len(_CONTENT.replace(b"\r", b"")),
        "lmtp.outcome": "saved",
        "lmtp.recipient.id": f"{identity}.1",
        "lmtp.reply.code": 250,
        "lmtp.reply.enhanced": "2.0.0",
        "lmtp.storage_id": file.name.partition(":")[0],
    }
    assert other.attributes["lmtp.recipient.id"] == f"{identity}.2"
    # Whoever may see traces need not be who may see mail.
    assert not re.search(r"hush|example\.test|x/y", repr(spans))


def test_a_reload_changes_where_and_what_is_sent(
    start: Start, folder: Path, config: Config, collector: Collector
) -> None:
    (folder / "token").write_text("Bearer hush\n")
    endpoint = f'endpoint = "{collector.url.removesuffix("/v1/traces")}"'
    headers = 'headers = { authorization = { file = "token" }, x-tenant = "mail" }'
    program = start("--config", config(*_settings(endpoint, headers, workers=2)))
    (address,) = program.addresses()
    deliver(address, "a@example.test")
    config(*_settings(endpoint, "sample_ratio = 0"))
    program.send_signal(signal.SIGHUP)
    program.wait_for("INFO .* reloaded")
    # The worker that has ended has sent what it had.
    collector.wait_for(lambda: len(_named(collector._spans, "session")) == 1)
    deliver(address, "a@example.test")
    assert program.stop() == 0
    assert len(_named(collector.spans, "session")) == 1
    assert all(each["authorization"] == "Bearer hush" for each in collector.headers)
    assert all(each["x-tenant"] == "mail" for each in collector.headers)
    assert "hush" not in program.stderr


def test_the_environment_counts_where_nothing_is_set_and_addresses_are_told_if_asked_for(
    start: Start, config: Config, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.removesuffix("/v1/traces"))
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mx1")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "0")
    program = start("--config", config(*_settings()))
    (address,) = program.addresses()
    assert deliver(address, "a@example.test")[0].startswith("250")
    program.wait_for("ERROR .* traces: nothing is traced: max_queue_size must be")
    assert program.stop() == 0
    monkeypatch.delenv("OTEL_BSP_MAX_QUEUE_SIZE")
    program = start("--config", config(*_settings("addresses = true")))
    (address,) = program.addresses()
    assert deliver(address, "A+x@example.test")[0].startswith("250")
    assert program.stop() == 0
    assert {span.resource["service.name"] for span in collector.spans} == {"mx1"}
    (transaction,) = _named(collector.spans, "transaction")
    assert transaction.attributes["lmtp.reverse_path"] == "sender@example.test"
    (recipient,) = _named(collector.spans, "recipient")
    assert recipient.attributes["lmtp.recipient"] == "A+x@example.test"
    assert recipient.attributes["lmtp.user"] == "a@example.test"


class TestABadCollector:
    @pytest.fixture(autouse=True)
    def _small_queue(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")

    @pytest.mark.parametrize("kind", ["dead", "silent"])
    def test_harms_no_delivery(
        self, start: Start, config: Config, collector: Collector, kind: str
    ) -> None:
        url = "http://127.0.0.1:1/v1/traces" if kind == "dead" else collector.url
        if kind == "silent":
            collector.silent.set()
        # Much longer than anybody waits for the end of a worker.
        lines = _settings(f'endpoint = "{url}"', "timeout = 600")
        program = start("--config", config(*lines))
        (address,) = program.addresses()
        for _ in range(10):
            assert deliver(address, "a@example.test")[0].startswith("250")
        if kind != "dead":
            collector.wait_for(lambda: collector.asked > 0)
        assert program.stop() == 0
        lost, *lines = reversed(warnings(program.stderr))
        # Three for each session.
        assert re.search("traces: 30 spans of this worker were not sent", lost)
        assert len(lines) <= 1

    def test_is_forgiven(self, start: Start, config: Config, collector: Collector) -> None:
        collector.status = 500
        program = start("--config", config(*_settings(f'endpoint = "{collector.url}"')))
        (address,) = program.addresses()
        replies = deliver(address, "a@example.test", "b@example.test")
        assert all(reply.startswith("250") for reply in replies)
        program.wait_for("WARNING .* traces: .*(500|Server Error)")
        collector.status = 200
        deliver(address, "a@example.test", "b@example.test")
        program.wait_for("INFO .* traces: sent again; 4 spans were given up")
        assert program.stop() == 0


def test_without_the_library_it_is_a_fault_of_the_settings(
    config: Config, folder: Path, fake_module: Callable[[str, str], None]
) -> None:
    fake_module("opentelemetry", "raise ModuleNotFoundError('there is none')")
    done = Program("--config", config(*_settings()), cwd=folder)
    assert done.wait() == 78
    assert "traces: OpenTelemetry is not installed (there is none)" in done.stderr
    assert "pip install 'lmtp-proto[otel]'" in done.stderr


def test_nothing_is_loaded_where_nothing_is_traced(
    start: Start, folder: Path, fake_module: Callable[[str, str], None]
) -> None:
    fake_module("opentelemetry", "open('loaded', 'w').close()")
    program = start("--listen", "127.0.0.1:0", "--workers", "1")
    (address,) = program.addresses()
    assert deliver(address, "a@example.test")[0].startswith("250")
    assert program.stop() == 0
    assert not (folder / "loaded").exists()


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("endpoint = 'collector:4318'", "endpoint: 'collector:4318' is not allowed"),
        ("endpoint = 'http://me:hush@collector'", "endpoint: a password is for headers"),
        ("headers = { 'a b' = 'hush' }", "headers: 'a b' is no name of a header field"),
        ("headers = { a = ' hush' }", "headers: a: its value cannot stand in a header field"),
        ("headers = { a = ['hush'] }", "headers.a: this is not allowed"),
        ("sample_ratio = 1.5", "sample_ratio: 1.5 is not allowed"),
        ("timeout = 0", "timeout: 0 is not allowed"),
    ],
)
def test_settings_that_are_no_good(folder: Path, config: Config, line: str, fault: str) -> None:
    done = run("config", "check", "--config", config(*_settings(line)), cwd=folder)
    assert done.returncode == 78
    assert f"settings.toml:4: traces.{fault}" in done.stderr.decode()
    assert "hush" not in done.stderr.decode()
