"""All that one run reads: `Data`, whose batches are the same bits whatever loader reads the images."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
import torch
from torch.nn import functional

from ipbench import keys
from ipbench.data import beton, box_loaders, splits
from ipbench.data.augment import Keyed
from ipbench.data.box_loaders import Boxes
from ipbench.data.boxes import Target
from ipbench.data.catalog import DETECTION, DataSet, check_loader, check_recipe, dataset
from ipbench.data.folder_loader import FolderPixels
from ipbench.data.memory_loader import MemoryPixels
from ipbench.data.sources import Split
from ipbench.errors import BadInput, valid_choice
from ipbench.spec import Recipe

LoaderName = Literal["memory", "ffcv"]
LOADERS: tuple[str, ...] = get_args(LoaderName)

#: Images in a batch that is only evaluated, where the catalogue tells no other number; part of the numerics, since sums
#: over batches are rounded.
EVALUATION_BATCH = 500

#: Training images that are evaluated at most; of detection, as many as COCO has for its validation.
PLAIN_TRAINING = 60_000
PLAIN_TRAINING_WITH_BOXES = 5_000
#: Parts of the images that are evaluated.
Part = Literal["train", "validation", "test"]


class Batch(NamedTuple):
    """Images, and what they show, on the device."""

    images: torch.Tensor
    """float32 (n, channels, height, width), normalised; where images differ in size, zeros on the right and below"""
    labels: torch.Tensor
    """int64 (n,); of detection (0,)"""
    targets: tuple[Target, ...] = ()
    """of detection: what is to be found in each image, crowds left out"""
    indices: torch.Tensor | None = None
    """of detection: int64 (n,), the numbers of the images in their split; one more is their id in `Data.truth`"""
    sizes: tuple[tuple[int, int], ...] = ()
    """of detection: height, width of each image, without what was added at its border"""


class Pixels(Protocol):
    """One split of a data set, wherever it lies.

    Attributes:
        labels: (n,) int64 of the whole split.
    """

    labels: np.ndarray

    def __len__(self) -> int:
        """Images of the split."""
        ...

    def batches(
        self, order: np.ndarray, size: int, keyed: Keyed | None
    ) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
        """Images uint8 (n, height, width, channels) and labels int64 (n,) on the device, in the given order.

        Args:
            order: int64 indices in the split.
            size: images in a batch; the last one may be smaller.
            keyed: how to augment; None for plain images.

        Yields:
            Images that are valid until the next batch is asked for, and labels.
        """
        ...


class Data:
    """The images of one run: its keyed split, order, augmentation and score batch.

    All is a function of the data set, the recipe and the seed; any epoch may be read without those before it.

    Args:
        name: one of `catalog.DATASETS`.
        recipe: batch size, augmentation, validation part and number of training images are read from it.
        seed: the run's.
        root: the data folder.
        loader: "memory" holds the images on the device, or, of data sets that are folders of images (`imagenet`),
            decodes them from disk in every epoch; "ffcv" reads .beton files.
        workers: threads that prepare images, where they are not held on the device.
        device: where the batches go.
        channels_last: batches in torch's channels-last memory format.
        rank: number of this process among those that train the run together, 0 to `world` - 1.
        world: how many there are; the recipe's batch is divided among them.

    Attributes:
        shape: (channels, height, width).
        classes: number of classes.
        steps_per_epoch: full batches in the training part.
        train_indices: sorted, of the training part, of all ranks.
        validation_indices: sorted, of the validation part, of all ranks.
        notes: what is not as in the files, of boxes that were left out or cut; by split.

    Raises:
        BadInput: unknown name or loader, images or FFCV missing, or a recipe that does not fit the data set.
        BadProduct: a file is broken; the message names it.
    """

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        seed: int,
        *,
        root: Path,
        loader: LoaderName = "memory",
        workers: int = 1,
        device: str = "cpu",
        channels_last: bool = False,
        rank: int = 0,
        world: int = 1,
    ):
        self.name, self.recipe, self.seed = name, recipe, seed
        self.rank, self.world = rank, world
        facts = dataset(name)
        self.shape, self.classes = facts.shape, facts.classes
        if not 0 <= rank < world:
            raise BadInput(f"rank {rank} of {world} processes: ranks are 0 to {world - 1}")
        self._check_batches(recipe)
        # Both splits at once: a test file that is missing should stop a run before it trains.
        self._train, self._test = (_open(name, split, root, loader, workers, device) for split in get_args(Split))
        self.notes = {
            split: one.annotations.note
            for split, one in zip(get_args(Split), (self._train, self._test), strict=True)
            if isinstance(one, Boxes) and one.annotations.note
        }
        self.train_indices, self.validation_indices = splits.split(
            len(self._train), seed, recipe.validation, recipe.train_examples
        )
        self.steps_per_epoch = self._steps(recipe)
        self._normalise = partial(normalise, constants=_constants(facts, device), channels_last=channels_last)

    def under(self, recipe: Recipe) -> Data:
        """The same images, in the batches and with the augmentation of another recipe; what is held out stays.

        Raises:
            BadInput: the recipe does not fit the data set.
        """
        self._check_batches(recipe)
        other = copy.copy(self)
        other.recipe, other.steps_per_epoch = recipe, self._steps(recipe)
        return other

    def _check_batches(self, recipe: Recipe) -> None:
        check_recipe(dataset(self.name), recipe)
        if recipe.batch_size % self.world:
            raise BadInput(
                f"{self.name}: batch_size is {recipe.batch_size}, which {self.world} processes cannot share equally; it"
                f" must be divisible by {self.world}"
            )

    def _steps(self, recipe: Recipe) -> int:
        """Full batches in the training part."""
        steps = len(self.train_indices) // recipe.batch_size
        if not steps:
            raise BadInput(
                f"{self.name}: batch_size is {recipe.batch_size}, but the training part has only"
                f" {len(self.train_indices)} images"
            )
        return steps

    def train(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """The augmented full batches of an epoch (0, 1, ...), in its keyed order; of each, this rank's part.

        The parts of all ranks, one after the other, are the batch of a single process.

        Args:
            epoch: 0, 1, ...
            skip: so many batches at the start are left out, and not read.

        Raises:
            ValueError: `skip` is negative or above `steps_per_epoch`.
        """
        if not 0 <= skip <= self.steps_per_epoch:
            raise ValueError(f"skip is {skip}, in an epoch of {self.steps_per_epoch} batches")
        size, share = self.recipe.batch_size, self.recipe.batch_size // self.world
        order = splits.keyed_order(self.train_indices, keys.key(self.seed, "order", epoch))
        batches = order[: self.steps_per_epoch * size].reshape(-1, size)[skip:]
        mine = batches[:, self.rank * share : (self.rank + 1) * share].flatten()
        return self._batches(self._train, mine, share, Keyed(self.recipe.augmentation, self.seed, epoch))

    def train_plain(self) -> Iterator[Batch]:
        """The images of the training part, in the order of the source, not augmented; of these, this rank's part.

        Of a large training part only `PLAIN_TRAINING` images, or `PLAIN_TRAINING_WITH_BOXES`, chosen by key: enough to
        tell an accuracy by.
        """
        return self._plain(self._train, self._indices("train"))

    def validation(self) -> Iterator[Batch]:
        """All images of the validation part, or this rank's part of them; nothing if the recipe holds none out."""
        return self._plain(self._train, self.validation_indices)

    def test(self) -> Iterator[Batch]:
        """All test images, or this rank's part of them."""
        return self._plain(self._test, self._indices("test"))

    def truth(self, part: Part) -> dict[str, Any]:
        """What is to be found in the images of `train_plain`, `validation` or `test`, of all ranks, in COCO's format.

        Returns:
            `boxes.truth`: ids of images are their `Batch.indices` + 1, boxes are in pixels of the batches of
            evaluation, crowds are among them. `average_precision.average_precision` compares detections with it.

        Raises:
            ValueError: the data set is not one for detection.
        """
        found = self._test if part == "test" else self._train
        if not isinstance(found, Boxes):
            raise ValueError(f"{self.name} has no boxes")
        return found.truth(self._indices(part))

    def _indices(self, part: Part) -> np.ndarray:
        """Sorted numbers, in their split, of the images of a part."""
        if part == "test":
            return np.arange(len(self._test))
        if part == "validation":
            return self.validation_indices
        most = PLAIN_TRAINING_WITH_BOXES if isinstance(self._train, Boxes) else PLAIN_TRAINING
        return np.sort(splits.keyed_order(self.train_indices, keys.key(self.seed, "split", "plain"))[:most])

    def score_batch(self, size: int | None = None, per_class: int | None = None) -> Batch:
        """Plain images of the training part, chosen by key, on which a method computes its scores.

        Smaller batches are parts of larger ones. Every rank gets all of it.

        Args:
            size: number of images; the recipe's batch size if None.
            per_class: instead of `size`: so many images of every class.

        Raises:
            BadInput: there are not so many images, or both numbers are given.
        """
        order = splits.keyed_order(self.train_indices, keys.key(self.seed, "score batch"))
        if per_class is None:
            size = self.recipe.batch_size if size is None else size
            if not 1 <= size <= len(order):
                raise BadInput(f"{self.name}: a score batch of {size} images of the {len(order)} in the training part")
            chosen = order[:size]
        elif size is None:
            chosen = order[self._first_of_each_class(order, per_class)]
        else:
            raise BadInput("a score batch has a size or a number per class, not both")
        # Not in one go: a loader would hold several batches of that size.
        return _joined(list(self._batches(self._train, chosen, self._evaluation_batch)))

    def _first_of_each_class(self, order: np.ndarray, per_class: int) -> np.ndarray:
        """(n,) bool: which of `order` are among the first `per_class` of their class."""
        if isinstance(self._train, Boxes):
            raise BadInput(f"{self.name}: a score batch per class, but an image shows several; give its size")
        labels = self._train.labels[order]
        # The classes that the source has: a part of ImageNet may lack the last ones.
        counts = np.bincount(labels, minlength=int(self._train.labels.max()) + 1)
        if not 1 <= per_class <= counts.min():
            raise BadInput(
                f"{self.name}: a score batch of {per_class} images per class, but the training part has only"
                f" {counts.min()} of one"
            )
        by_class = np.argsort(labels, kind="stable")
        place = np.empty(len(labels), dtype=np.int64)
        place[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
        first: np.ndarray = place < per_class
        return first

    @property
    def _evaluation_batch(self) -> int:
        return dataset(self.name).evaluation_batch or EVALUATION_BATCH

    def _plain(self, pixels: Pixels | Boxes, order: np.ndarray) -> Iterator[Batch]:
        """This rank's part of `order`, not augmented."""
        return self._batches(pixels, np.array_split(order, self.world)[self.rank], self._evaluation_batch)

    def _batches(
        self, pixels: Pixels | Boxes, order: np.ndarray, size: int, keyed: Keyed | None = None
    ) -> Iterator[Batch]:
        with closing(pixels.batches(order, size, keyed)) as batches:
            for found in batches:
                batch = Batch(*found)
                yield batch._replace(images=_blank(self._normalise(batch.images), batch.sizes))


def _blank(images: torch.Tensor, sizes: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Zeros, the mean of the data set, in what was added to images of different sizes; in place."""
    for image, (height, width) in zip(images, sizes, strict=True) if sizes else ():
        if (height, width) != images.shape[2:]:
            image[:, height:] = 0
            image[:, :, width:] = 0
    return images


def _joined(parts: Sequence[Batch]) -> Batch:
    """One batch of several, padded to the largest of them."""
    labels = torch.cat([part.labels for part in parts])
    if parts[0].indices is None:
        return Batch(torch.cat([part.images for part in parts]), labels)
    height, width = (max(part.images.shape[axis] for part in parts) for axis in (2, 3))
    images = [
        functional.pad(part.images, (0, width - part.images.shape[3], 0, height - part.images.shape[2]))
        for part in parts
    ]  # fmt: skip
    return Batch(
        torch.cat(images),
        labels,
        tuple(target for part in parts for target in part.targets),
        torch.cat([part.indices for part in parts if part.indices is not None]),
        tuple(size for part in parts for size in part.sizes),
    )


def normalise(
    images: torch.Tensor, constants: tuple[torch.Tensor, torch.Tensor], channels_last: bool = False
) -> torch.Tensor:
    """Bytes to normalised numbers: one subtraction and one product in float32, so all devices agree to the bit.

    Args:
        images: uint8 (n, height, width, channels).
        constants: float32 (channels, 1, 1) each: 255 mean, and 1 / (255 std).
        channels_last: the memory format of the result.

    Returns:
        float32 (n, channels, height, width), new memory.
    """
    shift, factor = constants
    if channels_last:
        n, height, width, channels = images.shape
        numbers = images.to(torch.float32).view(n, height, width * channels)
        # Whole rows at a time; broadcasting over channels that lie innermost is several times slower on a CPU.
        numbers.sub_(shift.flatten().repeat(width)).mul_(factor.flatten().repeat(width))
        return numbers.view(n, height, width, channels).permute(0, 3, 1, 2)
    numbers = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return numbers.sub_(shift).mul_(factor)


def _constants(facts: DataSet, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    shift = torch.tensor(facts.mean, dtype=torch.float64) * 255
    factor = 1 / (torch.tensor(facts.std, dtype=torch.float64) * 255)
    return shift.float()[:, None, None].to(device), factor.float()[:, None, None].to(device)


def _open(name: str, split: Split, root: Path, loader: LoaderName, workers: int, device: str) -> Pixels | Boxes:
    valid_choice(loader, LOADERS, "loader")
    check_loader(dataset(name), loader)
    if dataset(name).task == DETECTION:
        return box_loaders.opened(name, split, root, device, workers)
    if loader == "memory" and dataset(name).shorter_side is not None:
        return FolderPixels(name, split, root, device, workers)
    if loader == "memory":
        return MemoryPixels(name, split, root, device)
    beton.require()
    from ipbench.data.ffcv_adapter import BetonPixels

    return BetonPixels(name, split, root, device, workers)
