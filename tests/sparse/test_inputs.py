"""What coefficients are multiplied with, against changes of single coefficients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ipbench.data.loaders import Batch
from ipbench.errors import BadInput
from ipbench.sparse.inputs import input_norms
from ipbench.sparse.net import SparseNet
from tests.tiny import make_run


class Outputs(nn.Module):
    """Two convolutions, one with groups, stride, padding and dilation, used side by side, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 6, 3, stride=2, padding=(2, 1), dilation=2, groups=2, bias=False)
        self.last = nn.Linear(6, 3)
        self.seen: dict[str, Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        self.seen["first"] = self.first(images)
        self.seen["second"] = self.second(torch.tanh(self.seen["first"]))
        self.seen["last"] = self.last(self.seen["second"].mean((2, 3)))
        return self.seen["last"]


def net(space: str) -> tuple[SparseNet, Outputs]:
    torch.manual_seed(3)
    module = Outputs().double()
    made = SparseNet(module, make_run(space=space, basis={"init": "orthonormal"} if space == "ip" else {}), (2, 7, 6))
    return made.double(), module


def batch(number: int = 5) -> Batch:
    images = torch.randn(number, 2, 7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return Batch(images, torch.zeros(number, dtype=torch.long))


@pytest.mark.parametrize("space", ["sp", "ip"])
@pytest.mark.parametrize("images", [2, 5])
def test_an_output_changes_by_the_factor_of_a_coefficient(
    space: str, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ipbench.tasks.task.PASS_PIXELS", images * 7 * 6)  # of a pass
    made, module = net(space)
    found = input_norms(made, batch())
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        made(batch().images)
        before = {name: value.clone() for name, value in module.seen.items()}
        for name, coefficients in made.coefficients.items():
            assert found[name].shape == coefficients.shape
            for place in torch.randint(coefficients.numel(), (12,), generator=generator).tolist():
                flat = coefficients.view(-1)
                flat[place] += 1
                made(batch().images)
                change = (module.seen[name] - before[name]).norm()
                flat[place] -= 1
                assert float(found[name].reshape(-1)[place]) == pytest.approx(float(change), rel=1e-9)


def test_a_layer_of_another_kind_is_named() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 4, 3, padding="same"), nn.Flatten(), nn.Linear(4 * 42, 3))
    made = SparseNet(module, make_run(), (2, 7, 6))
    with pytest.raises(BadInput, match=r"layer 0: input norms are known of .*, not of this Conv2d"):
        input_norms(made, Batch(batch().images.float(), batch().labels))
