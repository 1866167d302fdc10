"""YAML as people mean it: words, numbers, true and false, null, lists and mappings, and nothing else.

PyYAML follows YAML 1.1, where `off` is false, `010` is eight, `1:30` is ninety and `1e-4` is a text. Here numbers are
those of YAML 1.2, everything else is a word. Tags, which could make other objects, and anchors, with which a few lines
become gigabytes, are refused; so is a key that is given twice.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

#: Longer ones are words: no option is so large, and Python refuses to print numbers of thousands of digits.
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})$")
_FLOAT = re.compile(
    r"[-+]?(([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(inf|Inf|INF))$|\.(nan|NaN|NAN)$"
)
_RESOLVERS = (
    ("null", re.compile(r"(~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", _INTEGER, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
)


class NotPlain(yaml.YAMLError):
    """A text that is not YAML, or not of the plain kind; one line that says where."""


class _Loader(yaml.SafeLoader):
    """Builds plain values alone."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor:
            raise NotPlain(f"{_line(event)}anchors (&) and aliases (*) are not read here; write the value out")
        if event.tag:
            raise NotPlain(f"{_line(event)}the tag {event.tag!r:.80} is not read here; write a plain value")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag != "tag:yaml.org,2002:str":
                text = key_node.value if isinstance(key_node, yaml.ScalarNode) else "of several values"
                raise NotPlain(f"{_line(key_node)}the key {text!r:.80} is not a word; quote it if it is meant as one")
            if key_node.value in seen:
                raise NotPlain(f"{_line(key_node)}the key {key_node.value!r:.80} is given twice")
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes what `_Loader` would not read as the same word."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    """On one line, whatever is in it."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _represent_text)
_Loader.yaml_implicit_resolvers, _Dumper.yaml_implicit_resolvers = {}, {}  # none of YAML 1.1's
for _kind, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", _pattern, _first)
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", _pattern, _first)


def read(text: str) -> Any:
    """The value of a YAML text of one document.

    Raises:
        NotPlain: it is not YAML, not plain, or a key is given twice.
    """
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except NotPlain:
        raise
    except yaml.MarkedYAMLError as error:
        said = " ".join(part for part in (error.context, error.problem) if part)
        raise NotPlain(f"{_line(error)}{' '.join(said.split())}") from None
    except yaml.YAMLError as error:
        raise NotPlain(" ".join(str(error).replace('in "<unicode string>", ', "").split())) from None
    except RecursionError:
        raise NotPlain("nested too deeply") from None


def write(value: object) -> str:
    """A plain value on one line; `read` gives it back."""
    text: str = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=2**31, allow_unicode=True)
    return text.partition("\n...")[0].strip()


def _line(thing: Any) -> str:
    """ "line 3: " of an event, a node or an error."""
    mark = getattr(thing, "problem_mark", None) or getattr(thing, "start_mark", None)
    return f"line {mark.line + 1}: " if mark else ""
