"""`python -m benchmarks.compiled`: the compiled wheel, unpacked in build/compiled.

The servers named `...-compiled` are measured with what is there, and tests run on it.
"""

import filecmp
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[1]
_PACKAGE: Final = "lmtp_proto"
PLACE: Final = _ROOT / "build" / "compiled"
"""Where the packages are."""


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


def missing() -> str | None:
    """Why what PLACE has cannot be measured; None when it can."""
    if not (PLACE / _PACKAGE).is_dir():
        return "not compiled: make compile"
    for folder in (_ROOT / _PACKAGE, _ROOT / "mailstore", *_ROOT.glob("adapters/lmtp_*")):
        names = [file.name for file in folder.glob("*.py")]
        _, changed, absent = filecmp.cmpfiles(folder, PLACE / folder.name, names, shallow=False)
        if changed or absent:
            return "compiled from other sources: make compile"
    return None


if __name__ == "__main__":
    build()
