"""Each package shows its public names at its root, typed, and nothing else."""

import ast
import importlib
import types

import pytest

from tests.packaging._project import PACKAGES, ROOT, sources


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_marked_as_typed(package: str) -> None:
    assert (PACKAGES[package] / "py.typed").read_bytes() == b""


def test_adapters_is_a_folder_of_known_packages_and_no_package_itself() -> None:
    folder = ROOT / "adapters"
    assert not list(folder.glob("*.py"))
    assert {path.parent for path in folder.glob("*/__init__.py")} <= set(PACKAGES.values())


@pytest.mark.parametrize("package", PACKAGES)
def test_all_lists_the_public_names(package: str) -> None:
    module = importlib.import_module(package)
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    listed = module.__all__
    assert len(listed) == len(set(listed))
    assert {name for name in listed if not hasattr(module, name)} == set()
    assert set(listed) - {"__version__"} == public


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_below_the_root_are_private(package: str) -> None:
    folder = PACKAGES[package]
    names = {part for file in sources(package) for part in file.relative_to(folder).parts}
    # What plugins import, which the server's own root would load for everybody.
    public = {"plugins.py"} if package == "lmtp_server" else set()
    assert {name for name in names if not name.startswith("_")} == public


@pytest.mark.parametrize("package", PACKAGES)
def test_each_module_opens_with_its_purpose(package: str) -> None:
    files = sources(package)
    assert files
    silent = [
        str(file.relative_to(ROOT))
        for file in files
        if not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"), file))
    ]
    assert not silent
