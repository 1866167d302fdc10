"""Scores of whole filters, by name: what structured methods rank filters by.

Each is a score like any other, (net, batch) to a number per coefficient: that of a filter, divided equally among its
coefficients, so that sums over filters are the scores. They see the weights that the layers compute with, so that those
of the interspace are the ones of the filters. What is no filter of a convolution is a row of its matrix.

    fisher        (sum of w * dL/dw over a filter and its bias)^2, with the mean loss L: the squared first-order term of
                  the loss, as the public code of OrthoReg has it, and no sum over images of squares
    tfo           (g * dL/dg)^2, with the scale g of the batch norm behind the filter
    rdt           sum over classes j of p_j * (d log p_j / dw)^2, with means of p and of log p over the images; each
                  tensor divided by its mean, then summed over a filter and its bias
    bn, bn-fan-in |g|, and divided by the number of the filter's weights
    l1, sfp       L1 and L2 norm of the filter's weights
    grasp         sum of w * (H g) over a filter and its bias, with the gradient g and the Hessian H of the mean loss of
                  logits divided by 200
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ipbench.errors import BadInput, valid_choice
from ipbench.methods._declare import cross_entropy
from ipbench.methods._scores import alone

if TYPE_CHECKING:
    from torch import Tensor

    from ipbench.data.loaders import Batch
    from ipbench.methods._scores import Score
    from ipbench.sparse.plain import PlainNet
    from ipbench.sparse.view import NetView

    Scores = dict[str, Tensor]

#: Divides the logits of grasp.
_TEMPERATURE = 200.0


def makers(net: NetView) -> dict[str, int]:
    """The layers that make channels which can be removed, in the order of the net: along which axis filters lie."""
    found = {m.layer: m.axis for group in net.groups.free for m in group.producers}
    return {name: found[name] for name in net.names if name in found}


def _sums(net: NetView, values: Mapping[str, Tensor]) -> Scores:
    """Sums over filters of values by layer, in double precision: a number per filter."""
    axes = makers(net)
    return {name: v.detach().double().movedim(axes.get(name, 0), 0).flatten(1).sum(1) for name, v in values.items()}


def _spread(net: NetView, scores: Mapping[str, Tensor]) -> Scores:
    """Scores of filters by layer, equally divided among their coefficients; zero in layers that have none."""
    import torch  # here, so that planning a grid imports no torch

    axes, found = makers(net), {}
    for name, shape in net.shapes.items():
        axis = axes.get(name, 0)
        filters = shape[axis]
        values = scores.get(name, torch.zeros(filters)).double() * (filters / torch.Size(shape).numel())
        found[name] = values.view([-1 if place == axis else 1 for place in range(len(shape))]).expand(shape)
    return found


def _with_biases(net: NetView, plain: PlainNet, values: Mapping[str, Tensor]) -> Scores:
    """Sums over filters and their biases of values by parameter."""
    sums = _sums(net, {layer: values[name] for layer, name in plain.filters.items()})
    for layer, name in plain.biases.items():
        sums[layer] = sums[layer] + values[name].detach().double()
    return sums


def _scales(net: NetView, found: Mapping[str, Tensor], score: str) -> Scores:
    """Of a score of norms.

    Raises:
        BadInput: a layer has no norm.
    """
    for name in makers(net):
        if name not in found:
            raise BadInput(
                f"score {score}: layer {name} has no batch norm behind it whose channels are its filters; take another"
                f" score ({', '.join(sorted(set(SCORES) - set(_OF_NORMS)))}) or another model"
            )
    return {name: found[name].detach().double() for name in makers(net)}


def _classifier(net: NetView, score: str) -> PlainNet:
    """The plain net of a score of logits.

    Raises:
        BadInput: the task has no logits.
    """
    if net.task != "classification":
        raise BadInput(f"score {score}: it is of logits, and a net for {net.task} has none; take fisher or tfo")
    return net.plain()


def fisher(net: NetView, batch: Batch) -> Scores:
    """The squared first-order term of the mean loss."""
    plain = net.plain()
    means = net.mean(lambda part: plain.gradients(plain.loss(part)), batch)
    products = {name: parameter * means[name] for name, parameter in plain.parameters.items()}
    return _spread(net, {name: sums.square() for name, sums in _with_biases(net, plain, products).items()})


def tfo(net: NetView, batch: Batch) -> Scores:
    """The squared first-order term of the scale behind a filter."""
    plain = net.plain()
    scales = _scales(net, {layer: plain.parameters[name] for layer, name in plain.norms.items()}, "tfo")
    means = net.mean(lambda part: plain.gradients(plain.loss(part)), batch)
    return _spread(net, {name: (scale * means[plain.norms[name]].double()).square() for name, scale in scales.items()})


def rdt(net: NetView, batch: Batch) -> Scores:
    """How far the distribution over classes moves with the weights, to second order; in passes of the batch."""
    plain = _classifier(net, "rdt")

    def squares(part: Batch) -> dict[str, Tensor]:
        logits = plain.logits(part)
        shares, logs = logits.softmax(1).mean(0).detach(), logits.log_softmax(1).mean(0)
        sums: dict[str, Tensor] = {}
        for share, log in zip(shares, logs, strict=True):
            for name, gradient in plain.gradients(log, retain_graph=True).items():
                square = share * gradient.square()
                sums[name] = sums[name] + square if name in sums else square
        return sums

    means = net.mean(squares, batch)
    shares = {name: value / mean if (mean := float(value.mean())) else value for name, value in means.items()}
    return _spread(net, _with_biases(net, plain, shares))


def grasp(net: NetView, batch: Batch) -> Scores:
    """What the norm of the gradient would suffer from losing a filter, with its sign."""
    plain = _classifier(net, "grasp")

    def gradients(part: Batch) -> dict[str, Tensor]:
        return plain.gradients(cross_entropy(plain.logits(part) / _TEMPERATURE, part.labels), create_graph=True)

    whole = net.mean(gradients, batch)  # of all images, whatever the pass

    def products(part: Batch) -> dict[str, Tensor]:
        # The gradient of <g, stop(g)> is H g: one more backward pass instead of a Hessian.
        found = [(g * whole[name]).sum() for name, g in gradients(part).items()]
        return plain.gradients(sum(found[1:], found[0]))

    means = net.mean(products, batch)
    terms = {name: parameter * means[name] for name, parameter in plain.parameters.items()}
    return _spread(net, _with_biases(net, plain, terms))


def bn(net: NetView, batch: Batch | None) -> Scores:
    """The scale behind a filter."""
    return _spread(net, {name: scale.abs() for name, scale in _scales(net, net.norms, "bn").items()})


def bn_fan_in(net: NetView, batch: Batch | None) -> Scores:
    """The scale behind a filter, divided by the number of its weights."""
    scales, axes = _scales(net, net.norms, "bn-fan-in"), makers(net)
    sizes = {name: net.coefficients[name].numel() / net.shapes[name][axes[name]] for name in scales}
    return _spread(net, {name: scale.abs() / sizes[name] for name, scale in scales.items()})


def l1(net: NetView, batch: Batch | None) -> Scores:
    """The sum of a filter's absolute weights."""
    return _spread(net, _sums(net, {name: weights.abs() for name, weights in net.filters.items()}))


def sfp(net: NetView, batch: Batch | None) -> Scores:
    """The Euclidean norm of a filter's weights."""
    sums = _sums(net, {name: weights.detach().double().square() for name, weights in net.filters.items()})
    return _spread(net, {name: values.sqrt() for name, values in sums.items()})


_OF_NORMS = ("tfo", "bn", "bn-fan-in")
#: Scores that look at no image.
DATA_FREE: dict[str, Callable[[NetView, Batch | None], Scores]] = {
    "bn": bn, "bn-fan-in": bn_fan_in, "l1": l1, "sfp": sfp,
}  # fmt: skip
#: By name, as scores of any method: `Prune(SCORES["fisher"], "fisher")`.
SCORES: dict[str, Score] = {
    name: alone(score, name)
    for name, score in {"fisher": fisher, "tfo": tfo, "rdt": rdt, "grasp": grasp, **DATA_FREE}.items()
}


def filter_score(name: str) -> Score:
    """A score of whole filters.

    Raises:
        ValueError: there is none of that name.
    """
    try:
        return SCORES[valid_choice(name, SCORES, "score of filters")]
    except BadInput as error:
        raise ValueError(str(error)) from None
