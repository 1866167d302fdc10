"""Two processes of torch's DistributedDataParallel train one net: one set of masks, held in both."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPT = """
import os, sys, torch, torch.distributed as dist, ipbench
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from tests.tiny import tiny_stack

space, method, folder = sys.argv[1:]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=int(os.environ["RANK"]), world_size=2)
rank = dist.get_rank()
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(rank)  # every process has other images
images, labels = torch.randn(8, 2, 6, 6, generator=generator), torch.arange(8) % 3
more = {"steps": 6, "every": 2} if method == "rigl" else {"off": "frozen"}
net = ipbench.prune(tiny_stack(), method, 0.5, space=space, batch=(images, labels), **more)
start = {name: c.detach().clone() for name, c in net.masked.coefficients.items()}
first = net.masks
wrapped = DistributedDataParallel(net)
optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
for _ in range(5):
    optimiser.zero_grad()
    cross_entropy(wrapped(images), labels).backward()
    optimiser.step()
for name, c in net.masked.coefficients.items():
    mask = net.masks[name]
    wanted = start[name] if method == "snip" else torch.zeros_like(c)
    assert torch.equal(c[~mask], wanted[~mask]), name
    for tensor in (c.detach(), mask):
        both = [torch.empty_like(tensor) for _ in range(2)]
        dist.all_gather(both, tensor.contiguous())
        assert torch.equal(*both), name
    assert (method == "snip") == torch.equal(first[name], mask) or not mask.any() or mask.all(), name
dist.destroy_process_group()
print("equal")
"""


@pytest.mark.parametrize(("space", "method"), [("ip", "snip"), ("sp", "rigl")])
def test_two_processes_have_one_net(tmp_path, space, method):
    both = f"""
import os, subprocess, sys
children = [
    subprocess.Popen([sys.executable, "-c", {SCRIPT!r}, {space!r}, {method!r}, {str(tmp_path)!r}],
                     env={{**os.environ, "RANK": str(rank)}}, stdout=subprocess.PIPE,
                     stderr=subprocess.STDOUT, text=True)
    for rank in range(2)
]
told = [child.communicate(timeout=200)[0] for child in children]
print("\\n".join(told))
sys.exit(any(child.returncode for child in children))
"""
    done = subprocess.run([sys.executable, "-c", both], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0 and done.stdout.count("equal") == 2, done.stdout[-2000:] + done.stderr[-2000:]
