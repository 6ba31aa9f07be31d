"""The pages of a daemon's metrics, as scrapers and health checks get them."""

import time
from collections.abc import Callable
from pathlib import Path

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.server._peer import connect
from tests.server._program import SECONDS

ACCEPT = "application/openmetrics-text; version=1.0.0"


def get(address: str, path: str, *fields: str, method: str = "GET") -> tuple[int, str, str]:
    """Ask for a page; status, head and body of the answer."""
    head = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: metrics.test", *fields, "", ""])
    with connect(address) as sock, sock.makefile("rb") as octets:
        sock.sendall(head.encode())
        answer = octets.read().decode()
    status, _, body = answer.partition("\r\n\r\n")
    return int(status.split()[1]), status, body


def read(address: str) -> dict[str, float]:
    """All samples of the page, by name with labels."""
    status, _, body = get(address, "/metrics", f"Accept: {ACCEPT}")
    assert status == 200
    samples = {}
    # This function of prometheus-client has no types.
    families = text_string_to_metric_families(body)  # type: ignore[no-untyped-call]
    for family in families:
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


def wait_for(address: str, is_so: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    """Read the page until it is so, as what happens is counted a moment later; the samples."""
    end = time.monotonic() + SECONDS
    while not is_so(samples := read(address)):
        assert time.monotonic() < end, samples
        time.sleep(0.05)
    return samples


def settings(folder: Path, *lines: str, workers: int = 2) -> list[str]:
    """A settings file with a control socket and a page."""
    return [
        f'base_dir = "{folder}"',
        'listen = ["127.0.0.1:0"]',
        f"workers = {workers}",
        *lines,
        "[metrics]",
        f'listen = ["unix:{folder}/metrics"]',
    ]
