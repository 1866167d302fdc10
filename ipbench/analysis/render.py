"""A table as CSV (full precision), Markdown and LaTeX (booktabs); no template engine needed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape

import pandas as pd

from ipbench.output import printable

#: Text to LaTeX, character by character; '[' too, as it would be an optional argument at the start of a row.
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "[": "{[}", "]": "{]}", "\"": r"\textquotedbl{}", "±": r"$\pm$", "−": "$-$", "×": r"$\times$",
    "–": "--", "—": "---", "…": r"\ldots{}", "≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$",
}  # fmt: skip
#: What is set flush right: numbers, also with an interval or a unit behind them, and what stands in their place.
_NUMERIC = re.compile(r"[+−-]?\d[\d.,]*(e[+-]?\d+)?( .*)?|–|impossible|")


@dataclass(frozen=True)
class Table:
    """A table in two forms.

    Attributes:
        name: of its files.
        title: one line.
        data: every number raw, columns with units in their names.
        printed: the same rows as text for a reader.
        notes: sentences for below the table or its caption.
    """

    name: str
    title: str
    data: pd.DataFrame
    printed: pd.DataFrame
    notes: tuple[str, ...]


def csv(table: Table) -> str:
    """The raw numbers; floats in the shortest text that reads back to the same number."""
    return table.data.map(lambda value: printable(value) if isinstance(value, str) else value).to_csv(
        index=False, lineterminator="\n"
    )


def markdown(table: Table) -> str:
    """A pipe table, aligned also as plain text, with title and notes."""
    header = [_markdown(str(name)) for name in table.printed.columns]
    rows = [[_markdown(text) for text in row] for row in _texts(table.printed)]
    right = _right(table.printed)
    widths = [max([3, *(len(row[i]) for row in [header, *rows])]) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        padded = [
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(cells, widths, right, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * (width - 1) + ":" if flush else "-" * width for width, flush in zip(widths, right, strict=True)]
    body = [line(header), line(rule), *map(line, rows)] if rows else ["(no rows)"]
    return "\n".join(
        [f"**{_markdown(table.title)}**", "", *body, "", *(f"* {_markdown(note)}" for note in table.notes), ""]
    )


_PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 14px/1.5 sans-serif; margin: 1.5em; color: #222; background: #fff; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: 0.2em 0.8em; text-align: left; white-space: nowrap; }}
thead th {{ border-bottom: 1px solid #222; }}
tbody tr:hover {{ background: #eef; }}
.right {{ text-align: right; font-variant-numeric: tabular-nums; }}
</style>
<h1>{title}</h1>
<table><thead>{head}</thead><tbody>
{body}
</tbody></table>
<ul>{notes}</ul>
</html>
"""


def page(table: Table) -> str:
    """A page of its own, with nothing to load: what an HTML report shows."""
    right = _right(table.printed)

    def line(tag: str, cells: list[str]) -> str:
        marked = [(' class="right"' if flush else "", escape(cell)) for cell, flush in zip(cells, right, strict=True)]
        return "<tr>" + "".join(f"<{tag}{style}>{text}</{tag}>" for style, text in marked) + "</tr>"

    return _PAGE.format(
        title=escape(printable(table.title)),
        head=line("th", [str(name) for name in table.printed.columns]),
        body="\n".join(line("td", row) for row in _texts(table.printed)) or "<tr><td>(no rows)</td></tr>",
        notes="".join(f"<li>{escape(printable(note))}</li>" for note in table.notes),
    )


def latex(table: Table) -> str:
    """A `table` float with a booktabs `tabular`; needs `\\usepackage{booktabs}`."""
    columns = "".join("r" if flush else "l" for flush in _right(table.printed))
    caption = " ".join([f"{table.title}.", *table.notes])
    body = [rf"  {' & '.join(map(escape_latex, row))} \\" for row in _texts(table.printed)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering\small",
            rf"\caption{{{escape_latex(caption)}}}",
            rf"\label{{tab:{re.sub(r'[^A-Za-z0-9-]', '-', table.name)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"  \toprule",
            rf"  {' & '.join(escape_latex(str(name)) for name in table.printed.columns)} \\",
            r"  \midrule",
            *body,
            r"  \bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is; line breaks become blanks."""
    return "".join(_LATEX.get(character, character) for character in " ".join(printable(text).split()))


def _texts(frame: pd.DataFrame) -> list[list[str]]:
    return [[printable(str(value)) for value in row] for row in frame.itertuples(index=False, name=None)]


def _right(frame: pd.DataFrame) -> list[bool]:
    """Per column, whether it is set flush right."""
    rows = _texts(frame)
    return [all(_NUMERIC.fullmatch(row[i]) for row in rows) for i in range(len(frame.columns))]


def _markdown(text: str) -> str:
    """Text that Markdown prints as it is, inside a table cell."""
    return re.sub(r"([\\|*_<>`\[\]&$])", r"\\\1", " ".join(printable(text).split()))
