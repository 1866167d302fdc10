"""`load`: a packed net of a user's own."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ipbench.api.asked import NoData, NoInputs
from ipbench.api.pruned import Pruned
from ipbench.errors import BadInput
from ipbench.packing import own


def load(path: str | Path, model: nn.Module) -> Pruned:
    """The net that `Pruned.save` wrote.

    Nothing is unpickled, and nothing of the file is executed: the structure is that of `model`.

    Args:
        path: of the file.
        model: a module of the same architecture as the one that was pruned, with any values; it stays as it is.

    Returns:
        The net with its masks, on the CPU, in evaluation mode. Masks do not change in a training any more.

    Raises:
        BadInput: the model is of another architecture; or the file is missing, truncated, altered, or not such a file.
    """
    if not isinstance(model, nn.Module) or isinstance(model, Pruned):
        raise BadInput(f"ipbench.load: a freshly built nn.Module is wanted, not a {type(model).__name__}")
    masked, cut, facts = own.unpack(Path(path), model, NoInputs(), NoData(None, f"{path}: a packed net has no data"))
    result = Pruned(masked, facts["left_out"], None)
    result._told = {"reached": facts["reached"], "whole": facts["whole"]}
    result._remove(cut)
    return result.eval()
