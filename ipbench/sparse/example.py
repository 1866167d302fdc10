"""What a net is called with to count its products, and to follow its channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from ipbench.tasks.inputs import Inputs

#: Images of passes in training mode: norms need two.
_IMAGES = 2


class Example(Protocol):
    """Calls of a net that stand for all others."""

    def one(self, like: Tensor) -> Inputs:
        """What products are counted of, on the device and in the type of a tensor."""

    def several(self) -> Inputs:
        """What channels are followed through, in either mode; on the CPU, in single precision."""


class Images:
    """Images of a shape, or of several shapes for a net with several inputs: one of zeros, two of random numbers.

    Attributes:
        shapes: of one image, for each input.
    """

    def __init__(self, *shapes: Sequence[int]) -> None:
        self.shapes = shapes

    def one(self, like: Tensor) -> Inputs:
        """An image of zeros."""
        return Inputs(*(torch.zeros(1, *shape, device=like.device, dtype=like.dtype) for shape in self.shapes))

    def several(self) -> Inputs:
        """Two images of keyed random numbers."""
        generator = torch.Generator().manual_seed(0)
        return Inputs(*(torch.rand((_IMAGES, *shape), generator=generator) for shape in self.shapes))


class Given:
    """Inputs that a user gives: all is counted of one call with them, and followed through it."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs.mapped(Tensor.detach)

    def one(self, like: Tensor) -> Inputs:
        """What was given."""
        return self.inputs.like(like)

    def several(self) -> Inputs:
        """What was given."""
        return self.inputs.like(torch.empty(0))


def example_of(value: Example | Sequence[int] | Sequence[Sequence[int]]) -> Example:
    """An example as it is, or that of images of a shape, or of several shapes."""
    if not isinstance(value, Sequence):
        return value
    return Images(value) if not value or isinstance(value[0], int) else Images(*value)  # type: ignore[arg-type]
