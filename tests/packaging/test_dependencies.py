"""Dependencies point one way, and the protocol does no I/O."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.packaging._project import PACKAGES, ROOT, STDLIB_ONLY, Import, imports

_TRANSPORT: Final = frozenset({"lmtp_proto", "lmtp_sockets"})
_ADAPTER: Final = _TRANSPORT | {"lmtp_transport"}

MAY_IMPORT: Final[dict[str, frozenset[str]]] = {
    "lmtp_proto": frozenset(),
    "lmtp_sockets": frozenset(),
    "lmtp_transport": _TRANSPORT,
    "lmtp_asyncio": _ADAPTER,
    "lmtp_gevent": _ADAPTER,
    "lmtp_blocking": _ADAPTER,
    "mailstore": frozenset({"lmtp_proto"}),
    "lmtp_server": frozenset(PACKAGES),
}

THIRD_PARTY: Final[dict[str, frozenset[str]]] = {
    "lmtp_gevent": frozenset({"gevent"}),
    # Imported by those who use it.
    "mailstore": frozenset({"redis"}),
    "lmtp_server": frozenset(
        {
            *("gevent", "pluggy", "prometheus_client", "pydantic", "pydantic_core", "rich"),
            *("opentelemetry", "shtab", "uvloop"),
        }
    ),
}

# What the protocol may use of the standard library: modules that compute, and nothing that reads,
# writes, waits or tells the time. secrets is there to name sessions and transactions.
PURE: Final = frozenset(
    {
        "__future__",
        "abc",
        "base64",
        "binascii",
        "collections",
        "collections.abc",
        "contextlib",
        "copy",
        "dataclasses",
        # The types of dates in parameters; its clock is not read.
        "datetime",
        "enum",
        "errno",
        "functools",
        # Its decoder of line ends, which computes.
        "io",
        "ipaddress",
        "itertools",
        "math",
        "operator",
        "re",
        "secrets",
        "string",
        "types",
        "typing",
        "unicodedata",
    }
)

# Loading one of these would mean that the protocol can do I/O after all.
IMPURE: Final = frozenset(
    {
        "_socket",
        "_ssl",
        "asyncio",
        "concurrent",
        "logging",
        "select",
        "selectors",
        "socket",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
    }
)


def _forbidden(package: str) -> list[Import]:
    """List the imports of a package that its place in the house forbids."""
    allowed = {package} | MAY_IMPORT[package] | THIRD_PARTY.get(package, frozenset())
    return [
        found
        for found in imports(package)
        if (top := found.module.partition(".")[0]) not in allowed
        and top not in sys.stdlib_module_names
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_package_imports_only_what_its_place_allows(package: str) -> None:
    assert not [str(found) for found in _forbidden(package)]


def test_protocol_imports_only_pure_modules() -> None:
    impure = [
        str(found)
        for found in imports("lmtp_proto")
        if found.module not in PURE and found.module.partition(".")[0] != "lmtp_proto"
    ]
    assert not impure


def _fresh_interpreter(program: str, *folders: Path) -> str:
    """Run a program with the standard library and the named folders only; return its output."""
    start = f"import sys; sys.path[:0] = {[str(folder) for folder in folders]!r}\n"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-W", "error", "-c", start + program],
        capture_output=True,
        check=True,
        text=True,
    ).stdout


def test_protocol_loads_no_module_that_does_io() -> None:
    program = "import json, lmtp_proto; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(_fresh_interpreter(program, ROOT))
    assert "lmtp_proto" in loaded
    assert not IMPURE.intersection(loaded)


@pytest.mark.parametrize("package", STDLIB_ONLY)
def test_package_needs_only_the_standard_library(package: str) -> None:
    output = _fresh_interpreter(
        f"import {package}; print({package}.__file__)", ROOT, ROOT / "adapters"
    )
    assert Path(output.strip()) == PACKAGES[package] / "__init__.py"
