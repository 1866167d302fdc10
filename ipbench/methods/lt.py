"""LT: lottery tickets by iterative magnitude pruning."""

from ipbench.methods import Continue, Prune, Rewind, Train, method
from ipbench.methods.magnitude import magnitude


@method(
    family="after training",
    paper="Frankle, Dziugaite, Roy, Carbin: Linear Mode Connectivity and the Lottery Ticket Hypothesis, ICML 2020, "
    "arXiv:1912.05671; learning-rate rewinding: Renda, Frankle, Carbin, ICLR 2020, arXiv:2003.02389",
)
def lt(*, rate: float = 0.2, rewind: float = 0.0, weights: bool = True, scaled: bool = False):
    """Train, prune the smallest (rate a level), rewind to an epoch, again; weights=false rewinds only the schedule.

    Each level starts from the one before, so that runs of many sparsities share their trainings.

    Options:
        rate: the share of what is left that a level prunes
        rewind: the epoch of the dense training that is gone back to; 0: the initial values
        weights: false: coefficients stay, and only the learning-rate schedule is rewound
        scaled: compare |c| * ||g||, with the norm of the coefficient's basis filter g, in place of |c|
    """
    if rate == 0:
        raise ValueError("rate is above 0: the share of the kept coefficients that each level prunes")
    prune = Prune(magnitude, "magnitude", options={"scaled": scaled})
    return [Continue(rate=rate), prune, *([Rewind(rewind)] if weights else []), Train(first=rewind)]
