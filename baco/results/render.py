"""Tables as text: Markdown, LaTeX and HTML of one and the same cells."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass

SIGNIFICANT = "*"
CUT_OFF = "§"
FAMILY = "Holm-corrected over the rows of one budget in the table, each metric by itself"
MARKS = f"Bold: best within the budget; underlined: runner-up; {SIGNIFICANT}: p < 0.05 ({FAMILY}); †: no budget."


@dataclass(frozen=True)
class Cell:
    """A piece of text; `place` 0 is the best of its column and 1 the runner-up, `mark` follows the text."""

    text: str
    place: int | None = None
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A title, lines of notes below, and rows of cells of which the first `words` are words, the others numbers."""

    title: str
    notes: tuple[str, ...]
    columns: tuple[str, ...]
    words: int
    rows: tuple[tuple[Cell, ...], ...]


def _by_place(cell: Cell, plain: str, first: str, second: str) -> str:
    """The text of a cell, marked where it is the best or second best of its column."""
    return first if cell.place == 0 else second if cell.place == 1 else plain


def to_markdown(table: Table, name: str) -> str:
    """A heading, the table, and the notes as a list. Needs no name of its document."""

    def text(cell: Cell) -> str:
        plain = cell.text.replace("|", "\\|")
        shown = _by_place(cell, plain, f"**{plain}**", f"<u>{plain}</u>")
        return shown + cell.mark.replace("*", "\\*")

    rows = [
        list(table.columns),
        ["---" if number < table.words else "---:" for number in range(len(table.columns))],
        *([text(cell) for cell in row] for row in table.rows),
    ]
    lines = [f"## {table.title}", ""]
    if table.rows:
        lines += ["| " + " | ".join(row) + " |" for row in rows] + [""]
    return "\n".join([*lines, *(f"- {note}" for note in table.notes), ""])


LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "—": "---",
    "<": "$<$",
    ">": "$>$",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "§": r"\S{}",
    "`": "",
}


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is, without the backquotes of Markdown."""
    return "".join(LATEX.get(sign, sign) for sign in text)


def to_latex(table: Table, name: str) -> str:
    """A floating table for the packages booktabs and graphicx, no wider than the text; nothing where there are no rows.

    Notes with a command are comments: they are for whoever makes the table. The label is made of its name and title.
    """
    if not table.rows:
        return ""

    def text(cell: Cell) -> str:
        plain = escape_latex(cell.text)
        shown = _by_place(cell, plain, rf"\textbf{{{plain}}}", rf"\underline{{{plain}}}")
        return shown + (f"$^{{{escape_latex(cell.mark)}}}$" if cell.mark else "")

    commands = [note for note in table.notes if "`" in note]
    notes = [note for note in table.notes if note not in commands]
    caption = " ".join(map(escape_latex, (f"{table.title}.", *notes, MARKS)))
    label = "-".join(re.findall(r"\w+", f"{name} {table.title}".lower()))
    numbers = len(table.columns) - table.words
    lines = [f"% {note}" for note in commands]
    lines += [r"\begin{table*}", r"\centering\small", rf"\caption{{{caption}}}", rf"\label{{tab:{label}}}"]
    lines += [r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{"]
    lines += [rf"\begin{{tabular}}{{{'l' * table.words}{'r' * numbers}}}", r"\toprule"]
    lines += [" & ".join(map(escape_latex, table.columns)) + r" \\", r"\midrule"]
    lines += [" & ".join(map(text, row)) + r" \\" for row in table.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table*}", ""])


def to_html(table: Table) -> str:
    """A section with a table that the page's script can sort."""

    def text(cell: Cell) -> str:
        plain = html.escape(cell.text)
        shown = _by_place(cell, plain, f"<b>{plain}</b>", f"<u>{plain}</u>")
        return shown + (f"<sup>{cell.mark}</sup>" if cell.mark else "")

    def row(cells: list[str], tag: str) -> str:
        kinds = ("" if number < table.words else ' class="n"' for number in range(len(cells)))
        return (
            "<tr>" + "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)) + "</tr>"
        )

    lines = [f"<h3>{html.escape(table.title)}</h3>"]
    if table.rows:
        lines += ['<div class="scroll"><table>', "<thead>" + row([html.escape(name) for name in table.columns], "th")]
        lines += ["</thead><tbody>", *(row([text(cell) for cell in cells], "td") for cells in table.rows)]
        lines += ["</tbody></table></div>"]
    return "\n".join([*lines, "<ul>", *(f"<li>{prose(note)}</li>" for note in table.notes), "</ul>"])


def prose(text: str) -> str:
    """Text as HTML, backquoted parts as <code>."""
    parts = html.escape(text).split("`")
    return "".join(part if number % 2 == 0 else f"<code>{part}</code>" for number, part in enumerate(parts))


FORMATS: dict[str, Callable[[Table, str], str]] = {"md": to_markdown, "tex": to_latex}
