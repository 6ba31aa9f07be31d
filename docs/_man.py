"""Markdown of this folder as a man page.

The invariant: what the pages hold is all in the man page, or it is an error: Markdown that is not
known here is refused. Tables become lists of their first column, for a terminal is narrow.
"""

import re
from collections.abc import Iterator
from typing import Final

_INLINE: Final = re.compile(
    r"``\s?(?P<long>.+?)\s?``|`(?P<code>[^`]+)`|\*\*(?P<strong>.+?)\*\*"
    r"|\[(?P<text>(?:`[^`]*`|[^\]`])*)\]\([^)]*\)|\\(?P<escaped>\W)",
    re.DOTALL,
)
_FENCE: Final = re.compile(r"```\w*\n(.*?)\n```$", re.DOTALL)


def man_page(markdown: str, *, name: str, section: int, purpose: str, version: str) -> str:
    """The page `name`(`section`), in roff. Raises ValueError for Markdown that is not known."""
    lines = [
        '.\\" Written by docs/_generate.py; do not edit.',
        f'.TH "{_escape(name.upper())}" "{section}" "" "lmtp-proto {version}"',
        ".SH NAME",
        f"{_escape(name)} \\- {_escape(purpose)}",
    ]
    title, *blocks = _blocks(markdown)
    if not title.startswith("# "):
        raise ValueError(f"{name}: the first block is no title: {title!r}")
    # What stands before the first heading describes it all.
    if not blocks[0].startswith("## "):
        lines.append(".SH DESCRIPTION")
    for block in blocks:
        lines += _block(block)
    return "\n".join(lines) + "\n"


def _blocks(markdown: str) -> Iterator[str]:
    """What blank lines part, but for those in code."""
    fenced: list[str] = []
    for block in re.split(r"\n\s*\n", markdown.strip()):
        fenced.append(block)
        whole = "\n\n".join(fenced)
        if len(re.findall("^ *```", whole, re.MULTILINE)) % 2:
            continue
        fenced = []
        if not whole.startswith("<!--"):
            yield whole


def _block(block: str) -> list[str]:
    fence = _FENCE.match(block)
    if fence is not None:
        return [".PP", ".in +4n", ".nf", *map(_line, fence[1].split("\n")), ".fi", ".in"]
    if heading := re.match(r"(##+) (.*)$", block):
        # In capitals as in other pages, but for a name that is written otherwise.
        plain = "`" not in heading[2] and heading[1] == "##"
        text = _inline(heading[2].upper() if plain else heading[2], code="", strong="")
        return [f".{'SH' if heading[1] == '##' else 'SS'} {text}"]
    if block.startswith("|"):
        return _table([_cells(line) for line in block.split("\n")])
    if block.startswith("- "):
        items = re.split(r"\n- ", block.removeprefix("- "))
        return [line for item in items for line in (".IP \\(bu 2", _text(item))]
    if definition := re.match(r"(.+)\n: (.+)$", block, re.DOTALL):
        return [".TP", _text(definition[1]), _text(definition[2])]
    if re.match(r"[#>!+:<]|\d+\. |\* |---|```", block):
        raise ValueError(f"no man page can be made of {block!r}")
    return [".PP", _text(block)]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def _table(rows: list[list[str]]) -> list[str]:
    """A list of the first cells; others are told with their headings, but the second of all."""
    _, *headings = rows[0]
    lines = []
    for first, *others in rows[2:]:
        lines += [".TP", _text(first) or "\\ "]
        told = []
        for index, (heading, cell) in enumerate(zip(headings, others, strict=True)):
            if cell:
                plain = index == 0 and (len(headings) == 1 or heading == "meaning")
                told.append(_text(cell) if plain else f"{_text(heading)}: {_text(cell)}")
        lines += "\n.br\n".join(told).split("\n")
    return lines


def _text(markdown: str) -> str:
    """Running text, its lines none that roff takes for a request."""
    return "\n".join(map(_guard, _inline(re.sub(r"\n\s+", "\n", markdown.strip())).split("\n")))


def _line(text: str) -> str:
    return _guard(_escape(text))


def _guard(line: str) -> str:
    return f"\\&{line}" if line.startswith((".", "'")) else line


def _inline(markdown: str, *, code: str = "\\fB", strong: str = "\\fB") -> str:
    out, at = [], 0
    for match in _INLINE.finditer(markdown):
        out.append(_escape(markdown[at : match.start()]))
        at = match.end()
        if match["text"] is not None:
            out.append(_inline(match["text"], code=code, strong=strong))
        elif match["escaped"] is not None:
            out.append(_escape(match["escaped"]))
        else:
            font = strong if match["strong"] else code
            text = match["long"] or match["code"] or match["strong"]
            # A bar that would end a cell is written with a backslash even in code.
            out += [font, _escape(text.replace("\\|", "|")), "\\fR" if font else ""]
    return "".join([*out, _escape(markdown[at:])])


def _escape(text: str) -> str:
    """Plain text: roff reads backslashes, and sets quotes and dashes in ways of its own."""
    escapes = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}
    return "".join(escapes.get(character, character) for character in text)
