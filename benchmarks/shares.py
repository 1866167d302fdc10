"""How often intervals of a share, the ratio of two paired means, hold the true one.

    python benchmarks/shares.py

Of every seed a gain is drawn, normal with mean 1 and standard deviation 0.3, and what is left of it: 0.6 times that
gain and a normal number of standard deviation 0.3. The interval of `ipbench survive` beside a percentile bootstrap.
"""

from __future__ import annotations

import numpy as np

from ipbench.analysis.flips import ALPHA, ratio_interval

SEEDS, SETS, RESAMPLES = (6, 9, 12), 2000, 2000
SHARE, SPREAD = 0.6, 0.3


def main() -> None:
    """Print, by the number of seeds, how often each interval holds the share."""
    rng = np.random.default_rng(1)
    for n in SEEDS:
        flips = bootstrap = 0
        for _ in range(SETS):
            gain = rng.normal(1, SPREAD, n)
            left = SHARE * gain + rng.normal(0, SPREAD, n)
            found = ratio_interval(left, gain)
            flips += found.lower <= SHARE <= found.upper
            drawn = rng.integers(0, n, (RESAMPLES, n))
            low, high = np.quantile(left[drawn].sum(1) / gain[drawn].sum(1), [ALPHA / 2, 1 - ALPHA / 2])
            bootstrap += low <= SHARE <= high
        print(f"n = {n}: by flips {100 * flips / SETS:.1f} %, percentile bootstrap {100 * bootstrap / SETS:.1f} %")


if __name__ == "__main__":
    main()
