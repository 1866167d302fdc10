"""A penalty on filters that are not orthonormal, and how orthogonal they are (OrthoReg)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

from ipbench.methods._filter_scores import makers
from ipbench.methods._stages import Train
from ipbench.updaters import Steps, Updater

if TYPE_CHECKING:
    from torch import Tensor

    from ipbench.sparse.view import NetView, TrainedView

#: Which products of a layer's matrix are penalised: those of its rows or of its columns, whichever are fewer; or always
#: the same.
SHAPE = "shape"
GRAMS = (SHAPE, "rows", "columns")


@dataclass(frozen=True)
class Layer:
    """How a layer is penalised.

    Attributes:
        axis: along which its filters lie.
        columns: whether products are those of columns.
        share: of the penalty.
    """

    axis: int
    columns: bool
    share: float


def layers(net: NetView, gram: str) -> dict[str, Layer]:
    """The layers that make channels which can be removed, by name.

    A layer's share is sqrt(n), divided by the sum of all: n is the side of its matrix of products, but of the first
    layer, and of those whose filters read one channel each, the number of filters.

    Args:
        net: whose layers.
        gram: one of `GRAMS`.
    """
    axes, found = makers(net), {}
    biases = net.biases
    sides: dict[str, float] = {}
    for place, (name, axis) in enumerate(axes.items()):
        filters = net.shapes[name][axis]
        entries = net.masks[name].numel() // filters
        columns = gram == "columns" or (gram == SHAPE and filters >= entries + (name in biases))
        one_channel = len(net.shapes[name]) > 2 and net.shapes[name][1 - axis] == 1 and axis == 0
        sides[name] = sqrt(filters if place == 0 or one_channel or not columns else entries + (name in biases))
        found[name] = (axis, columns)
    total = sum(sides.values())
    return {name: Layer(axis, columns, sides[name] / total) for name, (axis, columns) in found.items()}


def products(weights: Tensor, bias: Tensor | None, axis: int, columns: bool) -> Tensor:
    """The products of a layer's rows, a filter and its bias each, or of its columns."""
    import torch  # here, so that planning a grid imports no torch

    rows = weights.movedim(axis, 0).flatten(1)
    if bias is not None:
        rows = torch.cat((rows, bias.to(rows).unsqueeze(1)), dim=1)
    return rows.t() @ rows if columns else rows @ rows.t()


def penalty(net: NetView, of: Mapping[str, Layer]) -> Tensor | None:
    """The sum over layers of their share times the sum of |G - 1|, with the products G; None without layers."""
    import torch

    filters, biases, terms = net.filters, net.biases, []
    for name, layer in of.items():
        gram = products(filters[name], biases.get(name), layer.axis, layer.columns)
        terms.append(layer.share * (gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)).abs().sum())
    return torch.stack(terms).sum() if terms else None


def orthogonality(net: NetView, gram: str) -> dict[str, float]:
    """By layer, the part of the sum of |G| that lies on the diagonal: 1 where filters are orthogonal.

    Args:
        net: whose layers.
        gram: one of `GRAMS`.
    """
    filters, biases, found = net.filters, net.biases, {}
    for name, layer in layers(net, gram).items():
        bias = biases.get(name)
        weights = filters[name].detach().double()
        sizes = products(weights, None if bias is None else bias.detach(), layer.axis, layer.columns).abs()
        found[name] = float(sizes.diagonal().sum() / sizes.sum())
    return found


class Orthonormal(Updater):
    """Adds the penalty to the loss, and notes after every epoch how orthogonal the filters are."""

    def __init__(self, net: TrainedView, steps: Steps, *, strength: float, gram: str) -> None:
        """Find the layers.

        Args:
            net: as the training begins.
            steps: of the training.
            strength: of the penalty.
            gram: one of `GRAMS`.
        """
        self.strength, self.gram = strength, gram
        self.layers = layers(net, gram)

    def penalty(self, net: TrainedView) -> Tensor | None:
        """The penalty of this step."""
        found = penalty(net, self.layers)
        return None if found is None else self.strength * found

    def after_epoch(self, net: TrainedView, epoch: int) -> None:
        """Note how orthogonal the filters are."""
        net.notes["orthogonality"] = orthogonality(net, self.gram)


def penalised_training(strength: float, gram: str, epochs: int) -> Train:
    """A training with the penalty and without weight decay.

    Args:
        strength: of the penalty; 0: none, and the recipe's weight decay.
        gram: one of `GRAMS`.
        epochs: 0: the recipe's, with its schedule; else so many at the recipe's rate, with the penalty the last of them
            at a tenth of it.

    Raises:
        ValueError: a value has no meaning.
    """
    if not 0 <= strength <= 1000 or gram not in GRAMS:
        raise ValueError(f"strength is 0 or more, up to 1000, and gram one of {', '.join(GRAMS)}")
    recipe: dict[str, object] = {"weight_decay": 0.0} if strength else {}
    if epochs and strength and epochs > 1:
        recipe |= {"schedule": "step", "milestones": ((epochs - 1) / epochs,), "gamma": 0.1, "warmup": 0}
    elif epochs:
        recipe |= {"schedule": "constant", "warmup": 0}
    return Train(Orthonormal.spec(strength=strength, gram=gram) if strength else None, epochs=epochs, recipe=recipe)
