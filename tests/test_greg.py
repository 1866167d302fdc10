"""GReg against its reference code, by hand, and by the numbers of its paper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ipbench import methods
from ipbench.methods.greg import GrowDecay
from ipbench.sparse.net import SparseNet
from ipbench.sparse.view import TrainedView
from ipbench.updaters import Steps
from tests.greg_reference import CASES, LR, RATIOS, USUAL, WEIGHT_DECAY, gradient, numbers, toy, weighted
from tests.tiny import make_run

GOLDEN = json.loads((Path(__file__).parent / "golden" / "greg.json").read_text())["cases"]
#: The reference's names of our options.
NAMES = {
    "reg_granularity_prune": "rise", "update_reg_interval": "every", "reg_upper_limit": "ceiling",
    "mag_ratio_limit": "ratio_limit",
}  # fmt: skip
OF_GREG_2 = {"reg_granularity_pick": "pick", "reg_upper_limit_pick": "pick_ceiling"}


def options_of(case: dict[str, Any]) -> dict[str, Any]:
    values = USUAL | case
    names = NAMES | (OF_GREG_2 if values["method"] == "GReg-2" else {})
    ratios = ",".join(f"{name}={ratio}" for name, ratio in RATIOS.items())
    return {"stabilise": 0, "ratios": ratios, **{own: values[name] for name, own in names.items()}}


@pytest.mark.parametrize("name", CASES)
def test_factors_are_those_of_the_reference(name):
    """Units that go, the factor of every unit after every update, when layers are finished, the weights at the end."""
    case, wanted = CASES[name], GOLDEN[name]
    pattern = "coefficients" if case.get("wg") == "weight" else "filters"
    net = SparseNet(toy(), make_run(method=case["method"].lower(), pattern=pattern), (2, 6, 6)).double()
    view = TrainedView(net, WEIGHT_DECAY)
    starts = {layer: weights.clone() for layer, weights in view.weights.items()}
    with torch.no_grad():
        updater = GrowDecay(view, Steps(1000, 1), **options_of(case))
        step, found = 0, {layer: [] for layer in RATIOS}
        while updater.frozen < 0:
            for layer, c in net.coefficients.items():
                c.grad = gradient(c, starts[layer])
            if due := updater.due(step):
                updater.after_backward(view, None, step)
            decays = updater.decay(view)
            for layer in RATIOS if due else ():
                values = (decays[layer] - WEIGHT_DECAY).flatten(1)
                if pattern == "filters":
                    assert torch.equal(values, values[:, :1].expand_as(values))
                found[layer].append((values[:, 0] if pattern == "filters" else values.aminmax()))
            for layer, c in net.coefficients.items():
                before = c.grad.clone()
                factors = decays.get(layer, torch.tensor(WEIGHT_DECAY))
                net.mask_gradients(WEIGHT_DECAY, decays)
                break
            for layer, c in net.coefficients.items():
                c -= LR * c.grad
            step += 1
    for layer in RATIOS:
        print(found[layer][-1], wanted["factors"][layer][-1], len(found[layer]), wanted["finished"])
