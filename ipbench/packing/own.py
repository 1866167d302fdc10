"""A pruned net of a user's own as one small file, format 3; docs/packed-format.md describes it.

The net is not in the catalogue: the file names it by a digest of its structure, and whoever reads it brings the module.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from ipbench.errors import BadInput, BadProduct, valid_choice
from ipbench.packing import mask_code
from ipbench.packing.file import (
    CHECKSUM,
    FIXED,
    LARGEST_HEADER,
    MAGIC,
    OWN,
    VALUES,
    Side,
    Sizes,
    Whole,
    coded_units,
    header_of,
    opened,
    units_kept,
)
from ipbench.packing.tensors import (
    bases_of,
    bytes_of,
    check_finite,
    check_fits,
    masks_taken,
    others_of,
    rest_taken,
    taken,
)
from ipbench.sparse.example import Example
from ipbench.sparse.net import SparseNet
from ipbench.sparse.slicing import Cut, slice_net
from ipbench.spec import Recipe, Run, Value, build, canonical_json
from ipbench.store import write_bytes
from ipbench.tasks import Task

#: Of a run, what a file tells of how the net was pruned.
_OF_RUN = ("method", "space", "off", "sparsity", "allocation", "pattern", "budget", "seed")


class OwnHeader(Value):
    """What stands before the masks.

    Attributes:
        net: the digest of the structure.
        kind: the name of the net's class, for messages.
        tensors: parameters and buffers of the net, in number.
        run: how it was pruned.
        values: how kept coefficients are stored.
        layers: kept coefficients, remainder bits and bytes of the mask, as in formats 1 and 2.
        left_out: layers that are not pruned, with reasons.
        reached: the sparsity.
        whole: groups of channels that cannot be removed, with reasons.
        cut: by tensor and axis, how many indices there are and which of them `slice` leaves, as `coded_units`.
    """

    net: str
    kind: str
    tensors: Whole
    run: dict[str, Any]
    values: str
    layers: tuple[tuple[Whole, Whole, Whole], ...]
    left_out: dict[str, str] = Field(default_factory=dict)
    reached: float = 0.0
    whole: dict[str, str] = Field(default_factory=dict)
    cut: dict[str, dict[str, tuple[Side, str]]] = Field(default_factory=dict)


def structure_digest(net: nn.Module) -> str:
    """32 hex digits of what a plain net is made of: names and kinds of modules; names, shapes and types of tensors.

    Tensors that have several names stand under all of them, so that tied weights are told from separate ones.

    Args:
        net: a plain module.
    """
    modules = [[path, type(module).__name__] for path, module in net.named_modules(remove_duplicate=False)]
    known: dict[int, str] = {}
    tensors = []
    for kind, named in (("parameter", net.named_parameters), ("buffer", net.named_buffers)):
        for name, tensor in sorted(named(remove_duplicate=False), key=lambda pair: pair[0]):
            tensors.append([kind, name, known.setdefault(id(tensor), name), list(tensor.shape), str(tensor.dtype)])
    text = canonical_json({"modules": sorted(modules), "tensors": tensors})
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def pack(path: Path, net: SparseNet, cut: Cut, facts: Mapping[str, Any], values: str) -> Sizes:
    """Write a net atomically; what its masks leave out has its off-value.

    Args:
        path: of the file.
        net: dense in its shapes, on any device.
        cut: of the channels that its masks remove.
        facts: `left_out`, `reached` and `whole` of the header.
        values: how kept coefficients are stored, one of `VALUES`.

    Raises:
        BadInput: an unknown type of values; a value that is not finite, or not in that type; a header that is too long.
    """
    kind = VALUES[valid_choice(values, VALUES, "type of values", "save: values")]
    kept = {name: c.detach()[net.masks[name]].cpu() for name, c in net.coefficients.items()}
    frozen = _frozen(net, {name: c.detach().cpu() for name, c in net.coefficients.items()}, _on_cpu(net.masks))
    others, bases = _on_cpu(others_of(net)), _on_cpu(bases_of(net))
    for name, tensor in (*kept.items(), *frozen.items(), *bases.items(), *others.items()):
        check_fits(name, tensor, tensor.dtype)
    for name, tensor in kept.items():
        check_fits(name, tensor, kind)
    codes = {name: mask_code.encode(mask.flatten().cpu().numpy(), True) for name, mask in net.masks.items()}
    layers = [[len(kept[name]), bits, len(code)] for name, (bits, code) in codes.items()]
    plain = net.plain()
    text = canonical_json(_header(net, plain, cut, dict(facts), values, layers)).encode()
    if len(text) > LARGEST_HEADER:
        raise BadInput(f"{path}: its header would take {len(text):,} bytes; at most {LARGEST_HEADER:,} are written")
    parts = {
        "header": MAGIC + OWN.to_bytes(2, "little") + len(text).to_bytes(4, "little") + text,
        "masks": b"".join(code for _, code in codes.values()),
        "values": b"".join(bytes_of(tensor.to(kind)) for tensor in kept.values()),
        "frozen values": b"".join(map(bytes_of, frozen.values())),
        "filter bases": b"".join(map(bytes_of, bases.values())),
        "biases, norms, buffers": b"".join(map(bytes_of, others.values())),
    }
    content = b"".join(parts.values())
    write_bytes(path, content + hashlib.sha256(content).digest())
    lengths = {name: len(part) for name, part in parts.items()} | {"checksum": CHECKSUM}
    dense = sum(parameter.numel() for parameter in plain.parameters())
    stored = sum(map(len, kept.values())) + net.basis_entries + dense - net.prunable
    zeroed = sum(int(((tensor != 0) & (tensor.to(kind) == 0)).sum()) for tensor in kept.values())
    return Sizes(lengths, 4 * dense, dense, stored, zeroed)


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in tensors.items()}


def _frozen(net: SparseNet, values: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What masks leave out where it is not zero: no seed gives the start of a net of a user's own."""
    return {} if net.run.off == "zero" else {name: values[name][~mask] for name, mask in masks.items()}


def _header(
    net: SparseNet, plain: nn.Module, cut: Cut, facts: dict[str, Any], values: str, layers: list[list[int]]
) -> dict[str, Any]:
    run = {name: getattr(net.run, name) for name in _OF_RUN}
    run |= {"basis": net.run.basis.differences(), "options": dict(net.run.options)}
    coded = {
        name: {str(axis): coded_units(cut.shapes[name][axis], kept.tolist()) for axis, kept in axes.items()}
        for name, axes in cut.kept.items()
    }
    return {
        "net": structure_digest(plain),
        "kind": type(plain).__name__,
        "tensors": _number(plain),
        "run": run,
        "values": values,
        "layers": layers,
        "cut": coded,
        **facts,
    }


def _number(net: nn.Module) -> int:
    return len(list(net.named_parameters())) + len(list(net.named_buffers()))


def unpack(path: Path, model: nn.Module, example: Example, task: Task) -> tuple[SparseNet, Cut, dict[str, Any]]:
    """The net of a file, on the CPU.

    Args:
        path: of the file.
        model: of the same structure; stays as it is.
        example: of the net.
        task: of the net.

    Returns:
        The net, the cut of its channels, and the facts that `pack` was given.

    Raises:
        BadInput: the model has another structure.
        BadProduct: the file is missing, truncated, altered, of another format, or claims what cannot be.
    """
    with opened(path) as (file, size):
        header, length = header_of(path, file, size, {OWN: OwnHeader})
        _check_same(path, header, model)
        net = _fresh(path, header, model, example, task)
        cut = _cut_of(path, header, model)
        _check_size(path, header, net, length, size)
        file.seek(FIXED + length)
        body = file.read(size - FIXED - length - CHECKSUM)
    try:
        masks, tensors = _contents(net, header, body)
    except ValueError as error:
        raise BadProduct(f"{path}: does not hold a {header.kind}: {error}") from None
    check_finite(path, tensors)
    net.load_tensors(tensors)
    net.masks = masks
    net.start = {name: c.detach().clone() for name, c in net.coefficients.items()}
    return net, cut, {"left_out": header.left_out, "reached": header.reached, "whole": header.whole}


def _check_same(path: Path, header: OwnHeader, model: nn.Module) -> None:
    """Raise `BadInput` if a module is not of the structure that a file was written of."""
    if structure_digest(model) != header.net:
        raise BadInput(
            f"{path}: holds a {header.kind:.80} of {header.tensors} tensors, and the model is a"
            f" {type(model).__name__} of {_number(model)}: names and kinds of modules, names, shapes and types of"
            " tensors have to be the same"
        )


def _fresh(path: Path, header: OwnHeader, model: nn.Module, example: Example, task: Task) -> SparseNet:
    """The net in its space, with the model's own values.

    Raises:
        BadProduct: the header tells no run, or layers that the model has not.
    """
    values = {**header.run, "dataset": "own", "model": "own", "recipe": Recipe()}
    try:
        run = build(Run, values, f"{path}: header: run")
        net = SparseNet(copy.deepcopy(model).cpu(), run, example, task=task, left_out=header.left_out)
    except BadInput as error:
        raise BadProduct(f"{path}: {error}") from None
    if header.values not in VALUES or run.off not in ("zero", "frozen"):
        raise BadProduct(f"{path}: its values are of type {header.values!r:.40}; valid: {', '.join(VALUES)}")
    if len(header.layers) != len(net.masks):
        raise BadProduct(f"{path}: {len(header.layers)} layers, where the model has {len(net.masks)}")
    return net


def _cut_of(path: Path, header: OwnHeader, model: nn.Module) -> Cut:
    """What is left of a net when it is sliced.

    Raises:
        BadProduct: the model cannot be cut so.
    """
    try:
        told = {name: units_kept(axes) for name, axes in header.cut.items()}
        kept = {name: {int(axis): np.array(found[1]) for axis, found in axes.items()} for name, axes in told.items()}
        named: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        shapes = {name: tuple(named[name].shape) if name in named else (axes["0"][0],) for name, axes in told.items()}
        for name, axes in told.items():
            if any(shapes[name][int(axis)] != side for axis, (side, _) in axes.items()):
                raise ValueError(f"{name:.80} has other sides")
        cut = Cut(kept, shapes)
        slice_net(copy.deepcopy(model).to("meta"), cut)
    except (BadInput, ValueError, LookupError) as error:
        raise BadProduct(f"{path}: does not hold a {header.kind:.80} that can be cut: {error!s:.200}") from None
    return cut


def _check_size(path: Path, header: OwnHeader, net: SparseNet, length: int, size: int) -> None:
    """Raise `BadProduct` unless the header's claims fit the net and the bytes of the file."""
    total = FIXED + length + CHECKSUM
    for (name, mask), (count, bits, coded) in zip(net.masks.items(), header.layers, strict=True):
        if not mask_code.valid(bits, mask.numel(), count, coded, True):
            raise BadProduct(
                f"{path}: layer {name}: {coded} bytes with {bits} remainder bits are not a code of {count} in"
                f" {mask.numel()}"
            )
        width = net.coefficients[name].element_size() if net.run.off != "zero" else 0
        total += coded + count * VALUES[header.values].itemsize + (mask.numel() - count) * width
    for tensor in (*bases_of(net).values(), *others_of(net).values()):
        total += tensor.numel() * tensor.element_size()
    if total != size:
        raise BadProduct(
            f"{path}: does not hold a {header.kind:.80}: it {'ends too early' if total > size else 'is too long'}"
        )


def _contents(net: SparseNet, header: OwnHeader, body: bytes) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Masks and tensors behind a header.

    Raises:
        ValueError: the bytes of a mask are not those of one.
    """
    stream = BytesIO(body)
    masks = masks_taken(stream, net, header.layers)
    kind, places = VALUES[header.values], {id(c): name for name, c in net.net.named_parameters()}
    found = {name: torch.zeros_like(c) for name, c in net.coefficients.items()}
    for (name, values), (count, _, _) in zip(found.items(), header.layers, strict=True):
        values[masks[name]] = taken(stream, kind, (count,)).to(values.dtype)
    if net.run.off != "zero":
        for name, values in found.items():
            values[~masks[name]] = taken(stream, values.dtype, (math.prod(values.shape) - int(masks[name].sum()),))
    tensors = {places[id(c)]: found[name] for name, c in net.coefficients.items()}
    return masks, {**net.tensors(), **tensors, **rest_taken(stream, net)}  # bases not trained are in no file
