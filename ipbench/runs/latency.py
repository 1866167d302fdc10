"""Time and memory of a net whose channels were cut beside those of its dense net."""

from __future__ import annotations

from typing import Any

from ipbench.data.loaders import Data
from ipbench.machine import distributed
from ipbench.sparse import measure
from ipbench.sparse.net import SparseNet
from ipbench.spec import PASS_PIXELS

#: Images of the batch that both nets compute, at most; fewer where they are larger than 64 x 64 pixels.
BATCH = 64


def side_by_side(dense: SparseNet, sliced: SparseNet, data: Data) -> dict[str, Any]:
    """What a record tells under `cost`: `measure.latency` of both nets as plain modules, on the first test images.

    Plain, since that is what somebody runs who uses the net: in the interspace the filters are computed once. It is no
    part of the outcome, which is the same wherever a run is computed.

    Args:
        dense: the net of the run as it is built.
        sliced: the one that its stages left.
        data: gives the images.

    Returns:
        Nothing in all processes of a training but the first.
    """
    if not distributed.first():
        return {}
    most = max(1, min(BATCH, PASS_PIXELS // (data.shape[1] * data.shape[2])))
    images = next(iter(data.test())).images[:most].clone()
    return measure.latency({"dense": dense.plain(), "sliced": sliced.plain()}, images)
