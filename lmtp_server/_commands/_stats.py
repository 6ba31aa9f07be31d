"""The command `stats`: what the service has counted, and how fast it does.

The invariant: rates are those between two looks at the same service, or since its start.
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from lmtp_server._settings import ServeSettings

from ._asking import AskError, ask_service
from ._columns import show_table


def stats(settings: ServeSettings, *, as_json: bool, watch: float | None) -> int:
    """Print them, again every `watch` seconds until Ctrl-C; the exit code."""
    before: dict[str, Any] | None = None
    while True:
        try:
            answer = ask_service(settings, "stats")
        except AskError as error:
            return error.tell()
        if as_json:
            sys.stdout.write(f"{json.dumps(answer)}\n")
            sys.stdout.flush()
        else:
            if before is not None:
                sys.stdout.write("\n")
            _show(answer, before)
        if watch is None:
            return os.EX_OK
        # Another service has counted from nought.
        before = answer
        time.sleep(watch)


def _show(answer: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
    if before is None or before["begun"] != answer["begun"]:
        before = {"time": answer["begun"], "metrics": []}
    seconds = max(0.001, answer["time"] - before["time"])
    earlier = {key: value for key, value, _ in _values(before["metrics"])}
    rows = [
        (key, _number(value), f"{(value - earlier.get(key, 0)) / seconds:.2f}" if grows else "-")
        for key, value, grows in _values(answer["metrics"])
    ]
    show_table(("METRIC", "VALUE", "PER SECOND"), rows, right=("VALUE", "PER SECOND"))


def _values(metrics: list[dict[str, Any]]) -> Iterator[tuple[str, float, bool]]:
    """Name with labels, value, and whether it grows."""
    for metric in metrics:
        name = metric["name"].removeprefix("lmtp_")
        if metric["kind"] == "histogram":
            yield f"{name} (count)", metric["count"], True
            if metric["count"]:
                yield f"{name} (mean)", metric["sum"] / metric["count"], False
            continue
        for sample in metric["samples"]:
            labels = " ".join(f"{key}={value}" for key, value in sample["labels"].items())
            yield f"{name} {labels}".rstrip(), sample["value"], metric["kind"] == "counter"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.6f}"
