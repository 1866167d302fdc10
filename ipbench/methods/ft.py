"""FT: fine-tuning of a pruned trained net."""

from ipbench.methods import Continue, Prune, Train, method
from ipbench.methods.magnitude import magnitude


@method(family="after training", paper="Han, Pool, Tran, Dally: Learning both Weights and Connections, NeurIPS 2015")
def ft(*, epochs: int = 0, lr: float = 0.1, scaled: bool = False):
    """Train dense, prune the smallest coefficients at once, fine-tune at lr times the rate (epochs 0: the recipe's).

    Options:
        epochs: of fine-tuning; 0: as many as the recipe has
        lr: of fine-tuning, as a factor of the recipe's
        scaled: compare |c| * ||g||, with the norm of the coefficient's basis filter g, in place of |c|
    """
    prune = Prune(magnitude, "magnitude", options={"scaled": scaled})
    return [Continue(), prune, Train(epochs=epochs, lr=lr)]
