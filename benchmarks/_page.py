"""The part of docs/benchmarks.md that a command writes: all between two comment lines.

The invariant: what stands outside the two lines stays as it was.
"""

import argparse
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


class Section:
    """The section of `page` that `python -m benchmarks COMMAND` writes."""

    def __init__(self, page: Path, command: str) -> None:
        self._page = page
        self._begin = f"<!-- {command}: written by `python -m benchmarks {command}` from here -->"
        self._end = f"<!-- {command}: to here -->"

    def missing(self) -> str | None:
        """Return what the page lacks to take a report; None when it lacks nothing."""
        if self._place() is not None:
            return None
        return f"{self._page}: no line {self._begin!r} with {self._end!r} behind it"

    def write(self, report: str) -> None:
        """Put `report` in place of what is there, if there is a place."""
        place = self._place()
        if place is not None:
            before, after = place
            self._page.write_text(f"{before}\n{report.strip()}\n\n{after}", encoding="utf-8")

    def _place(self) -> tuple[str, str] | None:
        """Return what stands up to the line that begins the section, and from the one that ends it;
        None where there are no such lines."""
        text = self._page.read_text(encoding="utf-8")
        before, begin, rest = text.partition(f"{self._begin}\n")
        _, end, after = rest.partition(f"{self._end}\n")
        return (before + begin, end + after) if end else None


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add the option --page."""
    parser.add_argument(
        "--page",
        type=Path,
        metavar="FILE",
        help="the page whose section is written anew (docs/benchmarks.md; without --page none when "
        "only some cells are measured, or --quick)",
    )


def section(page: Path | None, command: str, *, whole: bool) -> Section | None:
    """Return the section to write: of `page`, or of the project's own page after a `whole` run."""
    if page is None and whole:
        page = PAGE
    return None if page is None else Section(page, command)
