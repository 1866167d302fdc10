"""Names and texts with characters that some reader takes for its own: as they are in the end, or one line before."""

from __future__ import annotations

import json

import pytest

from tests.workflow.conftest import Checkout
from tests.workflow.test_workflow import one_line

pytestmark = pytest.mark.workflow

METHOD = """
from ipbench.methods import before_training, method

@method(paper="x", when=before_training)
def mine(net, batch, *, word: str = "a"):
    return net.magnitudes()
"""
WORD = "<script>$x_1$ {y} %s 'q' \\ \"z\" `touch pwned`"


def write(checkout: Checkout, file: str = 'my method\'s "$x" & (y) `z`.py', config: str = "it's an (x) $1.yaml") -> str:
    """One run of a method of a file; returns the experiment's path."""
    (checkout.folder / file).write_text(METHOD)
    entry = {"name": "mine", "file": file, "word": WORD}
    recipe = {"epochs": 1, "train_examples": 100, "batch_size": 50, "warmup": 0}
    title = "a $b_c$ & <b> {x} % {{ y }} \\q"
    checkout.write(name="tiny", title=title, methods=[entry], spaces=["sp"], seeds=1, recipe=recipe)
    (checkout.folder / "config/tiny.yaml").rename(checkout.folder / "config" / config)
    return f"config/{config}"


def test_paths_and_texts_reach_the_training_as_they_are(checkout: Checkout) -> None:
    config = write(checkout)
    checkout.done("--until", "run", "grid", config=config)
    (record,) = checkout.results.glob("runs/*/*.json")
    assert json.loads(record.read_text())["run"]["options"] == {"word": WORD}
    assert (checkout.results / "grid.json").exists() and not (checkout.folder / "pwned").exists()


@pytest.mark.parametrize(
    "names",
    [{"file": "my {method}.py"}, {"file": "<m>.py"}, {"config": "an {exp}.yaml"}, {"config": "two\nlines.yaml"}],
)
def test_what_snakemake_would_read_otherwise_is_one_line(checkout: Checkout, names: dict[str, str]) -> None:
    config = write(checkout, **names)
    one_line(checkout.snakemake("--dry-run", config=config), [ascii(*names.values()).strip("'"), "rename it"])
