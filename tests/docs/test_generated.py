"""The pages made from the code and from the tests are what would be made now, and are true.

`python docs/_generate.py` brings a page that is stale up to date.
"""

import ast
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

_ROOT: Final = Path(__file__).parents[2]


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_generate", _ROOT / "docs/_generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_GENERATE: Final = _generator()
_COVERAGE: Final = ("rfc-coverage.toml", "conformance.toml")


@pytest.mark.parametrize("name", _GENERATE.PAGES)
def test_page_is_up_to_date(name: str) -> None:
    written = (_ROOT / "docs" / name).read_text(encoding="utf-8")
    assert written == _GENERATE.PAGES[name](), "run: python docs/_generate.py"


def test_the_picture_has_every_state_and_move() -> None:
    picture = _GENERATE.diagram()
    for state in _GENERATE.State:
        assert f">{state.name}</text>" in picture
    for verb in _GENERATE.Verb:
        assert verb.value in picture


def _tests(file: Path) -> set[str]:
    """Node ids of the tests in `file`, without its path and without parameters."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    found = _functions(body)
    for node in body:
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{name}" for name in _functions(node.body)}
    return found


def _functions(body: list[ast.stmt]) -> set[str]:
    return {
        node.name
        for node in body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    }


def _exists(test: str) -> bool:
    path, _, node = test.partition("::")
    file = _ROOT / path
    if not file.is_file():
        return False
    return node in _tests(file) if file.suffix == ".py" else not node


@pytest.mark.parametrize("name", _COVERAGE)
def test_every_test_that_is_named_exists(name: str) -> None:
    named = {
        test
        for entries in _GENERATE.load(name).values()
        for entry in entries
        for test in entry.get("tests", [])
    }
    assert named
    assert [test for test in sorted(named) if not _exists(test)] == []


@pytest.mark.parametrize("name", _COVERAGE)
def test_every_requirement_has_a_test_or_a_reason(name: str) -> None:
    bare = [
        entry["requirement"]
        for entries in _GENERATE.load(name).values()
        for entry in entries
        if not entry.get("tests") and not entry.get("reason", "").strip()
    ]
    assert bare == []


def test_the_checklist_is_complete() -> None:
    tables = _GENERATE.load("conformance.toml").values()
    assert [entry["number"] for table in tables for entry in table] == list(range(1, 176))


def test_every_difference_from_dovecot_has_a_reason() -> None:
    reasons = _GENERATE.load_differences()["reason"]
    assert reasons
    for reason in reasons:
        assert set(reason) == {"section", "why", "differences"}
        assert reason["section"].strip()
        assert reason["why"].endswith(".")
        assert reason["differences"]
        for difference in reason["differences"]:
            assert set(difference) == {"dialog", "turn", "dovecot", "ours"}
            assert (_ROOT / f"tests/dialogs/{difference['dialog']}.lmtp").is_file()


@pytest.mark.parametrize(
    ("test", "exists"),
    [
        ("tests/dialogs/simple.lmtp", True),
        ("tests/dialogs/none.lmtp", False),
        ("tests/dialogs/simple.lmtp::test_x", False),
        ("tests/docs/test_generated.py", False),
        ("tests/docs/test_generated.py::test_page_is_up_to_date", True),
        ("tests/docs/test_generated.py::test_none", False),
        ("tests/docs/test_generated.py::_exists", False),
        ("tests/protocol/test_server.py::TestTls::test_not_in_a_transaction", True),
        ("tests/protocol/test_server.py::test_not_in_a_transaction", False),
        ("tests/docs/none.py::test_page_is_up_to_date", False),
    ],
)
def test_a_name_of_no_test_is_noticed(test: str, exists: bool) -> None:
    assert _exists(test) is exists
