"""Scores and masks that a program outside of ipbench writes: where they lie, and what of them is taken.

`exchange.py` writes what the program reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ipbench import files, keys, methods
from ipbench.errors import BadInput, BadProduct
from ipbench.machine.distributed import tensors_by_first, together
from ipbench.planning.numerics import numerics
from ipbench.sparse.net import SparseNet
from ipbench.sparse.patterns import selector
from ipbench.spec import COEFFICIENTS, Run, n_of_m
from ipbench.store import MOST_TENSORS, read_json

_AGAIN = "let the rule write it again (delete it, or give `ipbench exchange`, and run the program)"


def folder(results: Path, run: Run) -> Path:
    """Where a run and the program of its method exchange files: `{exchange}` in the rule.

    Args:
        results: the experiment's folder.
        run: which.
    """
    return results / "exchange" / run.cell / str(run.seed)


def scores_path(results: Path, run: Run) -> Path:
    """Where the program writes scores or masks."""
    return folder(results, run) / f"{run.method}.safetensors"


def made_of(run: Run, content: Mapping[str, str]) -> dict[str, str]:
    """What the files of a run are made of: `exchange.json` tells it.

    Args:
        run: whose files.
        content: digests of its images and of the code of its method.
    """
    return {"run": run.id, "numerics": str(numerics(run)), **content}


def external_masks(net: SparseNet, results: Path, content: Mapping[str, str]) -> dict[str, Tensor]:
    """The masks of what a program wrote for the run of a net; of several processes, the first reads it.

    Scores are selected as those of every method, under the run's pattern, allocation and budget, equal ones by the key
    of the first round. Masks are taken as they are, if they are what such a selection could have given.

    Args:
        net: stays as it is; its masks may have been pruned already, and stay out.
        results: the experiment's folder.
        content: digests of the run's images and of the code of its method.

    Raises:
        BadProduct: the file is missing, made for something else, damaged, or does not fit the net or its budget.
        Impossible: the budget cannot be met.
    """
    found = tensors_by_first(lambda: (_read(net, results, content), None))
    assert found is not None
    given = {name: _wide(found[0][name]).to(mask.device) for name, mask in net.masks.items()}
    with together():
        return _selected(net, given, scores_path(results, net.run))


def _selected(net: SparseNet, given: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    run, selects, tie_key = net.run, selector(net), keys.key(net.run.seed, "ties", 1)
    if not _are_masks(given):
        if tied := [name for name, values in given.items() if not bool(values.any())]:
            net.notes["layers_without_scores"] = tied
        return selects.select(given, selects.target, tie_key=tie_key, among=net.masks)
    keep = selects.kept(given)
    exact = run.pattern == COEFFICIENTS or n_of_m(run.pattern) is not None
    if keep > selects.target or (exact and keep < selects.target):
        wanted = "exactly" if exact else "at most"
        raise BadProduct(
            f"{path}: the masks keep {keep:,} {selects.counted}, and sparsity {run.sparsity} in space {run.space} asks"
            f" for {wanted} {selects.target:,}; write scores, or meet facts['budget'] of net.safetensors"
        )
    # Of masks that keep what the pattern keeps as one, and share it as the allocation does, the best are these.
    own = {name: mask.float() for name, mask in given.items()}
    masks = selects.select(own, keep, tie_key=tie_key, among=net.masks)
    for name, mask in masks.items():
        if not torch.equal(mask, given[name]):
            raise BadProduct(
                f"{path}: the mask of layer {name} keeps {int(given[name].sum()):,} coefficients, which is none of"
                f" pattern {run.pattern} under allocation {run.allocation}; write scores, or such masks"
            )
    return masks


def masks_of_nobody(net: SparseNet) -> dict[str, Tensor]:
    """In the place of `external_masks`, where there is no folder of results.

    Raises:
        BadInput: always.
    """
    raise BadInput(f"method {net.run.method}: what its rule writes is found in a folder of results alone")


def _wide(values: Tensor) -> Tensor:
    """Half precision as single, as of every score."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _are_masks(given: Mapping[str, Tensor]) -> bool:
    return all(tensor.dtype == torch.bool for tensor in given.values())


def _read(net: SparseNet, results: Path, content: Mapping[str, str]) -> dict[str, Tensor]:
    """What the program wrote, checked against the net."""
    run = net.run
    path, told = scores_path(results, run), folder(results, run) / "exchange.json"
    try:
        if read_json(told) != made_of(run, content):
            raise BadProduct(
                f"{told}: the net that was written for method {run.method} is of other numerics, images or code of the"
                f" rule than there are now; {_how(run)}"
            )
        given = _tensors(path, files.read(path, MOST_TENSORS))
    except files.Missing as error:
        raise BadProduct(
            f"{error}: method {run.method} is a rule, and has no scores for this run; {_how(run)}"
        ) from None
    _check(given, {name: tuple(mask.shape) for name, mask in net.masks.items()}, path)
    return given


def _how(run: Run) -> str:
    """What to do where there are no scores."""
    file = Path(methods.get(run.method).file).name
    return (
        "let Snakemake run it (`ipbench experiment`), or give `ipbench exchange` with the options of this run, then do"
        f" by hand what {file} does, then give this command"
    )


def _tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors: dict[str, Tensor] = load(content)
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise BadProduct(f"{path}: not readable as safetensors ({type(error).__name__}); {_AGAIN}") from None
    return tensors


def _check(given: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Whether these are a score, or a mask, for every coefficient.

    Raises:
        BadProduct: they are not.
    """
    if missing := [name for name in shapes if name not in given]:
        raise BadProduct(f"{path}: nothing for layer {missing[0]}; it needs {', '.join(shapes)}; {_AGAIN}")
    if unknown := sorted(set(given) - set(shapes)):
        raise BadProduct(f"{path}: there is no layer {unknown[0]!r:.80}; the layers are {', '.join(shapes)}; {_AGAIN}")
    for name, shape in shapes.items():
        tensor = given[name]
        if tuple(tensor.shape) != shape:
            raise BadProduct(f"{path}: layer {name} has the shape {shape}, not {tuple(tensor.shape)}; {_AGAIN}")
        if tensor.dtype not in (torch.bool, torch.float16, torch.bfloat16, torch.float32, torch.float64):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise BadProduct(
                f"{path}: layer {name} is of type {kind}; scores are floating-point numbers of 16, 32 or 64 bits, masks"
                f" are bool; {_AGAIN}"
            )
        if tensor.dtype != torch.bool and (wrong := int((~tensor.isfinite()).sum())):
            raise BadProduct(f"{path}: {wrong:,} scores of layer {name} are not finite; {_AGAIN}")
    if len({tensor.dtype == torch.bool for tensor in given.values()}) > 1:
        raise BadProduct(f"{path}: some layers have scores and some have masks; write either for all; {_AGAIN}")
