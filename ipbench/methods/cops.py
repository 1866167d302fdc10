"""COPS: one score decides, others are controlled."""

from __future__ import annotations

import numpy as np

from ipbench.methods import Prune, Train, get, method
from ipbench.methods._combination import Infeasible, Unsolved, combine
from ipbench.numerals import decimal


@method(family="before training", paper="Wimmer, Mehnert, Condurache: COPS, IJCNN 2021, arXiv:2107.12673")
def cops(*, target: str = "snip", controls: str = "synflow", beta: str = "0.5", per_class: int = 0):
    """Keep what the target score wants, while each control retains beta of the most it could (a linear program).

    Of all masks m with k kept coefficients, the one with the largest sum of target scores, among those that keep at
    least beta times the largest possible sum of each control score:

        max  t . m   subject to  s_j . m >= beta_j max over masks of s_j . m,  sum m = k,  0 <= m <= 1.

    The program has an analytic solution; docs/rules.md says how it is found, and rounded.

    Options:
        target: the name of the score that is maximised
        controls: names of the scores that must not suffer, with commas between them
        beta: the share that each control retains; one number, or one for each
        per_class: images of each class in the score batch; 0: as many images as a training batch has
    """
    names = [target, *(name.strip() for name in controls.split(","))]
    try:
        betas = [float(decimal(share)) for share in beta.split(",")]
    except ValueError:
        betas = []
    if len(betas) == 1:
        betas *= len(names) - 1
    if len(betas) != len(names) - 1 or not all(0 <= share <= 1 for share in betas):
        raise ValueError(f"beta is a share from 0 to 1, or one for each of the {len(names) - 1} controls, with commas")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} is given twice; target and controls are different scores")
    for name in names:
        stages = get(name, "method cops").stages({}) if name != "cops" else []
        if not (len(stages) == 2 and isinstance(stages[0], Prune) and stages[1] == Train()):
            raise ValueError(f"{name} is no score: it does not prune before training")
    options = {"target": target, "controls": ",".join(names[1:]), "beta": ",".join(map(repr, betas))}
    return [Prune(combined, "cops", per_class=per_class, options=options, whole_ranking=True), Train()]


def combined(net, batch, *, target, controls, beta):
    """S + mu C, with the mask of the linear program raised above all else: a ranking whose top it is."""
    import torch  # here, so that planning a grid does not pay for it

    from ipbench.sparse.selection import Impossible, NotFinite

    names = [target, *controls.split(",")]
    vectors = [normalised(score(net, batch, name)) for name in names]
    for name, vector in zip(names, vectors, strict=True):
        if not np.isfinite(vector).all():
            raise NotFinite(f"cops: the score {name} is not finite")
    # What an earlier stage pruned cannot be kept.
    free = np.concatenate([mask.cpu().numpy().ravel() for mask in net.masks.values()])
    s, *cs = (vector[free] for vector in vectors)
    try:
        found = combine(s, cs, net.budget, [float(share) for share in beta.split(",")])
    except (Infeasible, Unsolved) as error:
        raise Impossible(f"cops: {error}") from None
    net.notes["cops"] = {
        "lp_value": found.lp_value,
        "value": found.value,
        "multipliers": list(found.multipliers),
        "active": list(found.active),
        "required": list(found.required),
        "retained": list(found.retained),
    }
    ranking = vectors[0] + sum(mu * vector for mu, vector in zip(found.multipliers, vectors[1:], strict=True))
    ranking[np.flatnonzero(free)[found.mask]] += np.ptp(ranking) + 1
    parts = torch.from_numpy(ranking).split([c.numel() for c in net.coefficients.values()])
    return {
        name: part.view(c.shape).to(c.device) for part, (name, c) in zip(parts, net.coefficients.items(), strict=True)
    }


def score(net, batch, name):
    """The score of a registered method, as if it were taken alone; all layers in one vector of float64."""
    stage = get(name).stages({})[0]
    assert isinstance(stage, Prune)  # `cops` has looked
    scores = stage.score(net, batch, **stage.options)
    return np.concatenate([values.double().cpu().numpy().ravel() for values in scores.values()])


def normalised(vector):
    """Divided by the sum of absolute values: what scores of different kinds have in common."""
    size = np.abs(vector)
    if np.isinf(size.sum()) and np.isfinite(size).all():  # SynFlow's of a deep net
        vector, size = vector / size.max(), size / size.max()
    total = float(size.sum())
    return vector / total if total > 0 else vector
