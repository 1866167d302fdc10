"""What interspace pruning does to a filter, drawn from a trained net: `python docs/draw_interspace.py`.

Trains small-vgg on the digits in both spaces with the masks that SNIP gives at the start, a minute on one core, and
writes docs/figures/interspace.svg: of one filter of one layer the coefficients that are kept, the filter basis where
there is one, and the filter that the net convolves with.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from safetensors.torch import load_file
from torch import Tensor

from ipbench.analysis.style import save, styled
from ipbench.cli.main import main

FIGURE = Path(__file__).parent / "figures/interspace.svg"
LAYER = "stage1.conv2"
SPARSITY = "0.8"
#: How many coefficients the drawn filter has kept.
KEPT = 4


def trained(space: str, folder: Path) -> dict[str, Tensor]:
    """Train one run and give the tensors of its end, by name."""
    out = folder / space
    words = f"run --dataset digits --method snip --sparsity {SPARSITY} --space {space} --keep --out {out}".split()
    if main(words):
        raise SystemExit(f"the training in {space} failed")
    return load_file(next(out.glob("ends/*/*.safetensors")))


def filters(end: dict[str, Tensor], space: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """Of the layer: coefficients and mask, (filters, 9), and the filter basis, (9, 9), in the interspace."""
    mask = end[f"mask/{LAYER}"].reshape(-1, 9)
    if space == "sp":
        return end[f"net/{LAYER}.weight"].reshape(-1, 9), mask, None
    inner = f"net/{LAYER}.parametrizations.weight"
    return end[f"{inner}.original"].reshape(-1, 9), mask, end[f"{inner}.0.basis.matrix"]


def panel(axes: Axes, values: Tensor, title: str = "", *, mask: Tensor | None = None) -> None:
    """A 3 x 3 tensor as colours around zero; what is masked is crossed out."""
    limit = max(float(values.abs().max()), 1e-9)
    axes.imshow(values.reshape(3, 3), cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=8)
    for place in range(9) if mask is not None else ():
        if not mask[place]:
            axes.plot(place % 3, place // 3, "x", color="0.6", markersize=7)


def draw(ends: dict[str, dict[str, Tensor]]) -> None:
    """Two rows: the filter in SP, and in IP with its basis."""
    sp, sp_mask, _ = filters(ends["sp"], "sp")
    ip, ip_mask, basis = filters(ends["ip"], "ip")
    assert basis is not None
    # The filter bases are paid for with a few coefficients, so some masks differ: take a filter whose masks do not.
    alike = (sp_mask == ip_mask).all(1) & (sp_mask.sum(1) == KEPT)
    chosen = int(alike.nonzero()[0])
    figure, grid = plt.subplots(2, 14, figsize=(10.2, 2.9), width_ratios=[1.5, 0.5, *[1] * 9, 0.5, 1.5, 0.1])
    for axes in grid.flat:
        axes.axis("off")
    for row in grid:
        for axes in (row[0], row[12]):
            axes.axis("on")
    panel(grid[0, 0], sp[chosen], "weights", mask=sp_mask[chosen])
    grid[0, 6].text(0.5, 0.5, "SP: the weights are the filter", ha="center", va="center", fontsize=9)
    panel(grid[0, 12], sp[chosen] * sp_mask[chosen], f"filter: {int((sp[chosen] * sp_mask[chosen] == 0).sum())} zeros")
    panel(grid[1, 0], ip[chosen], "coefficients", mask=ip_mask[chosen])
    grid[1, 1].text(0.5, 0.5, "×", ha="center", va="center", fontsize=14)
    for place in range(9):
        grid[1, 2 + place].axis("on")
        panel(grid[1, 2 + place], basis[place])
    grid[1, 6].set_title("filter basis of the layer, shared by its filters and trained with them", fontsize=8)
    grid[1, 11].text(0.5, 0.5, "=", ha="center", va="center", fontsize=14)
    combined = (ip[chosen] * ip_mask[chosen]) @ basis
    panel(grid[1, 12], combined, f"filter: {int((combined == 0).sum())} zeros")
    figure.subplots_adjust(left=0.03, right=0.995, top=0.9, bottom=0.04, wspace=0.12, hspace=0.35)
    figure.text(0.005, 0.73, "SP", fontsize=11, weight="bold")
    figure.text(0.005, 0.24, "IP", fontsize=11, weight="bold")
    save(figure, FIGURE)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        ends = {space: trained(space, Path(folder)) for space in ("sp", "ip")}
        with styled():
            draw(ends)
