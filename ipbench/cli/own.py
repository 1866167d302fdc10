"""Options that tell a command of users' models and data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ipbench import numerals
from ipbench.cli.arguments import path, whole
from ipbench.data import own as own_data
from ipbench.errors import BadInput, valid_choice
from ipbench.models import own as own_models
from ipbench.spec import Own, build

ModelFile = Annotated[
    Path | None,
    typer.Option("--model-file", help="A Python file with a function of the model's name that makes it.", parser=path),
]
Weights = Annotated[
    str | None,
    typer.Option(help="What the model starts with: a .safetensors file, or the name of weights that were fetched."),
]
Label = Annotated[str | None, typer.Option(help="What runs and tables call the model, in place of its own name.")]
DatasetFolder = Annotated[
    str | None,
    typer.Option(help="A data set of yours: train/CLASS/*.png and val/ or test/, a .npz file, COCO's format, ..."),
]
ImageSize = Annotated[
    int | None,
    typer.Option(help="Pixels to which the images of --dataset-folder are brought.", parser=whole(1, 4096)),
]
Resize = Annotated[
    int | None,
    typer.Option(
        help="Pixels of their shorter side before a square is taken: for random crops.", parser=whole(1, 4096)
    ),
]
Test = Annotated[
    str | None, typer.Option(help="Their test part: a share of the images, such as 0.2, or which of val and test.")
]
Digests = Annotated[
    list[str] | None,
    typer.Option("--digest", help="Refuse other content: code=, weights= or data= and the SHA-256 that was planned."),
]


def the_model(
    model: str | None,
    model_file: Path | None,
    weights: str | None,
    label: str | None,
    usual: str,
    root: Path,
    where: str = "--model",
) -> str:
    """The name of the model that a command line tells of.

    Args:
        model: --model.
        model_file: --model-file.
        weights: --weights.
        label: --label.
        usual: the data set's default.
        root: --data.
        where: how the command line calls the model.

    Raises:
        BadInput: there is none.
    """
    if model_file is not None and model is None:
        raise BadInput(f"--model-file {model_file}: give --model, the name of the function in it that makes the net")
    return own_models.model(
        usual if model is None else model, file=model_file, weights=weights, label=label, root=root, folder=Path(),
        where=where,
    )  # fmt: skip


def the_data_set(
    dataset: str | None,
    folder: str | None,
    root: Path,
    *,
    image_size: int | None = None,
    resize: int | None = None,
    test: str | None = None,
) -> str | None:
    """The name of the user's data set that a command line tells of; None if it tells of none.

    Args:
        dataset: --dataset.
        folder: --dataset-folder.
        root: --data.
        image_size: --image-size.
        resize: --resize.
        test: --test.

    Raises:
        BadInput: it is not there, or not as it should be.
    """
    options = {"image_size": image_size, "resize": resize, "test": _test(test)}
    if folder is None:
        if given := [name for name, value in options.items() if value is not None]:
            raise BadInput(f"--{given[0].replace('_', '-')} is for a data set of yours; give --dataset-folder, too")
        return None
    if folder == "":
        raise BadInput("--dataset-folder: an empty path; for the folder you are in, write .")
    told = own_data.entry({"folder": folder, "name": dataset, **options}, "--dataset-folder")
    return own_data.data_set(told, Path(), root, "--dataset-folder")


def check_digests(words: Sequence[str] | None, here: Own) -> None:
    """Whether a run is made of what was planned.

    Args:
        words: --digest.
        here: what the run says.

    Raises:
        BadInput: a file has changed; the line says which, and both digests.
    """
    for word in words or []:
        name, _, wanted = word.partition("=")
        valid_choice(name, ("code", "weights", "data"), "digest", "--digest")
        build(Own, {name: wanted}, f"--digest {name}")
        if (now := getattr(here, name)) != wanted:
            what = {"code": "code of the model", "weights": "weights", "data": "content of the data set"}[name]
            raise BadInput(
                f"the {what} is not what was planned (SHA-256 {now or 'none':.12} now, {wanted:.12} then): files have"
                " changed; put them back, or plan anew"
            )


def _test(word: str | None) -> float | str | None:
    """A share, or the name of a folder."""
    if word is None or word.isalpha():
        return word
    try:
        return float(numerals.decimal(word))
    except ValueError as error:
        raise BadInput(f"--test: {error}") from None
