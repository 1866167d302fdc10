"""A page as HTML: one file that needs no network, with every text escaped."""

from __future__ import annotations

import json
import math
import re
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from ipbench.analysis import style
from ipbench.analysis.render import Table
from ipbench.analysis.report.charts import charts_of
from ipbench.analysis.report.contents import FACETS, Contents, facets_of
from ipbench.output import printable

_HERE = Path(__file__).parent
#: The checkout that this file is part of, where there is one; links into its documents are made inside of it alone.
_ROOT = _HERE.parents[2]
_RULES, _CLAIMS = "docs/rules.md", "statistics-and-claims"

#: Words of the page: what they mean, in short, and the section of the rules that says it in full.
_WORDS = (
    ("SP, IP", "Pruning of the weights themselves (standard pruning), and of the coefficients of a small trained filter"
     " basis (interspace pruning), under equal budgets.", "spaces"),
    ("sparsity p", "The removed share of the budget: of parameters, the filter basis paid for inside it, unless the"
     " name of the axis says of what else.", "sparsity-and-budget"),
    ("IP − SP", "Mean over seeds of the difference between paired runs, in percentage points.", _CLAIMS),
    ("interval", "95 %, over seeds: of a mean by Student's t, of a difference by inversion of the sign-flip test. It"
     " covers neither other test images nor a collapse that no seed has shown.", _CLAIMS),
    ("claim", "Filled: p (max-T) of at most 0.05, one level for all comparisons and averages of an experiment, from"
     " six seeds on.", _CLAIMS),
    ("within", "Grey: no claim, and the interval of 90 % lies inside the margin (dotted lines).", _CLAIMS),
    ("undecided", "White: neither of these.", _CLAIMS),
    ("collapsed", "A run of which a layer has nothing left.", _CLAIMS),
    ("at chance", "A run whose test accuracy is one that a net which guesses reaches.", _CLAIMS),
    ("diverged", "A run with a number that is not finite; it counts with the accuracy of a guess.",
     _CLAIMS),
    ("lost", "Collapsed, at chance or diverged. Lost runs count in every mean.", _CLAIMS),
)  # fmt: skip
_CAPTIONS = {
    "forest": "Large: a method, or the whole grid, with its 95 % interval; small, below: single comparisons. Filled:"
    " claimed. Switches hide rows and change no average.",
    "accuracy": "Mean over seeds with its 95 % interval; dashed: the dense net. At the lower edge, with their values:"
    " means with less than half of what the best one has above chance. Cross: a mean with lost runs. Rings at the upper"
    " edge: no mean, for a reason told by hovering.",
}
_HEADINGS = {"forest": "IP against SP", "accuracy": "Accuracy against sparsity"}
#: Which columns of a table are of one space: those that begin with it, differences aside.
_OF_SPACE = re.compile(r"(SP|IP)( (?!−)|$)")

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; \
style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<header><h1>{title}</h1>
{opening}
</header>
<noscript><p>Charts, switches and sorting need JavaScript; the tables below do not.</p></noscript>
{facets}
<main>
{charts}
{tables}
<section id="words"><h2>Words</h2>
<dl>
{words}
</dl></section>
<section id="making"><h2>How it was made</h2>
<ul>
{provenance}
</ul>
<div class="box"><table><caption>What makes what; RESULTS is the folder of this experiment</caption>
<thead><tr><th scope="col">product</th><th scope="col">command</th></tr></thead><tbody>
{commands}
</tbody></table></div></section>
</main>
<script type="application/json" id="contents">{data}</script>
<script>
{library}
</script>
<script>
{script}
</script>
</body>
</html>
"""


def whole(contents: Contents, path: Path) -> str:
    """The page, for a file at `path`."""
    charts = charts_of(contents)
    rows = [row for _, values in charts.values() for row in values]
    facets = facets_of(rows)
    data = {
        "charts": {name: {"spec": spec, "rows": values} for name, (spec, values) in charts.items()},
        "colours": {"light": style.METHOD_COLOURS, "dark": style.METHOD_COLOURS_DARK},
    }
    return _PAGE.format(
        title=_text(contents.title),
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
        opening="\n".join(f"<p>{_text(sentence)}</p>" for sentence in contents.opening),
        facets=_switches(facets, _nets(contents)),
        charts="\n".join(_chart(name) for name in charts),
        tables="\n".join(_table(table, contents) for table in contents.tables),
        words=_words(path),
        provenance="\n".join(f"<li>{_text(sentence)}</li>" for sentence in contents.provenance),
        commands="\n".join(
            f"<tr><td>{_text(what)}</td><td><code>{_text(how)}</code></td></tr>" for what, how in contents.commands
        ),
        data=_json(data),
        library=_library(),
        script=(_HERE / "page.js").read_text(encoding="utf-8"),
    )


def _text(text: str) -> str:
    return escape(printable(text))


def _json(value: Any) -> str:
    """JSON that stands inside of a script element, whatever it holds: no `<` ends that, or begins a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@lru_cache(maxsize=1)
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed, as Altair's inline pages hold them."""
    import vl_convert

    text: str = vl_convert.javascript_bundle(None)  # type: ignore[arg-type]
    if "</script" in text.lower():
        raise ValueError("the bundle of vl-convert cannot stand in a page")
    return text


def _nets(contents: Contents) -> list[str]:
    """The nets of the chart of accuracies, which shows one at a time."""
    return list(dict.fromkeys(row["net"] for row in contents.cells or []))


def _switches(facets: dict[str, list[str]], nets: list[str]) -> str:
    """A box of switches for every facet with several values; nets are chosen one at a time."""
    parts = []
    if len(nets) > 1:
        options = "".join(f"<option>{_text(net)}</option>" for net in nets)
        parts.append(f'<p><label>net of the chart of accuracies <select id="net">{options}</select></label></p>')
    for name, values in facets.items():
        boxes = "".join(
            f'<label><input type="checkbox" checked data-facet="{name}" value="{_text(value)}"> {_text(value)}</label>'
            for value in values
        )
        parts.append(f"<fieldset><legend>{FACETS[name]}</legend>{boxes}</fieldset>")
    inner = "\n".join(parts)
    return f'<details id="switches" open><summary>Show</summary>\n{inner}\n</details>' if parts else ""


def _chart(name: str) -> str:
    heading, caption = _HEADINGS[name], _CAPTIONS[name]
    return (
        f'<section><h2>{heading}</h2>\n<div class="chart" data-chart="{name}" role="img" aria-label="{heading}; the'
        f' tables below hold the same numbers"></div>\n<p class="caption">{caption}</p></section>'
    )


def _table(table: Table, contents: Contents) -> str:
    """A table that can be sorted; rows carry what they are switched off by."""
    printed = table.printed
    if table.name == "experiments":
        printed = printed.rename(columns={"title": "what"})
    heads, classes = [], []
    for name in map(str, printed.columns):
        found = _OF_SPACE.match(name)
        classes.append(f' class="{found[1]}"' if found else "")
        heads.append(f'<th scope="col"{classes[-1]}><button>{_text(name)}</button></th>')
    facets = [name for name in FACETS if name in table.data.columns]
    tags = [tuple(_facet(value, name) for name, value in zip(facets, row, strict=True))
            for row in table.data[facets].itertuples(index=False, name=None)]  # fmt: skip
    body = []
    for tag, row in zip(tags, printed.itertuples(index=False, name=None), strict=True):
        data = "".join(f' data-{name}="{_text(value)}"' for name, value in zip(facets, tag, strict=True) if value)
        cells = "".join(f"<td{own}>{_cell(str(text), contents, own)}" for own, text in zip(classes, row, strict=True))
        body.append(f"<tr{data}>{cells}")
    rows = "\n".join(body) or "<tr><td>(no rows)"
    notes = "".join(f"<li>{_text(note)}</li>" for note in table.notes)
    return (
        f'<section id="table-{_text(table.name)}"><h2>{_text(_short(table, contents))}</h2>\n'
        f'<div class="box" tabindex="0" role="region" aria-label="{_text(table.title)}">'
        f"<table>\n<thead><tr>{''.join(heads)}</tr></thead>\n<tbody>\n"
        f"{rows}\n</tbody></table></div>\n<details><summary>Notes</summary><ul>{notes}</ul></details></section>"
    )


def _short(table: Table, contents: Contents) -> str:
    """The title of a table without that of the experiment."""
    text = table.title.removeprefix(f"{contents.title}: ")
    return text[:1].upper() + text[1:]


def _cell(text: str, contents: Contents, own: str) -> str:
    to = contents.links.get(text) if not own else None
    return f'<a href="{_text(to)}">{_text(text)}</a>' if to else _text(text)


def _facet(value: object, name: str) -> str:
    """What a row is switched off by."""
    if pd.isna(value) or (isinstance(value, float) and math.isnan(value)):  # type: ignore[call-overload]
        return ""
    return str(value).upper() if name == "space" else str(value)


def _words(path: Path) -> str:
    """Definitions; a page inside the checkout links to the rules there."""
    target, folder = _ROOT / _RULES, path.absolute().parent
    up = ""
    if target.is_file() and folder.is_relative_to(_ROOT):
        up = "../" * len(folder.relative_to(_ROOT).parts)
    told = []
    for word, text, section in _WORDS:
        place = f"{_RULES}#{section}"
        link = f'<a href="{up}{place}">{place}</a>' if up else f"<code>{place}</code>"
        told.append(f"<dt>{word}</dt><dd>{_text(text)} {link}</dd>")
    return "\n".join(told)
