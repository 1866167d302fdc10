"""What a run's spec names, built: its data, its net with the initial values, and the digests of both."""

from __future__ import annotations

import sys
from functools import cache
from importlib import metadata

import torch
from torch import Tensor

from ipbench import methods, output
from ipbench.data import digest
from ipbench.data import own as own_data
from ipbench.data.loaders import Data
from ipbench.machine import distributed
from ipbench.models.build import build as build_model
from ipbench.models.catalog import TIMM
from ipbench.models.initialise import initialise
from ipbench.runs.controls import initial_seed
from ipbench.runs.environment import Environment, channels_last
from ipbench.sparse.net import SparseNet
from ipbench.sparse.slicing import plan, slice_net
from ipbench.spec import Run


def open_data(run: Run, environment: Environment) -> Data:
    """What a run reads; of several processes each reads its part.

    Raises:
        BadInput: a user's data set is not known here, or has changed; besides, what `Data` raises.
    """
    own_data.check(run.dataset, run.own.data)
    return Data(
        run.dataset,
        run.recipe,
        run.seed,
        root=environment.root,
        loader=environment.loader,
        workers=environment.workers,
        device=environment.device,
        channels_last=channels_last(run.mode, environment),
        rank=distributed.rank(),
        world=distributed.processes(),
    )


def tell_notes(data: Data) -> None:
    """Say what of a data set is not as in its files, once in a process."""
    for split, note in data.notes.items():
        if distributed.first():
            _say_once(f"ipbench: {data.name}, {split} part: {note}")


@cache
def _say_once(text: str) -> None:
    output.complain(text)


def content(run: Run, environment: Environment) -> dict[str, str]:
    """What a run's names stand for here: the digests of its images and, of a user's method, of its code."""
    code = methods.code(run.method)
    images = digest.of(run.dataset, environment.root, environment.loader)
    return {"data": images, **({"method": code.sha256} if code else {})}


def of_the_model(run: Run) -> dict[str, str]:
    """What a record tells of a model that is a user's, or timm's."""
    told = {"model": run.own.code, "weights": run.own.weights, "timm": ""}
    if run.net.startswith(TIMM) or (run.own.code and "timm" in sys.modules):
        told["timm"] = metadata.version("timm")
    return {name: value for name, value in told.items() if value}


def build_net(run: Run, data: Data, environment: Environment) -> SparseNet:
    """The net of a run with its initial values, in the run's space and on the device."""
    made = build_model(run.model, data.shape, data.classes, initial_seed(run), run.recipe.init, run.own)
    net = SparseNet(made, run, data.shape)
    net = net.to(environment.device)
    return net.to(memory_format=torch.channels_last) if channels_last(run.mode, environment) else net


def initial_values(net: SparseNet, data: Data) -> dict[str, Tensor]:
    """Parameters and buffers of a net that was cut, as they are where a net of these widths is built and initialised.

    The variance of a weight follows from the number of its layer's inputs, of which a cut net has fewer.
    """
    run, seed = net.run, initial_seed(net.run)
    made = build_model(run.model, data.shape, data.classes, seed, run.recipe.init, run.own)
    slice_net(made, plan(net.groups, net.structure.removed(net.groups)))
    initialise(made, seed, run.recipe.init)
    return SparseNet(made, run, data.shape).tensors()
