"""`lmtp-server completion`, in the shells that it is for."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.server._program import run


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["lmtp-server", "con"], {"config"}),
        (["lmtp-server", "quota", ""], {"get", "recalc"}),
        (["lmtp-server", "config", "imp"], {"import-dovecot"}),
        (["lmtp-server", "serve", "--run"], {"--runtime"}),
        (["lmtp-server", "completion", "z"], {"zsh"}),
    ],
)
def test_bash_completes(tmp_path: Path, words: list[str], completed: set[str]) -> None:
    made = run("completion", "bash", cwd=tmp_path)
    assert (made.returncode, made.stderr) == (0, b"")
    # As bash does when TAB is pressed behind the last word.
    asks = rf"""
source /dev/stdin
COMP_WORDS=({" ".join(map(repr, words))}) COMP_CWORD={len(words) - 1}
read -ra spec <<<"$(complete -p lmtp-server)"
for word in "${{spec[@]}}"; do
    [ "$previous" = -F ] && function=$word
    previous=$word
done
"$function"
printf "%s\n" "${{COMPREPLY[@]}}"
"""
    (tmp_path / "asks").write_text(asks)
    said = subprocess.run(
        ["bash", "--norc", "asks"], cwd=tmp_path, input=made.stdout, capture_output=True, check=True
    )
    assert {line.strip() for line in said.stdout.decode().splitlines()} == completed


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_can_read_it(tmp_path: Path, shell: str) -> None:
    made = run("completion", shell, cwd=tmp_path)
    assert b"import-dovecot" in made.stdout
    program = shutil.which(shell)
    if program is None:
        return
    done = subprocess.run([program, "-n"], input=made.stdout, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_shell_that_is_none(tmp_path: Path) -> None:
    assert run("completion", "cmd", cwd=tmp_path).returncode == 78
