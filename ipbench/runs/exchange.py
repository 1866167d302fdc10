"""What the program of a rule reads of a run: the net and the score batch, as safetensors."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ipbench import keys, methods
from ipbench.data.loaders import Batch
from ipbench.errors import BadInput
from ipbench.machine.precision import full_precision
from ipbench.runs.building import build_net, content, open_data
from ipbench.runs.environment import Environment, begin_anew
from ipbench.runs.execute import execute
from ipbench.runs.external import folder, made_of, scores_path
from ipbench.runs.records import end_path
from ipbench.runs.state import read_end
from ipbench.runs.trials import check_share
from ipbench.sparse.net import SparseNet
from ipbench.sparse.patterns import Selector, selector
from ipbench.sparse.scoring import take
from ipbench.sparse.selection import Impossible
from ipbench.sparse.view import NetView
from ipbench.spec import Run
from ipbench.store import write_json, write_tensors


def write_exchange(run: Run, results: Path, environment: Environment) -> Path:
    """Write `net.safetensors`, `batch.safetensors` and, of what they are made, `exchange.json`; returns their folder.

    Scores that are there are removed: they are of what was there before. If the run continues another one, that one is
    executed first, unless it is finished.

    Args:
        run: of a method that is a rule.
        results: the experiment's folder.
        environment: where and how.

    Raises:
        BadInput: the method is none that is a rule.
    """
    stage = external_stage(run)
    parent = next(iter(methods.line(run)), None)
    if parent:
        execute(parent, results, environment, keep=True)
    begin_anew(run, environment)
    data = open_data(run, environment)
    there = content(run, environment)
    net = build_net(run, data, environment)
    check_share(net, data)
    if parent:
        end = read_end(end_path(results, parent), parent, there)
        net.restore(end.structure, end.net, end.masks)
    batch = data.score_batch(per_class=stage.per_class or None)
    with full_precision():
        tensors, facts = _net(net, batch)
    place = folder(results, run)
    scores_path(results, run).unlink(missing_ok=True)
    write_tensors(place / "net.safetensors", tensors, facts)
    write_tensors(place / "batch.safetensors", {"images": batch.images, "labels": batch.labels}, {})
    write_json(place / "exchange.json", made_of(run, there))
    return place


def external_stage(run: Run) -> methods.External:
    """The stage of a run that takes what a program writes.

    Raises:
        BadInput: there is none.
    """
    method = methods.get(run.method)
    found = [stage for stage in method.stages(run.options) if isinstance(stage, methods.External)]
    if not found:
        raise BadInput(f"method {method.name}: is no rule, so that there is no program to write anything for")
    return found[0]


def _net(net: SparseNet, batch: Batch) -> tuple[dict[str, Tensor], dict[str, object]]:
    """The net as tensors and facts; docs/adding-a-method.md lists them."""
    run, selects = net.run, selector(net)
    plain = net.plain()
    prunable = set(net.weights.values())
    others = {**dict(plain.named_parameters()), **dict(plain.named_buffers())}
    groups = {
        "coefficients": {name: c.detach() for name, c in net.coefficients.items()},
        "filters": {name: layer.weight.detach() for name, layer in net.layers.items()},
        "gradients": take(_gradients, "gradients", net, batch, {}),
        "masks": {} if all(bool(mask.all()) for mask in net.masks.values()) else net.masks,
        "others": {name: tensor.detach() for name, tensor in others.items() if name not in prunable},
    }
    tensors = {f"{group}/{name}": tensor for group, values in groups.items() for name, tensor in values.items()}
    return tensors, {
        "layers": list(net.masks),
        "weights": net.weights,
        "model": run.model,
        "sparsity": run.sparsity,
        "pattern": run.pattern,
        "allocation": run.allocation,
        "budget": _target(selects),
        "budget_counts": selects.counted,
        "key": keys.key(run.seed, "score", "program") >> 11,  # below 2^53: every reader of JSON has such numbers
    }


def _target(selects: Selector) -> int | None:
    """What may stay; None where there is no such budget, so that the run itself tells that it is impossible."""
    try:
        return selects.target
    except Impossible:
        return None


def _gradients(net: NetView, batch: Batch) -> dict[str, Tensor]:
    """The gradient of the mean loss over the batch by every coefficient."""
    found = net.averaged(lambda part: net.gradients(net.loss(part)), batch)
    return {name: gradient.detach() for name, _, gradient in found}
