"""The scripts by which shells complete the commands: those of today's command line.

What makes them may word them anew, so it is the words of the command line that are compared.
"""

import re
import subprocess
import sys
from typing import Final

import pytest

from tests.packaging._project import ROOT

# An option, or a command: of the things that may follow one, or with its description.
_WORDS: Final = re.compile(
    r"(?<![\w-])--?[a-z][a-z-]*"
    r"|\b(?:serve|send|deliver|user|quota|get|recalc|ping|who|stats|config|check|show"
    r"|import-dovecot|completion|bash|zsh|fish)\b"
)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_up_to_date(shell: str) -> None:
    command = [sys.executable, "-m", "lmtp_server", "completion", shell]
    made = subprocess.run(command, capture_output=True, text=True, timeout=25, check=True).stdout
    kept = (ROOT / "packaging" / "completions" / f"lmtp-server.{shell}").read_text()
    assert len(set(_WORDS.findall(made))) > 40
    assert set(_WORDS.findall(kept)) == set(_WORDS.findall(made)), "run: python docs/_generate.py"
