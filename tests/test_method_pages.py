"""The page of every method is what its file says."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.write_methods import FOLDER, pages
from ipbench import methods
from ipbench.methods import before_training, method
from ipbench.methods._pages import described, page


@pytest.mark.parametrize("name", ["README.md", *(f"{name}.md" for name in methods.methods() if methods.built_in(name))])
def test_pages_are_up_to_date(name):
    assert (FOLDER / name).read_text() == pages()[name], "write them anew: python docs/write_methods.py"


def test_there_is_no_page_of_a_method_that_is_gone():
    assert {path.name for path in FOLDER.glob("*.md")} == set(pages())


def test_parts_of_a_docstring():
    text = "In a line.\n\nText that\ngoes on.\n\n    x = 1\n\n"
    found = described(text + "Options:\n    a: one\n      more\n    b: two\n\nUncertain: all\nof it.")
    assert found.summary == "In a line." and found.text == ["Text that\ngoes on.", "    x = 1"]
    assert found.options == {"a": "one more", "b": "two"} and found.uncertain == "all of it."


def test_options_without_a_word_are_refused():
    @method(when=before_training, paper="nobody")
    def mine(net, batch, *, power: float = 1.0):
        """A score.

        Options:
            strength: is called otherwise
        """

    with pytest.raises(ValueError, match=r"does not describe, or invents, (power, strength|strength, power)"):
        page(methods.get("mine"))


def test_pages_say_what_a_method_means():
    text = page(methods.get("sfp"))
    assert "| pattern | filters |" in text and "| budget | macs |" in text and "cut dead channels" in text
    assert Path("docs/methods/sfp.md").name in pages()
