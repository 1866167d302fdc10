"""A page about a method, from what its file says: docstring, options, stages, paper."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ipbench.methods._method import Method
from ipbench.methods._stages import Stage
from ipbench.spec import COEFFICIENTS, Option, Recipe, Run

#: Options of every method that prunes before training.
_COMMON = {
    "rounds": "how often to score and prune; the density falls exponentially from round to round",
    "per_class": "images of each class in the score batch; 0: as many images as a training batch has",
}
#: Columns of prose.
_WIDTH = 118


@dataclass
class Described:
    """The parts of a method's docstring.

    Attributes:
        summary: its first line.
        text: paragraphs: the idea and its equations.
        options: what each option means, by name.
        uncertain: what the sources leave open; empty if nothing is known of.
    """

    summary: str
    text: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)
    uncertain: str = ""


def described(doc: str) -> Described:
    """The parts of a docstring: a line, paragraphs, `Options:` with an indented entry each, `Uncertain:` at the end."""
    summary, *blocks = [block.strip("\n") for block in re.split(r"\n\s*\n", doc.strip())]
    found = Described(" ".join(summary.split()))
    for block in blocks:
        if block.startswith("Options:"):
            found.options = _options(block.splitlines()[1:])
        elif block.startswith("Uncertain:"):
            found.uncertain = " ".join(block.removeprefix("Uncertain:").split())
        else:
            found.text.append(block)
    return found


def _options(lines: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in textwrap.dedent("\n".join(lines)).splitlines():
        if line.startswith(" "):
            found[list(found)[-1]] += " " + line.strip()
        else:
            name, _, text = line.partition(":")
            found[name.strip()] = text.strip()
    return found


def page(method: Method) -> str:
    """The page of a method, in Markdown.

    Args:
        method: registered; its docstring describes each of its options.

    Raises:
        ValueError: it does not.
    """
    parts = described(method.doc)
    meaning = {name: text for name, text in _COMMON.items() if name in method.options} | parts.options
    if missing := set(method.options) ^ set(meaning):
        raise ValueError(f"method {method.name}: its docstring does not describe, or invents, {', '.join(missing)}")
    lines = [f"# {method.name}", "", *_wrapped(parts.summary), ""]
    for block in parts.text:
        lines += [*(block.splitlines() if block.startswith("    ") else _wrapped(block)), ""]
    lines += ["| | |", "|---|---|", f"| kind | {method.family} |", f"| source | {method.paper} |"]
    lines += [f"| {name} | {value} |" for name, value in _own(method).items()]
    lines += ["", "Stages of a run, with the defaults of its options:", ""]
    lines += [f"{number}. {stage}" for number, stage in enumerate(map(str, _stages(method)), 1)]
    if meaning:
        lines += ["", "| option | default | meaning |", "|---|---|---|"]
        lines += [f"| `{name}` | {_value(method.options[name])} | {meaning[name]} |" for name in method.options]
    if parts.uncertain:
        lines += ["", *_wrapped(f"Uncertain: {parts.uncertain}")]
    return "\n".join(lines) + "\n"


def _own(method: Method) -> dict[str, str]:
    """What the method means where nobody says otherwise."""
    usual = {"off-value": ("zero", method.off), "pattern": (COEFFICIENTS, method.pattern)}
    usual |= {"allocation": ("global", method.allocation), "budget": ("parameters", method.budget)}
    found = {name: value for name, (default, value) in usual.items() if value != default}
    if method.knob:
        found["knob"] = f"`{method.knob}`: where it is not its default, what is pruned is a result"
    return found


def _stages(method: Method) -> list[Stage]:
    """What is executed, with the defaults of the options and what the method means."""
    axes = {"pattern": method.pattern, "budget": method.budget_for(method.pattern), "off": method.off}
    run = Run(dataset="digits", model="small-vgg", method=method.name, recipe=Recipe(), **axes)
    return method.stages_of(run)


def _value(value: Option) -> str:
    return f"`{str(value).lower() if isinstance(value, bool) else value}`" if value != "" else "empty"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), _WIDTH, break_long_words=False, break_on_hyphens=False)


def index(methods: Mapping[str, Method]) -> str:
    """The list of all methods, in Markdown."""
    lines = [
        "# Methods",
        "",
        "One page each, made by `python docs/write_methods.py` from the files in `ipbench/methods`.",
        "",
        "| method | kind | in a line |",
        "|---|---|---|",
    ]
    for name, method in methods.items():
        summary = described(method.doc).summary.replace("|", r"\|")
        lines.append(f"| [{name}]({name}.md) | {method.family} | {summary} |")
    return "\n".join(lines) + "\n"
