"""`python -m tests.compiled`: the tests of protocol and adapters, with the protocol compiled.

It builds the wheel that hatch_build.py compiles, unpacks it into build/compiled beside a copy of
the tests, and runs them there: what is imported is what the wheel has.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[1]
PLACE: Final = _ROOT / "build" / "compiled"
"""Where the unpacked wheel is."""
_TESTS: Final = ("tests/protocol", "tests/adapters")
_CHECK: Final = "import lmtp_proto._server as s; assert not s.__file__.endswith('.py'), s.__file__"


def build() -> None:
    """Compile, and unpack the wheel into PLACE."""
    wheels = _ROOT / "build" / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", wheels, _ROOT],
        env=os.environ | {"HATCH_BUILD_HOOK_ENABLE_CUSTOM": "1"},
        check=True,
    )
    (wheel,) = wheels.glob("*.whl")
    shutil.rmtree(PLACE, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(PLACE)


def main(arguments: list[str]) -> int:
    """Build and test; `arguments` are pytest's, by default all tests that are to pass."""
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
