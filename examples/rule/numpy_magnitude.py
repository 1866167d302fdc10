"""Scores by magnitude: `python numpy_magnitude.py NET SCORES`. Nothing of ipbench is imported."""

import json
import sys

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

net, scores = sys.argv[1:]
with safe_open(net, "np") as file:
    facts = json.loads(file.metadata()["facts"])
    save_file({layer: np.abs(file.get_tensor(f"coefficients/{layer}")) for layer in facts["layers"]}, scores)
