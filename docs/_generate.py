"""Writes the pages of this folder that follow from the code and from the tests, and what is made of
these pages: the man pages, and with them the scripts by which shells complete the commands.

`python docs/_generate.py` writes them all; a test fails while one of them is not what would be
written now (of the scripts: has not the same commands and options). The places of the
states in the diagram are chosen by hand, because so few read best that way: a state without a
place is an error. The lines between them draw themselves.
"""

import math
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Final, TypedDict, cast

_DOCS: Final = Path(__file__).parent
# The protocol is read from this tree, whatever is installed.
sys.path[:0] = [str(_DOCS.parent), str(_DOCS.parent / "adapters"), str(_DOCS)]

from _man import man_page  # noqa: E402  - behind the path

from lmtp_proto import TRANSITIONS, State, Verb  # noqa: E402
from lmtp_server._metrics._definitions import METRICS, Metric  # noqa: E402
from lmtp_server._settings._reference import describe_dovecot, describe_settings  # noqa: E402

_GENERATED: Final = "<!-- Written by docs/_generate.py; do not edit. -->"
# Moves that no command causes.
_MOVES: Final = (Verb.CONNECT, Verb.RESPONSE, Verb.END, Verb.SETTLED, Verb.SECURED)
_COMMANDS: Final = tuple(verb for verb in Verb if verb not in _MOVES)


class Entry(TypedDict, total=False):
    """One requirement: of an RFC (`section`) or of the checklist (`number`, `input`)."""

    section: str
    requirement: str
    number: int
    input: str
    sources: str
    tests: list[str]
    reason: str


class Difference(TypedDict):
    """A turn of a dialogue with the codes that Dovecot and we answer."""

    dialog: str
    turn: str
    dovecot: list[int]
    ours: list[int]


class Reason(TypedDict):
    """Why differences may be, and the section that says so."""

    section: str
    why: str
    differences: list[Difference]


class ImportedReason(Reason):
    """The same of our daemon with the imported settings of a Dovecot."""

    configuration: str


class Differences(TypedDict):
    """All differences from Dovecot, and the version of it that was asked."""

    dovecot: str
    reason: list[Reason]
    imported: list[ImportedReason]


def load(name: str) -> dict[str, list[Entry]]:
    """The entries of docs/`name`, by the heading they stand under."""
    tables: dict[str, list[Entry]] = tomllib.loads((_DOCS / name).read_text(encoding="utf-8"))
    return tables


def load_differences() -> Differences:
    """The differences from Dovecot."""
    text = (_DOCS / "dovecot-differences.toml").read_text(encoding="utf-8")
    return cast(Differences, tomllib.loads(text))


# --- the state machine ---------------------------------------------------------------------------


def _cell(state: State, verb: Verb) -> str:
    step = TRANSITIONS.get((state, verb))
    if step is None:
        return "–"
    names = dict.fromkeys((step.accepted.name, step.refused.name))
    if step.challenged is not None:
        names[f"334: {step.challenged.name}"] = None
    return " / ".join(names)


def _table(states: list[State], verbs: tuple[Verb, ...]) -> list[str]:
    lines = [f"| state | {' | '.join(verb.value for verb in verbs)} |"]
    lines.append(f"|---|{'---|' * len(verbs)}")
    for state in states:
        cells = " | ".join(_cell(state, verb) for verb in verbs)
        lines.append(f"| **{state.name}** | {cells} |")
    return lines


def state_machine() -> str:
    """The page of the table."""
    listening = [s for s in State if any((s, verb) in TRANSITIONS for verb in _COMMANDS)]
    return "\n".join(
        [
            _GENERATED,
            "",
            "# The state machine",
            "",
            (
                "What may follow what, for server and client alike, is one table: "
                "`lmtp_proto.TRANSITIONS`."
            ),
            "The server walks it as it answers, the client as it reads the answers.",
            "",
            "```{image} state-machine.svg",
            ":alt: The states of a session and the moves between them",
            ":width: 100%",
            "```",
            "",
            (
                "A solid line is taken on a 2xx or 3xx reply, a dashed one on a 4xx or 5xx. A "
                "refusal that is not drawn changes nothing or leads where the acceptance does."
            ),
            "",
            "## States",
            "",
            *(f"- **{state.name}**: {state.value}." for state in State),
            "",
            "## Commands",
            "",
            (
                "`A / B` leads to A when the reply is positive and to B when it is negative; one "
                "name is for both. A challenge leads to what follows `334:`."
            ),
            "`–` is answered `503 5.5.1`. A reply of 421 leads to CLOSED from everywhere.",
            "",
            *_table(listening, _COMMANDS),
            "",
            "## Moves that no command causes",
            "",
            *_table([s for s in State if any((s, v) in TRANSITIONS for v in _MOVES)], _MOVES),
            "",
        ]
    )


# --- its picture ---------------------------------------------------------------------------------

_WIDTH: Final = 176
_HEIGHT: Final = 104
_COLUMN: Final = 300
_ROW: Final = 196
_MARGIN: Final = 24
# Column and row of each state.
_PLACES: Final = {
    State.EXCHANGE: (2, 0),
    State.CONNECTED: (0, 1),
    State.GREETED: (1, 1),
    State.READY: (2, 1),
    State.MAIL: (3, 1),
    State.RCPT: (4, 1),
    State.REFUSED: (0, 2),
    State.TLS: (1, 2),
    State.STATUS: (2, 2),
    State.BROKEN: (5, 2),
    State.CLOSED: (1, 3),
    State.DATA: (3, 3),
    State.CHUNK: (4, 3),
}
_INK: Final = "#1f2933"
_REFUSED: Final = "#b42318"


def _moves() -> tuple[dict[tuple[State, State, bool], list[str]], dict[State, list[str]]]:
    """The lines to draw, by ends and whether they are refusals; and what is said in the boxes.

    In the box stands what leads nowhere else, and what leads home from everywhere: RSET, LHLO
    amid a transaction, QUIT.
    """
    lines: dict[tuple[State, State, bool], list[str]] = {}
    stays: dict[State, list[str]] = {}
    homes: dict[State, dict[State, list[str]]] = {}
    for verb in Verb:
        for state in State:
            step = TRANSITIONS.get((state, verb))
            if step is None:
                continue
            home = verb in (Verb.RSET, Verb.QUIT) or (
                verb is Verb.LHLO and state is not State.GREETED
            )
            if step.accepted is state:
                stays.setdefault(state, []).append(verb.value)
            elif home:
                homes.setdefault(state, {}).setdefault(step.accepted, []).append(verb.value)
            else:
                lines.setdefault((state, step.accepted, False), []).append(verb.value)
            if step.refused not in (state, step.accepted):
                lines.setdefault((state, step.refused, True), []).append(verb.value)
            if step.challenged not in (None, state):
                lines.setdefault((state, step.challenged, False), []).append(f"{verb.value}: 334")
    boxes = {}
    for state in State:
        said = [", ".join(stays[state]) + " ↺"] if state in stays else []
        said += [f"{', '.join(verbs)} → {to.name}" for to, verbs in homes.get(state, {}).items()]
        boxes[state] = [line for text in said for line in _wrapped(text)]
    return lines, boxes


def _wrapped(text: str, width: int = 27) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}".strip()
        if len(joined) > width:
            lines.append(word)
        else:
            lines[-1] = joined
    return lines


def _centre(state: State) -> tuple[float, float]:
    column, row = _PLACES[state]
    return _MARGIN + column * _COLUMN + _WIDTH / 2, _MARGIN + row * _ROW + _HEIGHT / 2


def _border(state: State, x: float, y: float, towards: tuple[float, float]) -> tuple[float, float]:
    """Where the line from (x, y) in the box of `state` in direction `towards` leaves the box."""
    centre_x, centre_y = _centre(state)
    reach = []
    for at, centre, half, step in (
        (x, centre_x, _WIDTH / 2, towards[0]),
        (y, centre_y, _HEIGHT / 2, towards[1]),
    ):
        if step:
            reach.append((centre + math.copysign(half, step) - at) / step)
    return x + min(reach) * towards[0], y + min(reach) * towards[1]


def _line(source: State, target: State, label: str, *, refused: bool, both: bool) -> list[str]:
    (from_x, from_y), (to_x, to_y) = _centre(source), _centre(target)
    length = math.hypot(to_x - from_x, to_y - from_y)
    along = (to_x - from_x) / length, (to_y - from_y) / length
    # Of two lines between the same boxes each keeps to its right.
    aside = 34 if both else 0
    from_x, from_y = from_x - along[1] * aside, from_y + along[0] * aside
    to_x, to_y = to_x - along[1] * aside, to_y + along[0] * aside
    start_x, start_y = _border(source, from_x, from_y, along)
    end_x, end_y = _border(target, to_x, to_y, (-along[0], -along[1]))
    # And has its label near its beginning, so that the two do not meet.
    part = 0.3 if both else 0.5
    middle_x = start_x + part * (end_x - start_x)
    middle_y = start_y + part * (end_y - start_y)
    colour, dashes = (_REFUSED, ' stroke-dasharray="6 4"') if refused else (_INK, "")
    head = "refused" if refused else "accepted"
    half = 3.3 * len(label) + 4
    return [
        (
            f'<path d="M{start_x:.1f} {start_y:.1f}L{end_x:.1f} {end_y:.1f}" stroke="{colour}"'
            f'{dashes} marker-end="url(#{head})"/>'
        ),
        (
            f'<rect x="{middle_x - half:.1f}" y="{middle_y - 9:.1f}" width="{2 * half:.1f}" '
            'height="18" fill="#ffffff"/>'
        ),
        f'<text x="{middle_x:.1f}" y="{middle_y + 4:.1f}" fill="{colour}">{escape(label)}</text>',
    ]


def _box(state: State, said: list[str]) -> list[str]:
    x, y = _centre(state)
    left, top = x - _WIDTH / 2, y - _HEIGHT / 2
    lines = [
        (
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{_WIDTH}" height="{_HEIGHT}" rx="8" '
            f'fill="#eef4fb" stroke="{_INK}"/>'
        ),
        (
            f'<text x="{x:.1f}" y="{top + 20:.1f}" font-weight="bold" font-size="14">'
            f"{state.name}</text>"
        ),
    ]
    baseline = top + 37
    for text in _wrapped(state.value, 29):
        lines.append(
            f'<text x="{x:.1f}" y="{baseline:.1f}" font-size="11" fill="#52606d">'
            f"{escape(text)}</text>"
        )
        baseline += 13
    baseline += 3
    for text in said:
        lines.append(f'<text x="{x:.1f}" y="{baseline:.1f}" font-size="10">{escape(text)}</text>')
        baseline += 12
    return lines


def diagram() -> str:
    """The picture of the table, as SVG. Raises KeyError for a state that has no place in it."""
    lines, boxes = _moves()
    width = 2 * _MARGIN + max(column for column, _ in _PLACES.values()) * _COLUMN + _WIDTH
    height = 2 * _MARGIN + max(row for _, row in _PLACES.values()) * _ROW + _HEIGHT
    out = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            'font-family="sans-serif" font-size="12" text-anchor="middle" fill="none">'
        ),
        "<!-- Written by docs/_generate.py; do not edit. -->",
        "<defs>",
    ]
    for head, colour in (("accepted", _INK), ("refused", _REFUSED)):
        out.append(
            f'<marker id="{head}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" '
            f'markerHeight="8" orient="auto"><path d="M0 0L10 5L0 10z" fill="{colour}"/></marker>'
        )
    out += ["</defs>", f'<rect width="{width}" height="{height}" fill="#ffffff"/>']
    ends = {(source, target) for source, target, _ in lines}
    for (source, target, refused), verbs in lines.items():
        both = (target, source) in ends
        out += _line(source, target, ", ".join(verbs), refused=refused, both=both)
    out.append(f'<g fill="{_INK}">')
    for state in State:
        out += _box(state, boxes[state])
    out += ["</g>", "</svg>", ""]
    return "\n".join(out)


# --- what the tests hold -------------------------------------------------------------------------


def _held(entry: Entry) -> str:
    tests = entry.get("tests", [])
    said = [f"`{test.removeprefix('tests/')}`" for test in tests]
    if "reason" in entry:
        said.append(entry["reason"])
    return "<br>".join(said).replace("|", "\\|")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def rfc_coverage() -> str:
    """The page of the RFCs' requirements."""
    lines = [
        _GENERATED,
        "",
        "# RFC coverage",
        "",
        (
            "What RFC 2033 and the RFCs it rests on demand of a receiver, in short words, and the "
            "test that holds it. Paths are below `tests/`."
        ),
        "",
    ]
    for heading, entries in load("rfc-coverage.toml").items():
        lines += [f"## {heading}", "", "| section | requirement | held by |", "|---|---|---|"]
        lines += [
            f"{_row(entry['section'], entry['requirement'])[:-1]}| {_held(entry)} |"
            for entry in entries
        ]
        lines.append("")
    return "\n".join(lines)


def conformance() -> str:
    """The page of the checklist."""
    tables = load("conformance.toml")
    entries = [entry for table in tables.values() for entry in table]
    tested = sum("tests" in entry for entry in entries)
    lines = [
        _GENERATED,
        "",
        "# Conformance",
        "",
        (
            f"What a receiver must do, input by input: {len(entries)} items, {tested} of them held "
            "by tests. Paths are below `tests/`."
        ),
        "",
    ]
    for heading, table in tables.items():
        lines += [f"## {heading}", "", "| no. | input | behaviour | source | held by |"]
        lines.append("|--:|---|---|---|---|")
        lines += [
            _row(str(entry["number"]), entry["input"], entry["requirement"], entry["sources"])[:-1]
            + f"| {_held(entry)} |"
            for entry in table
        ]
        lines.append("")
    return "\n".join(lines)


# --- where another server differs ----------------------------------------------------------------


def _codes(codes: list[int]) -> str:
    return " ".join(map(str, codes)) or "none"


def dovecot_differences() -> str:
    """The page of the differences from Dovecot."""
    table = load_differences()
    count = sum(len(reason["differences"]) for reason in table["reason"])
    lines = [
        _GENERATED,
        "",
        "# Differences from Dovecot",
        "",
        (
            "The dialogues of `tests/dialogs/`, told to the LMTP server of Dovecot "
            f"{table['dovecot']} and to ours: {count} turns have other reply codes, each with the "
            "reason. A turn is what the client writes at once; it is given by its number and its "
            "beginning, `⏎` stands between lines. `python -m tests.differential` compares anew, "
            "and a test fails while the two differ elsewhere or no longer here."
        ),
        "",
        (
            "Dovecot has the same users and the same message size as the server of the dialogues. "
            "Where it accepts a MAIL that ours refuses, it is sent RSET before the next turn."
        ),
        "",
    ]
    lines += _reasons(table["reason"], "##")
    lines += ["## With imported settings", "", _IMPORTED, ""]
    for name, reasons in groupby(table["imported"], key=lambda each: each["configuration"]):
        lines += [f"### `{name}.conf`", "", *_reasons(list(reasons), "####")]
    return "\n".join(lines)


_IMPORTED: Final = (
    "Our daemon with the settings that `lmtp-server config import-dovecot` makes of those of a"
    " Dovecot, and that Dovecot. The configurations are those of `tests/differential/configured`,"
    " with dialogues of their own; to the one like docker-mailserver's all dialogues are told. Only"
    " what differs there and does not stand above is here."
)


def _reasons(reasons: Sequence[Reason], heading: str) -> list[str]:
    lines = []
    above = ""
    for reason in reasons:
        if reason["section"] != above:
            above = reason["section"]
            lines += [f"{heading} {above}", ""]
        lines += [reason["why"], "", "| dialogue | turn | Dovecot | ours |", "|---|---|---|---|"]
        lines += [
            _row(one["dialog"], f"`{one['turn']}`", _codes(one["dovecot"]), _codes(one["ours"]))
            for one in reason["differences"]
        ]
        lines.append("")
    return lines


# --- the settings --------------------------------------------------------------------------------

_SETTINGS: Final = """\
# Settings

`lmtp-server` reads one TOML file, which `--config FILE` or the variable `LMTP_SERVER_CONFIG`
names. All has a default: without a file it serves `./mail`. What is wrong is told all at once, a
line for each fault with file, line, key and what is allowed; then nothing is started, and the
exit code is 78.

```text
lmtp-server: lmtp.toml:3: listener[0].tls: 'on' is not allowed; allowed is off, starttls or implicit
lmtp-server: lmtp.toml:8: trace.recieved: there is no such setting; is it received?
```

`lmtp-server config check` says the same without starting anything, and whether the certificates can
be used; `lmtp-server config show` prints what is in effect, with `--diff` what differs from the
defaults, and [`lmtp-server config import-dovecot`](#from-dovecot) makes a file of those of Dovecot.

Sizes are octets, or texts with K, M, G, T such as `"50M"`. Times are seconds, or texts such as
`"5m"`, `"1h"`. Paths may be relative to where the server is started.

## Environment

`LMTP_SERVER_` and a key in upper case sets it, over the file; a flag of `serve` wins over both.
`__` stands between the levels, items of lists count from 0: `LMTP_SERVER_QUOTA__GRACE=5%`,
`LMTP_SERVER_LISTENER__0__MODE=0600`. A list is written as in TOML, or with commas:
`LMTP_SERVER_LISTEN=127.0.0.1:24,unix:/run/lmtp`. A variable with a name that is unknown is a
fault, too; those that Kubernetes sets for a service called `lmtp-server` are left alone.

## Secrets

A setting that is a secret can be read from elsewhere: `url = { file = "/run/secrets/redis" }`, or
`url = { credential = "redis" }` for one of systemd's (`LoadCredential=`). It is one line. No
fault repeats a secret, and `config show` shows where it comes from or leaves it out. Any text in a
table `[plugin.NAME]` may be one, and is dealt with like one.
"""

_FROM_DOVECOT: Final = """\
## From Dovecot

```sh
doveconf -nP | lmtp-server config import-dovecot > lmtp.toml
lmtp-server config check --config lmtp.toml
```

It reads what `doveconf` of Dovecot 2.3 or 2.4 writes; without `-P` the path of the TLS key is
hidden, and the file is made without TLS. Each setting in the file has a comment that says where
it comes from. What was not taken over is told on standard error, with what to do. Users of
databases that are not known here, as SQL, are not refused: then all addresses are taken, and you
are told.

Where Dovecot's settings are here, or why they are not:
"""


def _cell_of(text: str) -> str:
    return text.replace("\n", " ")


def settings() -> str:
    """The page of the settings."""
    lines = [_GENERATED, "", _SETTINGS]
    for page in describe_settings():
        lines += [f"## {page.header or 'Top level'}", "", page.about, ""]
        if page.rows:
            lines += ["| key | meaning | allowed | default | Dovecot |", "|---|---|---|---|---|"]
            lines += [
                _row(
                    f"`{row.key}`",
                    _cell_of(row.meaning),
                    _cell_of(row.allowed),
                    _cell_of(row.default),
                    ", ".join(f"`{name}`" for name in row.dovecot),
                )
                for row in page.rows
            ]
            lines.append("")
    lines += [_FROM_DOVECOT, "| Dovecot | here |", "|---|---|"]
    lines += [_row(f"`{name}`", text) for name, text in describe_dovecot()]
    lines.append("")
    return "\n".join(lines)


# --- the metrics ---------------------------------------------------------------------------------

_METRICS: Final = """\
# Metrics

The workers count in memory that they share: a page has the numbers of all of them together. A
counter never goes back while the service runs, whatever becomes of its workers: not at a reload,
not when a worker is killed. Gauges are of the workers that live.

```toml
base_dir = "/run/lmtp"

[metrics]
listen = ["127.0.0.1:9424"]
```

A process of its own answers, with the rights of the workers at most; nobody who asks holds up the
service. If it ends, another is started. It takes the extra `metrics`
(`pip install 'lmtp-proto[metrics]'`).

`/metrics`
: What is counted, as OpenMetrics or, where that is not asked for, Prometheus's text format.

`/healthz`
: 200 while the service works; 503 with the reason on a line when it stops, when no worker serves,
  when one of them has given no sign of life for ten seconds, when the supervisor does not look
  after them, or when the file of a UNIX listener is gone.

There is no TLS and no password: listen on a loopback address or a UNIX socket, or put a proxy in
front. A request has to come within ten seconds and 8 KiB; of more than 64 connections the oldest is
closed.

## Prometheus

```yaml
scrape_configs:
  - job_name: lmtp
    static_configs:
      - targets: ["127.0.0.1:9424"]
```

## Commands

`lmtp-server ping [--to ADDRESS] [--timeout SECONDS]`
: Greeting, LHLO, NOOP and QUIT with a server, as a client has them; by default with the first
  listener of the settings that wants no PROXY header. For health checks from outside: 0 it works,
  69 what answers is no LMTP server or refuses, 75 no answer in time.

`lmtp-server who [--json]`
: The sessions now: peer, TLS, the last command (`content` from DATA to the replies), seconds, the
  recipients of the message, the worker's process id, and the session's id as logs and replies have
  it. Workers answer within a second or so; those that do not in three are named.

`lmtp-server stats [--json] [--watch [SECONDS]]`
: The metrics as a table, with the rate of each counter: since the start, with `--watch` since the
  last time. Histograms are shown as count and mean.

`who` and `stats` ask the control socket `BASE_DIR/control`, or `metrics.control`, of mode 0600;
they say 69 when the server is not running and 77 to others than its owner. Neither needs the extra
`metrics`. With the extra `cli`, tables at a terminal are drawn by rich.

## What is counted

Counters have `_total` behind their names, histograms `_bucket`, `_sum` and `_count`. Those of the
store count where the workers write the mail themselves, not where [users' agents](security.md) do.
Connections that never become sessions, for there are too many or TLS fails, are not among these.
"""


def _metric(metric: Metric) -> str:
    labels = []
    for name, values in metric.labels.items():
        few = 0 < len(values) <= 16
        labels.append(f"`{name}`: {', '.join(values)}" if few else f"`{name}`")
    return _row(f"`{metric.name}`", metric.kind, metric.unit, "; ".join(labels), metric.about)


def metrics() -> str:
    """The page of the metrics."""
    lines = [_GENERATED, "", _METRICS]
    lines += ["| name | type | unit | labels | meaning |", "|---|---|---|---|---|"]
    lines += map(_metric, METRICS)
    lines.append("")
    return "\n".join(lines)


# --- man pages and completion ---------------------------------------------------------------------


def _version() -> str:
    text = (_DOCS.parent / "pyproject.toml").read_text(encoding="utf-8")
    return cast(str, tomllib.loads(text)["project"]["version"])


def server_man_page() -> str:
    """lmtp-server(8)."""
    return man_page(
        (_DOCS / "lmtp-server.md").read_text(encoding="utf-8"),
        name="lmtp-server",
        section=8,
        purpose="LMTP server that stores mail in Maildirs",
        version=_version(),
    )


def settings_man_page() -> str:
    """lmtp-server.toml(5)."""
    return man_page(
        settings(),
        name="lmtp-server.toml",
        section=5,
        purpose="settings of lmtp-server",
        version=_version(),
    )


def write_completion(shell: str, path: Path) -> None:
    """Write into `path` what `shell` needs. Raises subprocess.CalledProcessError without shtab."""
    command = [sys.executable, "-m", "lmtp_server", "completion", shell]
    folders = {"PYTHONPATH": os.pathsep.join(sys.path[:2])}
    made = subprocess.run(command, env=os.environ | folders, stdout=subprocess.PIPE, check=True)
    path.write_bytes(made.stdout)


PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "state-machine.md": state_machine,
    "state-machine.svg": diagram,
    "rfc-coverage.md": rfc_coverage,
    "conformance.md": conformance,
    "dovecot-differences.md": dovecot_differences,
    "settings.md": settings,
    "metrics.md": metrics,
    "../packaging/man/lmtp-server.8": server_man_page,
    "../packaging/man/lmtp-server.toml.5": settings_man_page,
}
"""The files that are written, and what is written into them."""


def main() -> None:
    """Write every page and script."""
    for name, page in PAGES.items():
        (_DOCS / name).write_text(page(), encoding="utf-8")
    for shell in ("bash", "zsh", "fish"):
        write_completion(shell, _DOCS.parent / "packaging" / "completions" / f"lmtp-server.{shell}")


if __name__ == "__main__":
    main()
