"""A trained sparse net as one small file: what training changed, and the seed for all the rest.

docs/packed-format.md describes the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parametrize

from ipbench.data import catalog as datasets
from ipbench.errors import BadInput, BadProduct, valid_choice
from ipbench.methods import FRESH
from ipbench.models.build import build as build_model
from ipbench.packing import mask_code as sparse_code
from ipbench.packing.file import (
    CHECKSUM,
    MAGIC,
    VALUES,
    Header,
    Sizes,
    SlicedHeader,
    claims,
    coded_units,
    opened,
    plausible,
    read,
    run_of,
    too_large,
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
from ipbench.runs.state import End
from ipbench.sparse.net import SparseNet
from ipbench.sparse.spaces import plain_name
from ipbench.sparse.structure import Structure
from ipbench.spec import Run, canonical_json
from ipbench.store import tensors_digest, write_bytes


def pack(path: Path, run: Run, end: End, values: str = "fp32") -> Sizes:
    """Write a packed net atomically.

    Args:
        path: of the file.
        run: that was trained.
        end: of that run.
        values: how kept coefficients are stored, one of `VALUES`; everything else stays as it is.

    Raises:
        BadInput: an unknown type of values; a value that is not finite, or not in that type; a net that is too large;
            what is masked has initial values that follow from no seed.
        BadProduct: the end is not of this run.
    """
    if run.off != "zero" and run.control in FRESH:
        raise BadInput(
            f"{path}: a run of control {run.control} whose masked coefficients are {run.off}: their initial values are"
            " drawn anew, and a packed file tells a seed alone; take off zero"
        )
    kind = VALUES[valid_choice(values, VALUES, "type of values", "--values")]
    net = _fresh(run)
    start_digest = tensors_digest(net.start)
    faded = _restored(path, net, end)
    kept = {name: c.detach()[net.masks[name]] for name, c in net.coefficients.items()}
    for name, tensor in (*kept.items(), *bases_of(net).items(), *others_of(net).items()):
        check_fits(name, tensor, tensor.dtype)
    for name, tensor in kept.items():
        check_fits(name, tensor, kind)
    codes = {name: sparse_code.encode(mask.flatten().numpy(), bool(net.structure)) for name, mask in net.masks.items()}
    layers = [[len(kept[name]), bits, len(code)] for name, (bits, code) in codes.items()]
    header = _header(run, values, layers, faded, start_digest) | _cuts(net)
    parts = {
        "header": _beginning(header),
        "masks": b"".join(code for _, code in codes.values()),
        "values": b"".join(bytes_of(tensor.to(kind)) for tensor in kept.values()),
        "filter bases": b"".join(map(bytes_of, bases_of(net).values())),
        "biases, norms, buffers": b"".join(map(bytes_of, others_of(net).values())),
    }
    zeroed = sum(int(((tensor != 0) & (tensor.to(kind) == 0)).sum()) for tensor in kept.values())
    return _written(path, net, parts, sum(map(len, kept.values())), zeroed)


def _restored(path: Path, net: SparseNet, end: End) -> float:
    """Bring a new net to where a run ended; returns what is left of the initial values outside the masks.

    Raises:
        BadProduct: the end is not of this net, or what its masks leave out has not its off-value.
    """
    try:
        net.restore(end.structure, end.net, end.masks)
    except (BadInput, ValueError):
        run = net.run
        raise BadProduct(f"{path}: the tensors to pack are not those of a {run.model} in space {run.space}") from None
    faded = _faded(net, end)
    if faded is None:
        raise BadProduct(f"{path}: what the masks leave out does not have its off-value; it cannot be packed")
    return faded


def _beginning(header: Mapping[str, Any]) -> bytes:
    """All that stands before the masks."""
    text = canonical_json(dict(header)).encode()
    version = 2 if "structure" in header else 1
    return MAGIC + version.to_bytes(2, "little") + len(text).to_bytes(4, "little") + text


def _written(path: Path, net: SparseNet, parts: Mapping[str, bytes], kept: int, zeroed: int) -> Sizes:
    """Write the parts of a file and their checksum; returns their sizes."""
    content = b"".join(parts.values())
    dense = net.counted.parameters
    if not plausible(dense, len(content) + CHECKSUM):
        raise BadInput(too_large(path, net.run.model, dense, len(content) + CHECKSUM))
    write_bytes(path, content + hashlib.sha256(content).digest())
    lengths = {name: len(part) for name, part in parts.items()} | {"checksum": CHECKSUM}
    maskable = sum(mask.numel() for mask in net.masks.values())
    others = sum(parameter.numel() for parameter in net.net.parameters()) - maskable - net.basis_entries
    return Sizes(lengths, 4 * dense, dense, kept + net.basis_entries + others, zeroed)


def _cuts(net: SparseNet) -> dict[str, Any]:
    """What a header says of the channels that are cut; nothing of a net of which none is."""
    if not net.structure:
        return {}
    structure = {name: coded_units(net.groups[name].units, units) for name, units in net.structure.kept.items()}
    return {"structure": structure, "shapes": {name: list(shape) for name, shape in _smaller(net).items()}}


def _smaller(net: SparseNet) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors that a cut has made smaller, by their names in the plain net."""
    shapes = {plain_name(name): tuple(tensor.shape) for name, tensor in net.tensors().items()}
    dense = net.groups.shapes
    return {name: shape for name, shape in shapes.items() if name in dense and shape != dense[name]}


def _header(run: Run, values: str, layers: list[list[int]], faded: float, start: str) -> dict[str, Any]:
    header = {
        "dataset": run.dataset,
        "model": run.model,
        "run": run.id,
        "seed": run.seed,
        "init": run.recipe.init,
        "space": run.space,
        "values": values,
        "layers": layers,
    }
    if basis := run.basis.differences():
        header["basis"] = basis
    if run.off != "zero":
        # The start is drawn anew when the file is read: this tells whether that machine draws the same.
        header |= {"off": "frozen", "faded": faded, "start": start[:32]}
    return header


def unpack(path: Path) -> SparseNet:
    """The net of a packed file, on the CPU: the same outputs, bit for bit, as the net that was packed with fp32 values.

    Raises:
        BadProduct: the file is missing, truncated, altered, of another version, or its net cannot be built here.
    """
    header, body = read(path)
    net = _fresh(run_of(header))
    if header.off != "zero" and tensors_digest(net.start)[:32] != header.start:
        raise BadProduct(
            f"{path}: the initial values drawn here are not those of the machine that packed it; try its torch version"
        )
    _cut(path, net, header)
    try:
        masks, tensors = _contents(net, header, body)
    except ValueError as error:
        raise BadProduct(f"{path}: does not hold a {header.model}: {error}") from None
    check_finite(path, tensors)
    net.restore(net.structure, tensors, masks, header.faded)
    return net.eval()


def _cut(path: Path, net: SparseNet, header: Header) -> None:
    """Cut a new net to what the header says is left of it.

    Raises:
        BadProduct: it has no such channels, or its tensors would be of other shapes than the header says.
    """
    if not isinstance(header, SlicedHeader):
        return
    told = units_kept(header.structure)
    try:
        structure = Structure({name: kept for name, (_, kept) in told.items()})
        structure.check(net.groups)
        if wrong := [name for name, (units, _) in told.items() if net.groups[name].units != units]:
            raise ValueError(f"channel group {wrong[0]} has {net.groups[wrong[0]].units} units")
        net.cut(structure)
        if _smaller(net) != header.shapes:
            raise ValueError("its structure leaves tensors of other shapes than the header says")
    except (BadInput, ValueError) as error:
        raise BadProduct(f"{path}: does not hold a {header.model}: {error}") from None


def _contents(net: SparseNet, header: Header, body: bytes) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Masks and tensors that a file holds behind its header.

    Args:
        net: with the header's structure; what it started from is the off-value.
        header: of the file.
        body: as long as the header says.

    Raises:
        ValueError: the bytes of a mask are not those of one.
    """
    stream = BytesIO(body)
    masks = masks_taken(stream, net, header.layers)
    kind, places = VALUES[header.values], {id(c): name for name, c in net.net.named_parameters()}
    tensors = {}
    for (name, c), (count, _, _) in zip(net.coefficients.items(), header.layers, strict=True):
        values = net.off_values(name, header.faded)
        values[masks[name]] = taken(stream, kind, (count,)).to(c.dtype)
        tensors[places[id(c)]] = values
    return masks, {**net.tensors(), **tensors, **rest_taken(stream, net)}  # bases not trained are in no file


def inspect(path: Path) -> tuple[dict[str, Any], Sizes]:
    """The header of a packed file, and its bytes by part; the net itself is not built.

    Raises:
        BadProduct: the file is missing, truncated, altered, of another version, or claims what cannot be.
    """
    with opened(path) as (file, size):
        header, sizes = claims(path, file, size)
    return header.model_dump(), sizes


def plain_state(net: SparseNet) -> dict[str, Tensor]:
    """The state of the plain torch module, spatial weights in place of coefficients and FBs: for anyone's use."""
    state = {
        key: value.detach() for key, value in net.net.state_dict().items() if ".parametrizations." not in f".{key}"
    }
    for path, module in net.net.named_modules(remove_duplicate=False):
        for parameter in module.parametrizations if parametrize.is_parametrized(module) else ():
            key = f"{path}.{parameter}" if path else parameter
            state[key] = getattr(module, parameter).detach()
    return state


def _fresh(run: Run) -> SparseNet:
    facts = datasets.dataset(run.dataset)
    net = build_model(run.model, facts.shape, facts.classes, run.seed, run.recipe.init)
    return SparseNet(net, run, facts.shape)


def _faded(net: SparseNet, end: End) -> float | None:
    """What is left of the initial values outside the masks; None if nothing gives what is there, bit for bit."""
    if net.run.off != "decayed" or not (factors := _factors(net, end)):
        factors = [1.0]
    now = {name: c.detach() for name, c in net.coefficients.items()}
    for factor in factors:
        if all(torch.equal(now[name][~mask], net.off_values(name, factor)[~mask]) for name, mask in net.masks.items()):
            return factor
    return None


def _factors(net: SparseNet, end: End) -> list[float]:
    """The factor that the end tells; for one of version 0.1.0, those that rounding may have made to what is there."""
    if "faded" in end.facts:
        return [end.facts["faded"]]
    pairs = []
    for name, c in net.coefficients.items():
        start = net.start[name].masked_fill(net.masks[name], 0).flatten()
        place = start.abs().argmax()
        pairs.append((float(start[place]), float(c.detach().flatten()[place])))
    start_value, now = max(pairs, key=lambda pair: abs(pair[0]))
    if not start_value:
        return []
    quotient = np.float32(now / start_value)
    steps = quotient + np.arange(-4, 5, dtype=np.float32) * np.spacing(quotient)
    return [float(step) for step in sorted(steps, key=lambda step: abs(step - quotient))]
