"""A trained net as a small dense one, without dead channels: plain tensors, and how its model is cut.

Two files: `NAME.safetensors` has the state of the plain torch module (spatial weights, whatever the space), `NAME.json`
tells the model, the shape of its images, its classes, and of every tensor that is smaller than in the dense model the
indices that are left. Nothing is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn

from ipbench.data import catalog as datasets
from ipbench.errors import BadInput, BadProduct, valid_choice
from ipbench.models import catalog as models
from ipbench.models.build import build as build_model
from ipbench.models.build import outline as outline_model
from ipbench.packing.onnx_file import onnx_content
from ipbench.runs.state import End
from ipbench.sparse.dead import Constant
from ipbench.sparse.net import SparseNet
from ipbench.sparse.slicing import Cut, plan, slice_net
from ipbench.spec import Run
from ipbench.store import json_content, read_json, read_tensors, tensors_content, tensors_digest, write_together

#: What the suffixes of the two files are.
TENSORS, FACTS = ".safetensors", ".json"
_KIND = "sliced net"
#: A number of classes, and of values of an image, that no model here has.
_MOST = 2**22


def constant_of(word: str, where: str) -> Constant:
    """A word as what becomes of the constants of channels without filters.

    Raises:
        BadInput: it is none.
    """
    valid_choice(word, get_args(Constant), "constant", where)
    return cast(Constant, word)


def save(path: Path, run: Run, end: End, *, constant: Constant = "drop", onnx: Path | None = None) -> SparseNet:
    """Cut the dead channels of a trained net, and write what is left.

    Args:
        path: of the two files, with or without one of their suffixes.
        run: that was trained.
        end: of that run.
        constant: what becomes of the constants of channels without filters, see `SparseNet.slice`.
        onnx: where to write the net in ONNX as well.

    Returns:
        The net that was written.

    Raises:
        BadInput: a constant is refused, a value is not finite, or ONNX cannot be written; nothing is written then.
        BadProduct: the end is not of this run.
    """
    if onnx and onnx.resolve() in [file.resolve() for file in files_of(path)]:
        raise BadInput(f"{onnx}: the net in ONNX cannot have the name of one of the two files of {path}")
    net = _cut(path, run, end, constant)
    plain = net.plain().eval()
    state = plain.state_dict()
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise BadInput(f"{name} holds values that are not finite")
    contents = {
        _named(path, TENSORS): tensors_content(state, {"kind": _KIND}),
        _named(path, FACTS): json_content(_facts(net) | {"tensors_sha256": tensors_digest(state)}),
    }
    if onnx:
        contents[onnx] = onnx_content(plain, net.shape)
    write_together(contents)
    return net


def _cut(path: Path, run: Run, end: End, constant: Constant) -> SparseNet:
    """The net of a run's end without its dead channels."""
    facts = datasets.dataset(run.dataset)
    made = build_model(run.model, facts.shape, facts.classes, run.seed, run.recipe.init, run.own)
    net = SparseNet(made, run, facts.shape)
    try:
        net.restore(end.structure, end.net, end.masks)
    except ValueError as error:
        raise BadProduct(f"{path}: not the end of a {run.model} in space {run.space}: {error}") from None
    net.slice(constant)
    return net


def _facts(net: SparseNet) -> dict[str, Any]:
    """What stands beside the tensors."""
    run = net.run
    cut = plan(net.groups, net.structure.removed(net.groups)) if net.structure else Cut({}, {})
    return {
        "kind": _KIND,
        "dataset": run.dataset,
        "model": run.model,
        "run": run.id,
        "shape": list(net.shape),
        "classes": datasets.dataset(run.dataset).classes,
        "structure": net.structure.to_json(),
        "cut": cut.to_json(),
        "parameters": net.now.parameters,
        "parameters_dense": net.counted.parameters,
        "macs": net.now.macs,
        "macs_dense": net.counted.macs,
    }


def load(path: Path) -> nn.Module:
    """The small dense net that `save` wrote, on the CPU, in evaluation mode.

    Args:
        path: of the two files, with or without one of their suffixes.

    Raises:
        BadProduct: a file is missing, truncated, altered, or does not fit the other one or the model.
    """
    facts, tensors = _named(path, FACTS), _named(path, TENSORS)
    told = read_json(facts)
    try:
        shape, classes, cut = _claims(told)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
        raise BadProduct(f"{facts}: not what `ipbench slice` writes") from None
    state, _ = read_tensors(tensors)
    if tensors_digest(state) != told["tensors_sha256"]:
        raise BadProduct(f"{tensors}: not the tensors that {facts} was written with")
    try:
        models.check(told["model"])
        _check(outline_model(told["model"], shape, classes), cut, state)
        net = build_model(told["model"], shape, classes, 0)
        slice_net(net, cut)
        net.load_state_dict(state)
    except (BadInput, ValueError, RuntimeError) as error:
        line = " ".join(str(error).split())
        raise BadProduct(f"{facts}: its net cannot be built here: {line:.300}") from None
    return net.eval()


def _claims(told: Mapping[str, Any]) -> tuple[tuple[int, int, int], int, Cut]:
    """Shape, classes and cut of a file of facts.

    Raises:
        ValueError: they are not of their kinds; so do the errors that Python has for other structures.
    """
    channels, height, width = told["shape"]
    classes, cut = told["classes"], Cut.from_json(told["cut"])
    whole = all(type(number) is int and number > 0 for number in (channels, height, width, classes))
    if told["kind"] != _KIND or not whole or max(channels * height * width, classes) > _MOST:
        raise ValueError
    if not isinstance(told["model"], str) or not isinstance(told["tensors_sha256"], str):
        raise ValueError
    for name, axes in cut.kept.items():
        for axis, indices in axes.items():
            rising = indices.ndim == 1 and len(indices) > 0 and bool((indices[1:] > indices[:-1]).all())
            if axis < 0 or not rising or indices[0] < 0 or indices[-1] >= cut.shapes[name][axis]:
                raise ValueError
    return (channels, height, width), classes, cut


def _check(dense: nn.Module, cut: Cut, state: Mapping[str, Tensor]) -> None:
    """Whether tensors are those of a model that is cut like this, before that model is built.

    Args:
        dense: the model without values.
        cut: what is left of it.
        state: what was read.

    Raises:
        BadInput: they are not.
    """
    slice_net(dense, cut)
    wanted = {name: tuple(tensor.shape) for name, tensor in dense.state_dict().items()}
    if wanted != {name: tuple(tensor.shape) for name, tensor in state.items()}:
        raise BadInput("its tensors have other shapes than its model")


def files_of(path: Path) -> tuple[Path, Path]:
    """The two files of a net, its tensors and its facts; `path` with or without one of their suffixes.

    Raises:
        BadInput: the path is that of a folder.
    """
    return _named(path, TENSORS), _named(path, FACTS)


def _named(path: Path, suffix: str) -> Path:
    """One of the two files of a net."""
    base = path.with_suffix("") if path.suffix in (TENSORS, FACTS) else path
    if not base.name:
        raise BadInput(f"{path}: is a folder; a file to write in it is wanted, such as {path / 'net'}")
    return base.with_name(base.name + suffix)
