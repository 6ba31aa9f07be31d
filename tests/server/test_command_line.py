"""Help, version and what they load; usage errors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server._program import run

HEAVY = {"asyncio", "gevent", "pydantic", "uvloop", "logging", "mailstore", "lmtp_proto"}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["serve", "--help"], ["send", "--help"], ["config", "check", "--help"]],
)
def test_help_loads_nothing_heavy(arguments: list[str], folder: Path) -> None:
    program = (
        "import json, sys; from lmtp_server.__main__ import main; "
        f"status = main({arguments!r}); "
        "json.dump([status, sorted(sys.modules)], sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    status, modules = json.loads(done.stderr)
    assert status == 0
    assert done.stdout.startswith("usage: lmtp-server ")
    assert "lmtp_server.__main__" in modules
    assert not HEAVY.intersection(modules)


def test_version(folder: Path) -> None:
    done = run("--version", cwd=folder)
    assert done.returncode == 0
    names = [line.split()[0] for line in done.stdout.decode().splitlines()]
    assert names[:2] == ["lmtp-server", "Python"]
    assert {"uvloop", "gevent", "pydantic"} <= set(names)
    assert not done.stderr


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ([], "COMMAND"),
        (["sever"], "'sever'"),
        (["--sever"], "COMMAND"),
        (["serve", "--listen"], "--listen"),
        (["serve", "--work", "2"], "'--work'"),
        (["serve", "file"], "'file'"),
        (["config"], "ACTION"),
        (["config", "chekc"], "'chekc'"),
        (["config", "check", "--nonsense"], "'--nonsense'"),
        (["send"], "--to, --from, --rcpt, FILE"),
        (["send", "--to", "127.0.0.1:24", "--from", "a@b", "FILE"], "--rcpt"),
    ],
)
def test_usage_errors(arguments: list[str], fault: str, folder: Path) -> None:
    done = run(*arguments, cwd=folder)
    assert done.returncode == os.EX_CONFIG
    assert not done.stdout
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith("lmtp-server: ")
    assert fault in lines[0]
    assert not list(folder.iterdir())


@pytest.mark.parametrize("arguments", [["serve"], ["config", "check"]])
def test_without_pydantic_it_says_what_to_install(arguments: list[str], folder: Path) -> None:
    program = (
        "import sys; sys.modules['pydantic'] = None; "
        f"from lmtp_server.__main__ import main; sys.exit(main({arguments!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, check=False, text=True
    )
    assert done.returncode == os.EX_CONFIG
    assert done.stderr == (
        "lmtp-server: pydantic is not installed: pip install 'lmtp-proto[server]'\n"
    )
    assert not list(folder.iterdir())


@pytest.mark.parametrize("flag", ["-c", "--config"])
@pytest.mark.parametrize(
    "command",
    [
        ["serve"],
        ["deliver", "-d", "anne"],
        ["user", "anne"],
        ["quota", "get", "anne"],
        ["ping"],
        ["who"],
        ["stats"],
        ["config", "check"],
        ["config", "show"],
    ],
)
def test_every_command_that_reads_settings_takes_the_file_alike(
    command: list[str], flag: str, folder: Path
) -> None:
    (folder / "s.toml").write_text("wrokers = 2\n")
    done = run(*command, flag, "s.toml", cwd=folder)
    assert done.returncode
    assert b"s.toml:1: wrokers: there is no such setting" in done.stderr
