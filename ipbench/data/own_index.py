"""What the readers of users' data sets have in common: options, keyed test parts, sums over pixels, stamps of files."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from ipbench import keys
from ipbench.data.splits import keyed_order
from ipbench.errors import BadInput
from ipbench.spec import Value, Whole

#: Of an image, per side.
LARGEST = 4096
#: Names of folders and files of the test part.
TESTS = ("val", "test")


def _test(value: object) -> object:
    share = isinstance(value, float) and 0 < value < 1
    if value is not None and not share and value not in TESTS:
        raise ValueError(f"a share of the images between 0 and 1, or one of {', '.join(TESTS)}")
    return value


class Options(Value):
    """How a user's data set is read."""

    image_size: Annotated[Whole, Field(ge=1, le=LARGEST)] | None = Field(
        None, description="pixels: the shorter side of every image, of which the middle square is taken"
    )
    resize: Annotated[Whole, Field(ge=1, le=LARGEST)] | None = Field(
        None, description="pixels of the shorter side before a square of image_size is taken, for random crops"
    )
    test: Annotated[float | str | None, BeforeValidator(_test)] = Field(
        None, description="the share of the images that is the test part, or the folder that is, of val and test"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Options:
        if self.resize is not None and (self.image_size is None or self.resize < self.image_size):
            raise ValueError("resize needs an image_size, and is not smaller")
        return self

    @property
    def share(self) -> float | None:
        """The share of the images that is the test part, where a share says it."""
        return None if isinstance(self.test, str) else self.test


def held_out(count: int, share: float, group: str, where: str) -> np.ndarray:
    """Which of the images of a class are the test part: a keyed choice, the same for every run.

    Args:
        count: images of the class.
        share: of them, rounded to whole images.
        group: the class.
        where: for messages.

    Returns:
        (count,) bool.

    Raises:
        BadInput: nothing is left for one of the two parts.
    """
    chosen = round(share * count)
    if not 0 < chosen < count:
        raise BadInput(
            f"{where}: a test part of {share:g} of {count} images is {chosen}; both parts need an image of each class"
        )
    mask = np.zeros(count, dtype=bool)
    mask[keyed_order(np.arange(count), keys.key(0, "split", "own", group))[:chosen]] = True
    return mask


@dataclass
class Sums:
    """Sums over pixels, whole numbers: their order does not matter.

    Attributes:
        pixels: how many.
        first: their sum, for each channel.
        second: the sum of their squares, for each channel.
    """

    pixels: int = 0
    first: list[int] = field(default_factory=list)
    second: list[int] = field(default_factory=list)

    def add(self, images: np.ndarray) -> None:
        """Add images, uint8 (..., channels)."""
        flat = images.reshape(-1, images.shape[-1])
        counts = [np.bincount(flat[:, channel], minlength=256) for channel in range(flat.shape[1])]
        values = np.arange(256, dtype=np.int64)
        other = Sums(len(flat), [int(n @ values) for n in counts], [int(n @ values**2) for n in counts])
        self.join(other)

    def join(self, other: Sums) -> None:
        """Add the sums of other pixels."""
        self.pixels += other.pixels
        self.first = [a + b for a, b in zip(self.first or [0] * len(other.first), other.first, strict=True)]
        self.second = [a + b for a, b in zip(self.second or [0] * len(other.second), other.second, strict=True)]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"pixels": self.pixels, "first": self.first, "second": self.second}

    def mean_std(self, channels: int, where: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of pixels in 0..1, of the first channels, to four decimals.

        Raises:
            BadInput: all pixels are equal: nothing can be learned from them.
        """
        means, deviations = [], []
        for first, second in list(zip(self.first, self.second, strict=True))[:channels]:
            mean = first / self.pixels
            variance = (second * self.pixels - first * first) / self.pixels**2
            means.append(round(mean / 255, 4))
            deviations.append(round(math.sqrt(variance) / 255, 4))
        if not all(deviations):
            raise BadInput(f"{where}: all pixels of its training images are equal (in a channel): there is no image")
        return tuple(means), tuple(deviations)


def sums_of(told: Iterable[Mapping[str, Any]]) -> Sums:
    """All of these together."""
    result = Sums()
    for one in told:
        result.join(Sums(one["pixels"], list(one["first"]), list(one["second"])))
    return result


def stamp(entries: Iterable[os.DirEntry[str] | Path]) -> str:
    """A digest of names, sizes and dates of files: what is compared in place of their content."""
    digest = hashlib.sha256()
    for entry in entries:
        told = entry.stat()
        digest.update(os.fsencode(entry.name) + f"\0{told.st_size}\0{told.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def joined(digests: Sequence[str]) -> str:
    """One digest of several, in order."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def test_folder(place: Path, options: Options, names: Mapping[str, Path]) -> str | None:
    """Which of the folders (or files) val and test is the test part; None where a share of the images is.

    Args:
        place: the data set.
        options: what the user says.
        names: of those that are there.

    Raises:
        BadInput: nothing says it, or two things do.
    """
    there = [name for name in TESTS if name in names]
    if options.share is not None:
        if there:
            raise BadInput(f"{place}: test: {options.share:g} is a share of the images, but there is {there[0]}, too")
        return None
    if isinstance(options.test, str):
        if options.test not in there:
            raise BadInput(f"{place}: test: {options.test}, but there is no such part in it")
        return options.test
    if len(there) > 1:
        raise BadInput(f"{place}: both val and test are there; say which is the test part, `test: val` or `test: test`")
    if not there:
        raise BadInput(f"{place}: no test part: no val and no test is there; a share of the images can be, `test: 0.2`")
    return there[0]
