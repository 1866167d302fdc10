"""How often intervals hold what they are to hold, claims are false, and differences are found.

    python benchmarks/coverage.py [--out docs/figures/coverage]

Simulated data, and the published differences (results/reference) drawn again: of a random comparison, seeds with
replacement, so that the mean of its seeds is the truth. Level and power are those of the whole family, as tables form
it. A family of seeds that are drawn again from nine repeats some of them, which alone makes false claims: the row of
nine normal seeds, drawn again, says how many.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ipbench.analysis import flips
from ipbench.analysis.cells import metric_values
from ipbench.analysis.collect import load
from ipbench.analysis.comparisons import differences
from ipbench.analysis.flips import ALPHA, flip_interval, max_t
from ipbench.analysis.statistics import mean_interval, seeds_for
from ipbench.machine.provenance import provenance

REFERENCE = Path(__file__).parent.parent / "results" / "reference"
SEEDS = (6, 9, 12)
#: Data sets behind each number.
INTERVALS, FAMILIES, POWERS = 2500, 1000, 400
#: A family like that of ip-fashion: methods times sparsities, the methods' averages and that of all.
METHODS, SPARSITIES = 10, 3
#: Chance that a net collapses, and what it loses, in points; the spread of differences.
COLLAPSE, LOSS, SPREAD = 0.1, 70.0, 0.3

Array = NDArray[np.float64]
#: Draws one data set of n numbers; gives it with its true mean.
Draw = Callable[[np.random.Generator, int], tuple[Array, float]]


def generator(*name: object) -> np.random.Generator:
    """Random numbers that depend on nothing but a name."""
    return np.random.default_rng(list("|".join(map(str, name)).encode()))


def published(name: str) -> tuple[Array, Array]:
    """The paired differences of a published grid, shape (comparisons, seeds), and the accuracies of its cells."""
    collection = load(REFERENCE / name)
    values = metric_values(collection.runs)
    rows = [differences(row, values) for row in collection.grid.rows() if row.compared]
    cells = [values[cell.id] for cell in collection.grid.cells]
    return tuple(np.array([[100 * one[seed] for seed in sorted(one)] for one in some]) for some in (rows, cells))  # type: ignore[return-value]


def again(pool: Array) -> Draw:
    """Draw from one row of a pool, with replacement."""

    def draw(rng: np.random.Generator, n: int) -> tuple[Array, float]:
        row = pool[rng.integers(len(pool))]
        return row[rng.integers(row.size, size=n)], float(row.mean())

    return draw


def collapsing(sides: int) -> Draw:
    """Differences of nets of which one side, or each, collapses now and then."""

    def draw(rng: np.random.Generator, n: int) -> tuple[Array, float]:
        x = rng.normal(0, SPREAD, n) - LOSS * (rng.random(n) < COLLAPSE)
        return (x + LOSS * (rng.random(n) < COLLAPSE), 0.0) if sides == 2 else (x, -COLLAPSE * LOSS)

    return draw


def coverage(draw: Draw, name: str, single: bool) -> list[float]:
    """Share of data sets whose interval holds the true mean, in per cent, for each number of seeds."""
    shares = []
    for n in SEEDS:
        rng, hits = generator("coverage", name, n), 0
        for _ in range(INTERVALS):
            x, truth = draw(rng, n)
            found = mean_interval(x, 0, 100) if single else flip_interval(x)
            hits += found.lower - 1e-9 <= truth <= found.upper + 1e-9
        shares.append(round(100 * hits / INTERVALS, 1))
    return shares


def nodes(cells: Array) -> Array:
    """A family: comparisons of shape (methods, sparsities, seeds), averages of methods, the average of all."""
    return np.vstack([cells.reshape(-1, cells.shape[-1]), cells.mean(1), cells.mean((0, 1))[None]])


def level(draw: Callable[[np.random.Generator, int], Array], name: str) -> list[float]:
    """Share of families with a false claim, in per cent, where no member differs from zero."""
    shares = []
    for n in SEEDS:
        rng = generator("level", name, n)
        false = sum(min(max_t(nodes(draw(rng, n)))) <= ALPHA for _ in range(FAMILIES))
        shares.append(round(100 * false / FAMILIES, 1))
    return shares


def partial(effect: float) -> list[float]:
    """As `level`, of those methods (and their comparisons) that gain nothing, where the other half gains `effect`."""
    comparisons = METHODS * SPARSITIES
    null = np.r_[comparisons // 2 : comparisons, comparisons + METHODS // 2 : comparisons + METHODS]
    shares = []
    for n in SEEDS:
        rng, false = generator("partial", effect, n), 0
        for _ in range(FAMILIES):
            cells = correlated(rng, n)
            cells[: METHODS // 2] += effect
            p = np.array(max_t(nodes(cells)))
            false += bool((p[null] <= ALPHA).any())
        shares.append(round(100 * false / FAMILIES, 1))
    return shares


def independent(rng: np.random.Generator, n: int) -> Array:
    """Normal differences."""
    return rng.normal(size=(METHODS, SPARSITIES, n))


def correlated(rng: np.random.Generator, n: int) -> Array:
    """Normal differences, half of whose variance the comparisons of a seed share."""
    return (rng.normal(size=(METHODS, SPARSITIES, n)) + rng.normal(size=n)) / np.sqrt(2)


def heavy(rng: np.random.Generator, n: int) -> Array:
    """Differences with heavy tails."""
    return rng.standard_t(3, size=(METHODS, SPARSITIES, n))


def centred(pool: Array) -> Callable[[np.random.Generator, int], Array]:
    """Seeds of a published grid drawn again, every comparison moved to a mean of zero."""
    zero = pool - pool.mean(1, keepdims=True)

    def draw(rng: np.random.Generator, n: int) -> Array:
        cells = zero[:, rng.integers(zero.shape[1], size=n)]
        return cells.reshape(-1, SPARSITIES, n)

    return draw


def signed(pool: Array) -> Callable[[np.random.Generator, int], Array]:
    """Seeds of a published grid drawn again, with SP and IP of a seed exchanged at random: no effect of the space."""

    def draw(rng: np.random.Generator, n: int) -> Array:
        cells = pool[:, rng.integers(pool.shape[1], size=n)] * rng.choice([-1.0, 1.0], size=n)
        return cells.reshape(-1, SPARSITIES, n)

    return draw


def power(effect: float, spread: float, members: int) -> dict[str, float]:
    """The seeds that `seeds_for` names, and how often so many, one fewer and one more find one effect in a family."""
    named = seeds_for(effect, spread, members)
    row: dict[str, float] = {"effect": effect, "spread": spread, "members": members, "seeds_for": named}
    for n in (named - 1, named, named + 1):
        rng = generator("power", effect, spread, members, n)
        found = 0
        for _ in range(POWERS):
            x = rng.normal(0, spread, (members, n))
            x[0] += effect
            found += max_t(x)[0] <= ALPHA
        row[f"power_at_{n}"] = round(100 * found / POWERS, 1)
    return row


def measure() -> dict[str, object]:
    """Everything, with the time it took."""
    start = time.process_time()
    ip, fashion = published("ip-fashion"), published("fashion")
    draws: dict[str, tuple[Draw, bool]] = {
        "normal": (lambda rng, n: (rng.normal(size=n), 0.0), False),
        "Student's t, 3 degrees of freedom": (lambda rng, n: (rng.standard_t(3, n), 0.0), False),
        "both sides collapse in 10 % of seeds": (collapsing(2), False),
        "one side collapses in 10 % of seeds": (collapsing(1), False),
        "differences of ip-fashion": (again(ip[0]), False),
        "differences of fashion": (again(fashion[0]), False),
        "single means of ip-fashion": (again(ip[1]), True),
    }
    families = {
        "normal": independent,
        "normal, half of the variance shared": correlated,
        "Student's t, 3 degrees of freedom": heavy,
        "ip-fashion, SP and IP exchanged at random": signed(ip[0]),
        "fashion, SP and IP exchanged at random": signed(fashion[0]),
        "ip-fashion, drawn again, moved to a mean of zero": centred(ip[0]),
        "fashion, drawn again, moved to a mean of zero": centred(fashion[0]),
        "nine normal seeds, drawn again, moved to a mean of zero": centred(generator("pool").normal(size=(30, 9))),
    }
    intervals = {name: coverage(draw, name, single) for name, (draw, single) in draws.items()}
    levels = {name: level(draw, name) for name, draw in families.items()}
    levels["half of the methods gain 2 standard deviations"] = partial(2.0)
    flips.FLIPS = 5000  # beyond 20 seeds random flips; so many will do for a simulation
    settings = [(0.5, 0.25), (0.5, 0.4), (0.2, 0.25)]
    powers = [power(effect, spread, members) for effect, spread in settings for members in (1, 10, 41)]
    return {
        "seeds": SEEDS, "data_sets": {"coverage": INTERVALS, "level": FAMILIES, "power": POWERS},
        "coverage_percent": intervals, "false_claims_percent": levels, "power_percent": powers,
        "cpu_seconds": round(time.process_time() - start), "provenance": provenance("cpu"),
    }  # fmt: skip


def main() -> None:
    """Measure, print and, with `--out`, write `OUT.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write OUT.json")
    out = parser.parse_args().out
    found = measure()
    text = json.dumps(found, indent=1)
    print(text)
    if out:
        out.with_suffix(".json").write_text(text + "\n")


if __name__ == "__main__":
    main()
