"""Latency and memory of nets side by side: known answers of tiny nets; what turns are taken."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ipbench.sparse.measure import forward_memory, latency, timing


class Slow(nn.Module):
    """Takes as long as a clock says, which it moves itself."""

    def __init__(self, clock: list[float], seconds: list[float]) -> None:
        super().__init__()
        self.clock, self.seconds, self.calls, self.weight = clock, seconds, 0, nn.Parameter(torch.ones(1))

    def forward(self, x):
        self.clock[0] += self.seconds[self.calls % len(self.seconds)]
        self.calls += 1
        return x


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    return now


def test_medians_and_quartiles_of_passes_in_turns(clock, monkeypatch):
    """Three passes to warm up; then 1, 2, 3, 4, 5 seconds beside a constant one."""
    monkeypatch.setattr(timing, "MOST", 5)
    ramp, even = Slow(clock, [100.0, 100.0, 100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.0]), Slow(clock, [0.5])
    told = latency({"dense": ramp, "sliced": even}, torch.ones(4, 1, 2, 2))
    assert told["dense"] == {"seconds": 3.0, "lower": 2.0, "upper": 4.0, "memory_bytes": 4}
    assert told["sliced"] == {"seconds": 0.5, "lower": 0.5, "upper": 0.5, "memory_bytes": 4}
    assert (told["batch"], told["repetitions"], told["threads"], told["device"]) == (
        4, 5, torch.get_num_threads(), "cpu",
    )  # fmt: skip
    assert ramp.training and even.training


def test_slow_nets_are_repeated_less(clock):
    """Two passes of five seconds a repetition: after 20 seconds no more than the least number begin."""
    told = latency({"dense": Slow(clock, [5.0]), "sliced": Slow(clock, [5.0])}, torch.ones(1, 1, 2, 2))
    assert told["repetitions"] == timing.LEAST
    assert latency({"dense": Slow(clock, [0.01])}, torch.ones(1, 1, 2, 2))["repetitions"] == timing.MOST


def test_memory_of_a_chain_by_hand():
    """Of 2 images with 4 values: 8 and 6 outputs, both alive at the second product; views and in-place are free."""
    first, second = nn.Linear(4, 8, bias=False), nn.Linear(8, 6, bias=False)
    net = nn.Sequential(nn.Flatten(), first, nn.ReLU(inplace=True), second)
    weights = 4 * (4 * 8 + 8 * 6)
    assert forward_memory(net, torch.ones(2, 1, 2, 2)) == weights + 4 * 2 * (8 + 6)


def test_memory_that_is_given_back_is_not_counted_twice():
    """Ten layers of the same width: never more than an input and an output at a time; a shared weight counts once."""
    layer = nn.Linear(16, 16, bias=False)
    net = nn.Sequential(*[layer] * 10)
    assert forward_memory(net, torch.ones(3, 16)) == 4 * 16 * 16 + 2 * 4 * 3 * 16


def test_a_shortcut_keeps_its_input_alive():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three = (nn.Linear(8, 8, bias=False) for _ in range(3))

        def forward(self, x):
            x = self.one(x)
            return x + self.three(self.two(x))

    # x and two outputs are alive in the third product, or x, the third output and the sum.
    assert forward_memory(Block(), torch.ones(5, 8)) == 3 * 4 * 64 + 3 * 4 * 5 * 8
