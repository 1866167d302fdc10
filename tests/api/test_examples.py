"""Every block of docs/own-nets.md runs, and every example."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent.parent
QUICK = ["digits.py"]
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("page", ["docs/own-nets.md", "README.md"])
def test_blocks_run_in_their_order(page):
    blocks = [
        block for block in re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
        if "ipbench.prune" in block or page != "README.md"
    ]  # fmt: skip
    assert blocks
    names: dict[str, object] = {}
    if page == "README.md":  # what stands around its five lines
        torch.manual_seed(0)
        names = {
            "model": torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(288, 5)),
            "loader": [(torch.rand(8, 3, 8, 8), torch.arange(8) % 5)] * 2,
        }
    for block in blocks:
        exec(compile(block, page, "exec"), names)


@pytest.mark.processes
@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.long) for n in EXAMPLES])
def test_examples_run(name, tmp_path):
    example = ROOT / "examples" / name
    done = subprocess.run(
        [sys.executable, example], cwd=tmp_path, capture_output=True, text=True, timeout=600, env=None
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = {"digits.py": "ip: 0.90", "detection.py": "finds the same: True", "segmentation.py": " bytes"}
    assert told.get(name, "began as it was: True") in done.stdout
