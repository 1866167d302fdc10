"""Gradual pruning: what is not kept yet goes along a cubic (Zhu and Gupta, 2017, eq. 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipbench.data.loaders import Batch
from ipbench.machine.distributed import averaged, together
from ipbench.machine.precision import full_precision
from ipbench.sparse.scoring import share_memory
from ipbench.sparse.view import TrainedView, sparse_net
from ipbench.updaters.updater import Steps, Updater

if TYPE_CHECKING:
    from ipbench.methods import Gradual


class GradualPruning(Updater):
    """Prunes at the steps that are due; the last of them ends at the run's budget exactly."""

    masks = "pruned"

    def __init__(self, update: Gradual, steps: Steps) -> None:
        """`update`: when, and by what score."""
        self.update, self.steps = update, steps

    def due(self, step: int) -> bool:
        """Whether this step prunes."""
        return self.update.due(step, self.steps.total)

    def after_backward(self, net: TrainedView, batch: Batch, step: int) -> bool:
        """Prune as far as the cubic has come; weights are trained at every step.

        Raises:
            NotFinite: a score is not finite.
            Impossible: the budget cannot be met.
        """
        update = self.update
        # The filter bases are paid for from the first step on.
        keep = net.budget_at(update.share(step, self.steps.total))
        if keep >= net.kept:
            return True
        whole = sparse_net(net)
        with together(), full_precision(), whole.scratch() as twin:
            twin.zero(whole.masks)
            scores = update.score(twin, batch, **update.options)
        scores = averaged(scores)  # every process has seen its part of the batch
        share_memory(whole)
        with together():
            masks = net.select(scores, keep, step)
        net.prune(masks)
        return True
