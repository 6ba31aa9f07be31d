"""The built files hold what is shipped and no more, and say of themselves what is true."""

import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.version import Version

from tests.packaging._project import PACKAGES, ROOT, settings

pytestmark = pytest.mark.timeout(180)

EXTRAS = {
    "auth",
    "bench",
    "cli",
    "docs",
    "fuzz",
    "mutation",
    "gevent",
    "ldap",
    "lint",
    "metrics",
    "otel",
    "plugins",
    "redis",
    "server",
    "sql",
    "test",
    "uvloop",
}


class Built(NamedTuple):
    """File names in the wheel and in the sdist (below its top folder), and the wheel's texts."""

    wheel: set[str]
    sdist: set[str]
    metadata: Message
    entry_points: str


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build the sdist, and the wheel from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    build = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT],
        check=False,
        capture_output=True,
        text=True,
    )
    assert build.returncode == 0, build.stdout + build.stderr
    (wheel_path,) = folder.glob("*.whl")
    (sdist_path,) = folder.glob("*.tar.gz")
    with zipfile.ZipFile(wheel_path) as wheel, tarfile.open(sdist_path) as sdist:
        names = wheel.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        (entry_points,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
        return Built(
            wheel=set(names),
            sdist={name.partition("/")[2] for name in sdist.getnames()},
            metadata=message_from_bytes(wheel.read(metadata)),
            entry_points=wheel.read(entry_points).decode(),
        )


def _files(folder: Path) -> set[Path]:
    """Files below a folder, without what running them leaves behind, relative to it."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path for path in found if "__pycache__" not in path.parts}


def test_wheel_holds_the_packages_and_what_man_and_shells_read(built: Built) -> None:
    expected = {
        f"{package}/{file.as_posix()}"
        for package, folder in PACKAGES.items()
        for file in _files(folder)
    }
    # Where an installation puts them: below its sys.prefix.
    share = f"lmtp_proto-{settings()['project']['version']}.data/data/share"
    expected |= {
        f"{share}/{path}"
        for path in (
            "man/man8/lmtp-server.8",
            "man/man5/lmtp-server.toml.5",
            "bash-completion/completions/lmtp-server",
            "zsh/site-functions/_lmtp-server",
            "fish/vendor_completions.d/lmtp-server.fish",
        )
    }
    assert {name for name in built.wheel if ".dist-info/" not in name} == expected


def test_sdist_holds_what_builds_tests_and_documents_the_release(built: Built) -> None:
    expected = {
        ".ci/run",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "Makefile",
        "README.md",
        "SECURITY.md",
        "benchmarks/__main__.py",
        "docs/conf.py",
        "pyproject.toml",
        "tests/conftest.py",
        "tests/packaging/test_distribution.py",
    } | {
        f"{folder.relative_to(ROOT).as_posix()}/{file.as_posix()}"
        for folder in PACKAGES.values()
        for file in _files(folder)
    }
    assert expected - built.sdist == set()
    strays = re.compile(r"(^|/)(__pycache__|\.venv|\.git|_build|\.\w+_cache|dist)(/|$)")
    assert {name for name in built.sdist if strays.search(name)} == set()


def test_metadata_says_what_the_settings_say(built: Built) -> None:
    project = settings()["project"]
    metadata = built.metadata
    assert metadata["Name"] == "lmtp-proto"
    assert metadata["Version"] == project["version"]
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert set(metadata.get_all("Provides-Extra", [])) == EXTRAS


def test_plain_install_needs_no_other_distribution(built: Built) -> None:
    required = built.metadata.get_all("Requires-Dist", [])
    assert [line for line in required if "extra ==" not in line] == []


def test_command_is_installed(built: Built) -> None:
    assert "lmtp-server = lmtp_server.__main__:main" in built.entry_points.splitlines()


def test_changelog_knows_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[([^\]]+)\]", text, re.MULTILINE)
    version = Version(settings()["project"]["version"])
    assert headings[0] == "Unreleased"
    released = [Version(heading) for heading in headings[1:]]
    assert released == sorted(set(released), reverse=True)
    # Between releases the version in the settings is the one to come.
    assert all(version >= known for known in released)
