"""Scores by magnitude: `python numpy_magnitude.py FOLDER`. Nothing of ipbench is imported."""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

folder = Path(sys.argv[1])
with safe_open(folder / "net.safetensors", "np") as file:
    facts = json.loads(file.metadata()["facts"])
    scores = {layer: np.abs(file.get_tensor(f"coefficients/{layer}")) for layer in facts["layers"]}
save_file(scores, folder / "numpy-magnitude.safetensors")
