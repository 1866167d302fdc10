"""Methods with updaters as a user writes them; tests load this file as a method file."""

import torch

from ipbench.methods import Prune, Train, Updater, method
from ipbench.methods.magnitude import magnitude

PAPER = "Nobody, 2026"


class L2(Updater):
    """Half the strength times the sum of squares."""

    def __init__(self, net, steps, *, strength):
        self.strength = strength

    def penalty(self, net):
        return 0.5 * self.strength * sum(c.square().sum() for c in net.coefficients.values())


class Soft(Updater):
    """After every epoch the smallest half of each layer is zero, and trains on."""

    def __init__(self, net, steps):
        self.epochs = 0

    def after_epoch(self, net, epoch):
        for c in net.coefficients.values():
            c.mul_(c.abs() >= c.abs().flatten().sort().values[c.numel() // 2])
        self.epochs += 1
        net.notes["epochs"] = self.epochs

    def tensors(self):
        return {"epochs": self.epochs}

    def load(self, tensors):
        self.epochs = tensors["epochs"]


class Growing(Updater):
    """The decay of the smallest half of each layer grows at every step; done at a limit, and settled then."""

    def __init__(self, net, steps, *, rise, limit):
        self.rise, self.limit, self.grown = rise, limit, 0.0
        self.weak = {name: c.abs() < c.abs().median() for name, c in net.coefficients.items()}

    @property
    def done(self):
        return self.grown >= self.limit

    settled = done

    def decay(self, net):
        self.grown += self.rise
        return {name: net.weight_decay + self.grown * weak for name, weak in self.weak.items()}

    def tensors(self):
        return {"grown": self.grown, **self.weak}

    def load(self, tensors):
        self.grown = tensors.pop("grown")
        self.weak = tensors


class Mean(Updater):
    """Prunes at every third step of the second half, by the running mean of gradients."""

    masks = "pruned"

    def __init__(self, net, steps):
        self.steps, self.count = steps, 0
        self.mean = {name: torch.zeros_like(c) for name, c in net.coefficients.items()}

    def after_backward(self, net, batch, step):
        self.count += 1
        for name, c in net.coefficients.items():
            self.mean[name] += (c.grad.abs() - self.mean[name]) / self.count
        last = step == self.steps.total - 1
        if last or (step >= self.steps.total // 2 and step % 3 == 0):
            keep = net.budget_at(1 if last else step / self.steps.total)
            net.prune(net.select(self.mean, keep, step))
        return not last

    def tensors(self):
        return {"count": self.count, **self.mean}

    def load(self, tensors):
        self.count = tensors.pop("count")
        self.mean = tensors


class Taking(Updater):
    """Keeps the net of the first epoch, prunes half of it after the second, takes it back after the third."""

    masks = "pruned"

    def __init__(self, net, steps):
        self.seen = 0.0

    def after_evaluation(self, net, epoch, accuracy):
        self.seen += accuracy
        net.notes[f"epoch {epoch}"] = accuracy
        if epoch == 0:
            net.remember("first")
        elif epoch == 1:
            net.prune(net.select(net.magnitudes(), net.kept // 2, 1))
        else:
            net.recall("first")
            net.forget("first")
            net.notes["seen"] = self.seen

    def tensors(self):
        return {"seen": self.seen}

    def load(self, tensors):
        self.seen = tensors["seen"]


def remembered(net, batch):
    """The running mean of magnitudes over all rounds."""
    count = net.state["count"] = net.state.get("count", 0) + 1
    for name, c in net.coefficients.items():
        mean = net.state.setdefault(name, torch.zeros_like(c))
        mean += (c.detach().abs() - mean) / count
    net.notes[f"round {count}"] = [float(net.state[name].sum()) for name in net.coefficients]
    return {name: net.state[name] for name in net.coefficients}


@method(family="during training", paper=PAPER)
def penalised(*, strength: float = 0.1):
    """Trains with a penalty."""
    return [Train(L2.spec(strength=strength))]


@method(family="during training", paper=PAPER)
def soft():
    """Prunes softly, then for good."""
    return [Train(Soft.spec()), Prune(magnitude, "magnitude")]


@method(family="during training", paper=PAPER)
def growing(*, rise: float = 0.01, limit: float = 0.055):
    """Grows the decay of the smallest half, prunes it, trains on."""
    push = Train(Growing.spec(rise=rise, limit=limit), recipe={"schedule": "constant"}, until="done")
    return [push, Prune(magnitude, "magnitude"), Train(epochs=1)]


@method(family="during training", paper=PAPER)
def mean():
    """Prunes by the running mean of gradients."""
    return [Train(Mean.spec())]


@method(family="during training", paper=PAPER)
def taking():
    """Prunes, prunes too much, and takes that back."""
    return [Prune(magnitude, "magnitude"), Train(Taking.spec())]


@method(family="after training", paper=PAPER)
def rounds():
    """Prunes twice in two rounds each, by the running mean over all of them."""
    score = Prune(remembered, "remembered", rounds=2)
    return [Train(epochs=1), score, Train(epochs=1), score, Train(epochs=1)]
