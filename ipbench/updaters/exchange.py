"""Exchanging coefficients: the smallest are dropped, others grown (Evci et al., ICML 2020, alg. 1)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ipbench import keys
from ipbench.data.loaders import Batch
from ipbench.machine.distributed import together
from ipbench.sparse.net import SparseNet
from ipbench.sparse.scoring import as_score
from ipbench.sparse.selection import NotFinite, largest
from ipbench.sparse.view import NetView, TrainedView, sparse_net
from ipbench.updaters.updater import Steps, Updater

if TYPE_CHECKING:
    from ipbench.methods import DropAndGrow


class Exchange(Updater):
    """Exchanges coefficients at the steps that are due; every layer keeps as many as it had.

    With n trained coefficients in a layer, floor(f n) are dropped, f the fraction at this step, and as many grown among
    all that are then masked. A new coefficient starts at its off-value; one that was just dropped and is grown again
    keeps its value.
    """

    masks = "exchanged"

    def __init__(self, update: DropAndGrow, steps: Steps) -> None:
        """`update`: fractions, and what to grow by."""
        self.update, self.steps = update, steps

    def due(self, step: int) -> bool:
        """Whether this step exchanges."""
        return self.update.due(step, self.steps.total)

    def after_backward(self, net: TrainedView, batch: Batch, step: int) -> bool:
        """Exchange by the dense gradients; at such a step no weights are trained.

        Raises:
            NotFinite: a gradient or a growth score is not finite.
            BadInput: growth does not give one score per coefficient.
        """
        whole = sparse_net(net)
        with together():
            masks = self.exchanged(whole, step)
        net.prune(masks)
        return False

    def exchanged(self, net: SparseNet, step: int) -> dict[str, Tensor]:
        """The masks after the exchange of a step."""
        fraction = self.fraction_at(step)
        growth = self._growth(net, step)
        magnitudes = net.magnitudes(self.update.scaled)
        masks: dict[str, Tensor] = {}
        for place, (name, c) in enumerate(net.coefficients.items()):
            mask = net.masks[name].flatten()
            active = int(mask.sum())
            tie_key = keys.key(net.run.seed, "ties", step, place)
            drop = math.floor(fraction * active)
            stay = largest(magnitudes[name].flatten(), mask, active - drop, tie_key)
            grown = largest(growth[name].flatten(), ~stay, drop, keys.splitmix64(tie_key))
            masks[name] = (stay | grown).view(c.shape)
        return masks

    def fraction_at(self, step: int) -> float:
        """The fraction that is dropped: a cosine from `fraction` to `end` over the steps that exchange."""
        update = self.update
        way = min(step / (update.until * self.steps.total), 1.0)
        return update.end + (update.fraction - update.end) * 0.5 * (1 + math.cos(math.pi * way))

    def _growth(self, net: SparseNet, step: int) -> dict[str, Tensor]:
        """What to grow by in every layer; the function sees a copy of the net, as scores do."""
        scores = {}
        with net.scratch() as twin:
            view = NetView(twin, twin.state.setdefault("growth", {}))
            for name, c in net.coefficients.items():
                gradient = torch.zeros_like(c) if c.grad is None else c.grad.clone()
                if not bool(torch.isfinite(gradient).all()):
                    raise NotFinite(f"a gradient in layer {name} is not finite")
                found = self.update.grow(view, name, gradient, step)
                scores[name] = as_score(found, c, f"method {net.run.method}: the growth score of layer {name}")
                if not bool(torch.isfinite(scores[name]).all()):
                    raise NotFinite(f"a growth score in layer {name} is not finite")
        return scores
