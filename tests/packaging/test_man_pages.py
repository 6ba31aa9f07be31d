"""The man pages: roff without fault, and all that the commands and the settings know is in them."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

from tests.packaging._project import ROOT

_PAGES: Final = {
    "lmtp-server": ROOT / "packaging" / "man" / "lmtp-server.8",
    "lmtp-server.toml": ROOT / "packaging" / "man" / "lmtp-server.toml.5",
}
_COMMANDS: Final = (
    *("serve", "send", "deliver", "user", "quota", "ping", "who", "stats", "completion"),
    *("config", "config check", "config show", "config import-dovecot"),
)


def _said(*command: str | Path, **environment: str) -> str:
    """What a command prints, where it prints nothing on standard error."""
    result = subprocess.run(
        command,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def _server(*arguments: str) -> str:
    return _said(sys.executable, "-m", "lmtp_server", *arguments)


def _shown(name: str) -> str:
    """A page as a wide terminal shows it."""
    options = ("-k", "-man", "-Tutf8", "-P-c", "-P-b", "-P-u", "-ww", "-rLL=500n")
    try:
        return _said("groff", *options, _PAGES[name])
    except FileNotFoundError:
        pytest.skip("groff is not installed")


@pytest.mark.interop
@pytest.mark.parametrize("name", _PAGES)
def test_man_finds_no_fault(name: str, tmp_path: Path) -> None:
    page = _PAGES[name]
    place = tmp_path / f"man{page.suffix[1:]}"
    place.mkdir()
    (place / page.name).symlink_to(page)
    try:
        shown = _said(*("man", "--warnings", "-M", tmp_path, name), LC_ALL="C.UTF-8", MANWIDTH="80")
    except FileNotFoundError:
        pytest.skip("man is not installed")
    assert shown.startswith(f"{name.upper()}({page.suffix[1:]})")


@pytest.mark.interop
def test_every_option_of_every_command_is_there() -> None:
    words = set(re.findall(r"[\w.-]+", _shown("lmtp-server")))
    for command in _COMMANDS:
        helped = _server(*command.split(), "--help")
        listed = " ".join(re.findall(r"^  (-.*?)(?:  |$)", helped, re.MULTILINE))
        options = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", listed)) - {"-h", "--help"}
        assert options <= words, command
        assert set(command.split()) <= words


def _keys(table: dict[str, object]) -> set[str]:
    found = set(table)
    for value in table.values():
        for nested in value if isinstance(value, list) else [value]:
            if isinstance(nested, dict):
                found |= _keys(nested)
    return found


@pytest.mark.interop
def test_every_setting_is_there() -> None:
    # Keys are indented, the tables that they are in are headings.
    listed = re.findall(r"^(?: {5,8}|\[+)([a-z0-9_]+)", _shown("lmtp-server.toml"), re.MULTILINE)
    settings = _keys(tomllib.loads(_server("config", "show")))
    assert len(settings) > 60
    assert settings <= set(listed)
