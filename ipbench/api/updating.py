"""Masks that change while a user trains: the updaters of RigL, SET and gradual pruning, driven by the optimiser."""

from __future__ import annotations

import torch

from ipbench.machine.distributed import agreeing
from ipbench.machine.precision import full_precision
from ipbench.machine.process_state import method_code
from ipbench.methods import DropAndGrow, Gradual
from ipbench.sparse.net import SparseNet
from ipbench.sparse.view import TrainedView
from ipbench.updaters import Steps


class Updating:
    """An updater in a training of a user's own.

    Attributes:
        step: of the optimiser, counted from 0: the one that comes next.
    """

    def __init__(self, net: SparseNet, update: DropAndGrow | Gradual, steps: int) -> None:
        """`update`: of the method; `steps`: of the whole training."""
        self._net, self._total = net, steps
        self._view = TrainedView(net, 0.0)
        self._updater = update.begin(self._view, Steps(steps, steps))
        self._dense = isinstance(update, DropAndGrow)
        self.step = 0

    @property
    def due(self) -> bool:
        """Whether the next step changes masks."""
        return self.step < self._total and self._updater.due(self.step)

    @property
    def needs_dense(self) -> bool:
        """Whether the next step looks at gradients of what is masked."""
        return self._dense and self.due

    def change(self) -> bool:
        """Change the masks by the gradients at hand, which `due` asks for; returns whether weights are trained."""
        run = self._net.run
        with torch.no_grad(), full_precision(), agreeing(), method_code(run.method, run.seed, self.step):
            return self._updater.after_backward(self._view, None, self.step)  # type: ignore[arg-type]
