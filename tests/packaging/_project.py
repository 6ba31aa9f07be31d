"""The project as its files say it: folders of the packages, settings, imports.

Everything here is read from source text, so that a package need not import to be judged.
"""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]

PACKAGES: Final = {
    "lmtp_proto": ROOT / "lmtp_proto",
    "lmtp_sockets": ROOT / "adapters" / "lmtp_sockets",
    "lmtp_transport": ROOT / "adapters" / "lmtp_transport",
    "lmtp_asyncio": ROOT / "adapters" / "lmtp_asyncio",
    "lmtp_gevent": ROOT / "adapters" / "lmtp_gevent",
    "lmtp_blocking": ROOT / "adapters" / "lmtp_blocking",
    "mailstore": ROOT / "mailstore",
    "lmtp_server": ROOT / "lmtp_server",
}

# Packages that work with nothing but the standard library.
STDLIB_ONLY: Final = (
    "lmtp_proto",
    "lmtp_sockets",
    "lmtp_transport",
    "lmtp_asyncio",
    "lmtp_blocking",
    "mailstore",
)


class Import(NamedTuple):
    """One import statement: where it stands and the absolute name of the module it names."""

    file: Path
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.module}"


def settings() -> dict[str, Any]:
    """Parse pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def sources(package: str) -> list[Path]:
    """List the Python files of a package, at any depth."""
    return sorted(PACKAGES[package].rglob("*.py"))


def imports(package: str) -> Iterator[Import]:
    """Yield every import in a package, at module level or deeper, for types or for running."""
    folder = PACKAGES[package]
    for file in sources(package):
        parents = (package, *file.relative_to(folder).parent.parts)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), file)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(file, node.lineno, alias.name)
            elif isinstance(node, ast.ImportFrom):
                base = parents[: len(parents) - node.level + 1] if node.level else ()
                name = ".".join((*base, *([node.module] if node.module else [])))
                yield Import(file, node.lineno, name)
