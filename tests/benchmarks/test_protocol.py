"""The benchmark of the protocol alone runs to its end and leaves its results."""

import json
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def test_every_scenario_and_split_is_measured(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "protocol", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"protocol.json", "protocol.md"}
    results = json.loads((tmp_path / "protocol.json").read_text())
    assert results["facts"]["cores"] > 0
    assert len(results["yardstick_us"]) == 1
    measured = {(cost["role"], cost["scenario"]): cost for cost in results["measurements"]}
    for role in ("server", "client"):
        assert measured[role, "1 KB"]["transactions"] == 2
        # The envelope and its content: MAIL, RCPT and DATA are events of a server, their replies
        # those of a client.
        assert measured[role, "1 KB"]["events"] >= 2 * 4
        many = measured[role, "1 KB, 50 recipients"]
        assert many["events"] >= measured[role, "1 KB"]["events"] + 2 * 49
        for how in ("DATA", "DATA, some dots", "DATA, all dots", "BDAT"):
            assert measured[role, f"0.1 MB, {how}"]["octets"] >= 2 * 99_000
    assert {(split["role"], split["split"]) for split in results["splits"]} >= {
        ("server", "commands, one octet at a time"),
        ("server", "short lines of content in one read"),
        ("server", "one line of a command"),
        ("client", "a long reply, one octet at a time"),
    }
    table = (tmp_path / "protocol.md").read_text()
    assert done.stdout == table + "\n"
    for role, name in measured:
        assert f"| {role} | {name} | " in table
    for split in results["splits"]:
        assert f"| {split['role']} | {split['split']} | " in table
