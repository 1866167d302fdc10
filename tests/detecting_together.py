"""One of the processes that train a tiny detector together: python -m tests.detecting_together NAME RANK WORLD PORT."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

import torch

from ipbench.data.loaders import Batch
from ipbench.machine import distributed
from ipbench.sparse.net import SparseNet
from ipbench.spec import Recipe
from ipbench.training.loop import Progress, evaluate, train
from tests.scenes import DETECTORS, SHAPE, TinyScenes, batch, frozen_norms
from tests.tiny import make_run


class Shared(TinyScenes):
    """Of every batch, the part of a process."""

    def train(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        return self._mine(super().train(epoch, skip))

    def _mine(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for whole in batches:
            numbers = torch.tensor_split(whole.indices, distributed.processes())[distributed.rank()]
            yield batch(*numbers.tolist())

    def test(self) -> Iterator[Batch]:
        return self._mine(iter(self.batches))

    validation = test


def main(name: str, rank: int, world: int, port: int) -> None:
    """Train two epochs and print losses and metrics."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with distributed.joined("cpu"):
        recipe = Recipe(epochs=2, batch_size=4, lr=0.01, schedule="constant")
        run = make_run(dataset="fashion-scenes", model="retinanet-small", method="dense", recipe=recipe, space="ip")
        net = SparseNet(frozen_norms(DETECTORS[name](), stem=False), run, SHAPE)  # batch norm would see a part alone
        for part in net.modules():
            if hasattr(part, "score_thresh"):
                part.score_thresh = 0.0  # or such a short training finds nothing
        data, progress = Shared(), Progress()
        train(net, data, recipe, progress)
        found = evaluate(net, data.test(), recipe, lambda: data.truth("test"))
        print(json.dumps([progress.curves["train_loss"], found.loss, found.primary, found.others["map_50"]]))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
