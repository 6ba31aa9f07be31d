"""`python -m tests.compiled`: the tests of protocol and store, compiled, and of adapters on them.

They run in a copy beside the packages of the wheel: what is imported is what the wheel has.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.compiled import PLACE, build

_ROOT: Final = Path(__file__).parents[1]
# The adapters are not compiled: of their tests those that go everywhere with them.
_TESTS: Final = (
    "tests/protocol",
    "tests/mailstore",
    *(f"tests/faults/test_{name}.py" for name in ("store_calls", "crash_model")),
    *(f"tests/adapters/test_{name}.py" for name in ("client", "dialogs", "jobs", "sessions")),
)
_CHECK: Final = (
    "import lmtp_proto._server as p, mailstore._batch as s;"
    "assert not (p.__file__ + s.__file__).endswith('.py'), (p.__file__, s.__file__)"
)


def main(arguments: list[str]) -> int:
    """Build and test; `arguments` are pytest's, by default _TESTS."""
    build()
    for name in ("tests", "benchmarks", "docs"):
        ignored = shutil.ignore_patterns("__pycache__", "_build")
        shutil.copytree(_ROOT / name, PLACE / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(_ROOT / name, PLACE)
    # The installed package of the virtual environment leads back to the sources: this comes first.
    environment = os.environ | {"PYTHONPATH": str(PLACE)}
    subprocess.run([sys.executable, "-c", _CHECK], cwd=PLACE, env=environment, check=True)
    command = [sys.executable, "-m", "pytest", *(arguments or ["-q", *_TESTS])]
    return subprocess.run(command, cwd=PLACE, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
