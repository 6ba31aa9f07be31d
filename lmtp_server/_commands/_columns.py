"""Tables on standard output: with rich, where it is installed and there is a terminal, else plain.

The invariant: nothing that a cell holds is obeyed by the terminal.
"""

import sys
from collections.abc import Sequence


def printable(text: str) -> str:
    """`text` with nothing that a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)


def show_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()
) -> None:
    """Write a table; the columns `right` are aligned there."""
    cells = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty() and _show_richly(header, cells, right):
        return
    lines = [list(header), *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        text = "  ".join(
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(header, line, widths, strict=True)
        )
        sys.stdout.write(f"{text.rstrip()}\n")
    sys.stdout.flush()


def _show_richly(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]
) -> bool:
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False
    table = Table(box=None, pad_edge=False)
    for name in header:
        table.add_column(name, justify="right" if name in right else "left")
    for row in rows:
        # Text, or brackets would be taken for markup.
        table.add_row(*map(Text, row))
    Console().print(table)
    return True
