"""Pruning nets of one's own, in a training loop of one's own: `ipbench.prune` and `ipbench.load`."""

from __future__ import annotations

from ipbench.api.loading import load
from ipbench.api.pruned import Pruned
from ipbench.api.pruning import prune
from ipbench.api.report import Report
from ipbench.tasks.inputs import Inputs

__all__ = ["Inputs", "Pruned", "Report", "load", "prune"]
