"""The example of a user's net and images through real Snakemake; other code or other images are other runs."""

from __future__ import annotations

import json
import runpy
import shutil
import sys

import pytest
from PIL import Image

from tests.workflow.conftest import ROOT, Checkout, check_out

pytestmark = pytest.mark.workflow

CONFIG = "examples/own/experiment.yaml"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The example, laid out with its images."""
    made = check_out(tmp_path_factory.mktemp("own"))
    shutil.copytree(ROOT / "examples/own", made.folder / "examples/own", ignore=shutil.ignore_patterns("digits"))
    words, sys.argv = sys.argv, ["make_images.py", str(made.folder / "examples/own/digits")]
    try:
        runpy.run_path(str(ROOT / "examples/own/make_images.py"), run_name="__main__")
    finally:
        sys.argv = words
    return made


def test_the_example(example: Checkout) -> None:
    example.done("--until", "tables", config=CONFIG)
    results = example.folder / "results/own"
    records = [json.loads(path.read_text()) for path in results.glob("runs/*/*.json")]
    assert len(records) == 4 and all(record["status"] == "done" for record in records)
    (index,) = (example.folder / "data/own").glob("my-digits.*.json")
    told = json.loads(index.read_text())
    for record in records:
        assert record["provenance"]["data"] == told["sha256"] == record["run"]["own"]["data"]
        assert record["provenance"]["model"] == record["run"]["own"]["code"]
    assert max(record["outcome"]["train_accuracy"] for record in records) > 0.3  # a guess has 0.1
    table = (results / "tables/accuracy.md").read_text()
    assert "data set my-digits, model small\\_lenet" in table
    assert not (example.folder / "data/my-digits.fetched").exists()

    # Other code, and other images, are other runs; the same elsewhere are the same.
    net = example.folder / "examples/own/net.py"
    text = net.read_text()
    net.write_text(text + "# more\n")
    assert example.planned("--until", "run", config=CONFIG)["run"] == 2
    net.write_text(text)
    image = next((example.folder / "examples/own/digits/train/3").glob("*.png"))
    content = image.read_bytes()
    with Image.open(image) as opened:
        opened.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(image)
    assert example.planned("--until", "run", config=CONFIG)["run"] == 2
    image.write_bytes(content)
    (example.folder / "examples/own").rename(example.folder / "examples/moved")
    assert example.planned("--until", "run", config="examples/moved/experiment.yaml") == {}
