"""`ipbench data`: data sets fetched, made, looked at and written for the FFCV loader."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ipbench import output
from ipbench.cli import lists, own
from ipbench.cli.arguments import help_alone
from ipbench.cli.run import DataFolder
from ipbench.data import catalog as datasets
from ipbench.data.own import keep
from ipbench.errors import valid_choice

app = typer.Typer(help="List, fetch and make data sets, write .beton files.")


@app.callback(invoke_without_command=True)
def _data(context: typer.Context) -> None:
    help_alone(context)


app.command("list")(lists.list_data_sets)


@app.command("fetch")
def fetch(name: Annotated[str, typer.Argument(help="A data set.")], data: DataFolder = Path("data")) -> None:
    """Download a data set, or make it of one that is downloaded, or say where its files must be put."""
    facts = datasets.dataset(name, "NAME")
    from ipbench.data.coco_folder import check
    from ipbench.data.scenes import make as make_scenes
    from ipbench.data.sources import fetch as fetch_source

    if name in datasets.MADE:
        output.say(fetch_source("fashion-mnist", data))
        output.say(make_scenes(data))
    else:
        output.say((check if facts.task == datasets.DETECTION else fetch_source)(name, data))


@app.command("make")
def make(
    name: Annotated[str, typer.Argument(help="A data set that is made of another one: fashion-scenes.")],
    data: DataFolder = Path("data"),
) -> None:
    """Make a data set of another one's images."""
    valid_choice(name, datasets.MADE, "data set to make", "NAME")
    from ipbench.data.scenes import make as make_scenes

    output.say(make_scenes(data))


@app.command("check")
def check_own(
    folder: Annotated[str, typer.Argument(help="A data set of yours: a folder, or a .npz file.")],
    dataset: Annotated[str | None, typer.Option(help="What to call it; its own name if left out.")] = None,
    image_size: own.ImageSize = None,
    resize: own.Resize = None,
    test: own.Test = None,
    data: DataFolder = Path("data"),
) -> None:
    """Look at a data set of yours: what it holds, and what a run takes where nothing is said."""
    name = own.the_data_set(dataset, folder, data, image_size=image_size, resize=resize, test=test)
    facts = datasets.OWN[str(name)]
    keep()
    size, mean, std = (" x ".join(map(str, facts.shape)), *(", ".join(map(str, of)) for of in (facts.mean, facts.std)))
    output.say(f"{facts.name}  ({facts.task}): {facts.train:,} training and {facts.test:,} test images of {size}")
    output.say(f"    {facts.classes} classes; mean {mean}; standard deviation {std}")
    output.say(f"    SHA-256 {facts.own.sha256 if facts.own else ''}")
    recipe = facts.recipe.differences()
    output.say(f"    model {facts.model}; recipe {', '.join(f'{key} {value}' for key, value in recipe.items())}")


@app.command("weights")
def weights(
    model: Annotated[str, typer.Argument(help="A model of torchvision's, or timm/NAME.")],
    name: Annotated[str, typer.Argument(help="Of its weights, such as IMAGENET1K_V1 or a1_in1k.")],
    data: DataFolder = Path("data"),
) -> None:
    """Download weights that others have trained, for `--weights NAME`; a run reads the file that this writes."""
    from ipbench.models.fetching import fetch as fetch_weights

    output.progress(fetch_weights(model, name, data))


@app.command("beton")
def beton(name: Annotated[str, typer.Argument(help="A data set.")], data: DataFolder = Path("data")) -> None:
    """Write the .beton files of a data set for the FFCV loader."""
    datasets.check_loader(datasets.dataset(name, "NAME"), "ffcv")
    from ipbench.data import beton_writing

    splits: tuple[Literal["train", "test"], ...] = ("train", "test")
    for split in splits:
        output.progress(beton_writing.write(name, split, data))
