"""File systems for one test."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_file_system(folder: Path, options: str) -> Iterator[Path]:
    """A tmpfs; where none can be mounted, the test is skipped."""
    with _mounted(folder, ["-t", "tmpfs", "-o", options, "tmpfs"]) as root:
        yield root


@contextmanager
def xfs(folder: Path, megabytes: int) -> Iterator[Path]:
    """An XFS, in which files may share blocks; where none can be mounted, the test is skipped."""
    image = folder / "image"
    with image.open("xb") as file:
        file.truncate(megabytes << 20)
    _run(["mkfs.xfs", "-q", "-m", "reflink=1", str(image)])
    with _mounted(folder, ["-t", "xfs", "-o", "loop", str(image)]) as root:
        yield root


@contextmanager
def _mounted(folder: Path, options: list[str]) -> Iterator[Path]:
    root = folder / "mounted"
    root.mkdir()
    _run(["mount", *options, str(root)])
    try:
        yield root
    finally:
        subprocess.run(["umount", str(root)], check=True)


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        pytest.skip(f"no such file system can be made and mounted here: {reason}")
