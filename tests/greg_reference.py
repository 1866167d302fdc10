"""Runs the reference code of GReg on a toy and writes what it did, `tests/golden/greg.json`.

    python -m tests.greg_reference CHECKOUT > tests/golden/greg.json

CHECKOUT is github.com/MingSun-Tse/Regularization-Pruning at a404402. Its schedules (`Pruner._update_reg`) and its
gradients (`Pruner._apply_reg`) work on a net whose loss is a given quadratic; nothing is trained. The toy and its steps
are here, so that the test takes the same ones.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

#: What differs from `USUAL`; the names are those of the reference.
CASES: dict[str, dict[str, Any]] = {
    "greg-1, ceiling": {"method": "GReg-1"},
    "greg-1, ratio": {"method": "GReg-1", "mag_ratio_limit": 8.0, "reg_upper_limit": 20.0},
    "greg-1, coefficients": {"method": "GReg-1", "wg": "weight"},
    "greg-2, ceiling": {"method": "GReg-2"},
    "greg-2, ratio": {"method": "GReg-2", "mag_ratio_limit": 8.0, "reg_upper_limit": 20.0},
    "greg-2, ratio soon": {"method": "GReg-2", "mag_ratio_limit": 4.0, "reg_upper_limit": 20.0},
    "greg-2, coefficients": {"method": "GReg-2", "wg": "weight"},
}
USUAL = {
    "wg": "filter", "update_reg_interval": 2, "reg_granularity_prune": 0.3, "reg_granularity_pick": 0.03,
    "reg_granularity_recover": -1e-4, "reg_upper_limit": 5.0, "reg_upper_limit_pick": 0.3, "mag_ratio_limit": 1000.0,
}  # fmt: skip
#: Shares that are pruned; what is left out stays whole.
RATIOS = {"0": 0.5, "2": 0.4}
LR, WEIGHT_DECAY = 0.05, 5e-4


def toy() -> nn.Sequential:
    """Two convolutions and a classifier in double precision."""
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 5, 3, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(5, 3, bias=False),
    ).double()  # fmt: skip
    with torch.no_grad():
        for _, layer in weighted(net):
            layer.weight.copy_(_waves(layer.weight, 7.0) * (1 + _waves(layer.weight, 3.0)))
    return net


def weighted(net: nn.Module) -> list[tuple[str, nn.Conv2d | nn.Linear]]:
    """The layers with weights, by name."""
    return [(name, layer) for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def _waves(like: Tensor, pace: float) -> Tensor:
    return torch.sin(pace * torch.arange(1, like.numel() + 1, dtype=torch.float64)).view(like.shape)


def gradient(weight: Tensor, start: Tensor) -> Tensor:
    """Of a loss with its minimum at `start`; the curvature differs from filter to filter, and a little inside them."""
    filters = torch.arange(1, len(weight) + 1, dtype=torch.float64)
    curvature = (1.1 + torch.cos(5 * filters)).view(-1, *[1] * (weight.dim() - 1)) * (1 + 0.1 * _waves(weight, 2.0))
    return curvature * (weight - start)


def reference(case: dict[str, Any], pruner: Any) -> Any:
    """The reference's object on the toy, as its `__init__` leaves it, which needs a GPU."""
    net, work = toy(), pruner.__new__(pruner)
    never = {"print_interval": 10**9, "plot_interval": 10**9, "save_interval": 10**9}
    others = {"save_order_log": False, "save_mag_reg_log": False, "pick_pruned": "min", "base_pr_model": None}
    work.args = SimpleNamespace(**USUAL | never | others | {"block_loss_grad": False} | case)
    work.model = net
    work.layers = {name: SimpleNamespace(layer_index=place) for place, (name, _) in enumerate(weighted(net))}
    work.pr = {name: RATIOS.get(name, 0) for name in work.layers}
    for name in ("logprint", "netprint", "_save_model", "_plot_mag_ratio", "_log_down_mag_reg"):
        setattr(work, name, lambda *_, **__: None)
    for name in ("hist_mag_ratio", "iter_update_reg_finished", "iter_finish_pick", "w_abs", "kept_wg", "pruned_wg"):
        setattr(work, name, {})
    work._get_kept_wg_L1()
    work.pruned_wg_L1 = dict(work.pruned_wg)
    work.original_kept_w_mag = dict.fromkeys(work.layers, 1.0)  # for messages alone
    if work.args.method == "GReg-2":
        work.kept_wg, work.pruned_wg = {}, {}
    work.prune_state, work.iter_stabilize_reg, work.total_iter = "update_reg", math.inf, -1
    work.reg = {
        name: torch.zeros(layer.weight.numel() if work.args.wg == "weight" else layer.weight.shape[:2])
        for name, layer in weighted(net)
    }
    return work


def trace(case: dict[str, Any], pruner: Any) -> dict[str, Any]:
    """What the reference does in a case: units that go, factors of units after every update, weights at the end."""
    work = reference(case, pruner)
    starts = {name: layer.weight.detach().clone() for name, layer in weighted(work.model)}
    factors: dict[str, list[Any]] = {name: [] for name in RATIOS}
    first = {name: sorted(int(unit) for unit in work.pruned_wg_L1[name]) for name in RATIOS}
    with torch.no_grad():
        while work.prune_state == "update_reg":
            work.total_iter += 1
            if work.total_iter % work.args.update_reg_interval == 0:
                work._update_reg()
                for name, found in factors.items():
                    reg = work.reg[name] if work.args.wg == "weight" else work.reg[name][:, 0]
                    found.append(numbers(reg if len(reg) < 9 else torch.stack((reg.min(), reg.max()))))
            for name, layer in weighted(work.model):
                layer.weight.grad = gradient(layer.weight, starts[name])
            work._apply_reg()
            for _, layer in weighted(work.model):
                layer.weight -= LR * (layer.weight.grad + WEIGHT_DECAY * layer.weight)
    return {
        "first": first,
        "pruned": {name: sorted(int(unit) for unit in work.pruned_wg[name]) for name in RATIOS},
        "finished": {name: work.iter_update_reg_finished[name] for name in RATIOS},
        "factors": factors,
        "weights": {name: numbers(layer.weight.abs().flatten(1).mean(1)) for name, layer in weighted(work.model)},
    }


def numbers(tensor: Tensor) -> list[float]:
    """With as many digits as single precision has."""
    return [float(f"{value:.7g}") for value in tensor.tolist()]


def main() -> None:
    """Write the traces of all cases."""
    sys.path.insert(0, sys.argv[1])
    package = ModuleType("pruner")  # without what its `__init__` imports beside
    package.__path__ = [f"{sys.argv[1]}/pruner"]
    sys.modules["pruner"] = package
    with contextlib.redirect_stdout(io.StringIO()):
        from pruner.reg_pruner import Pruner  # type: ignore[import-not-found]

        traces = {name: trace(case, Pruner) for name, case in CASES.items()}
    print(json.dumps({"made": __doc__, "cases": traces}, indent=None))


if __name__ == "__main__":
    main()
