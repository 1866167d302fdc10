"""Fine-tuning of what is left of a trained net, as methods on filters share it."""

from __future__ import annotations

from ipbench.methods._stages import Train

#: Fine-tuning of Wang et al. (ICLR 2021, arXiv:2012.09243, and arXiv:2301.05219) on ImageNet: 90 epochs at 1e-2, 1e-3
#: from 30, 1e-4 from 60 and 1e-5 from 75, where the training began at 0.1.
_WANG = {"schedule": "step", "milestones": (1 / 3, 2 / 3, 5 / 6), "gamma": 0.1, "warmup": 0}


#: Trainings of Lubana et al.'s public code (OrthoReg) at a tenth of the rate from each milestone: 60, 40 and 40 epochs
#: behind an early ticket; 40, 40 and 20 behind the last of several rounds.
_EARLY = {"schedule": "step", "milestones": (3 / 7, 5 / 7), "gamma": 0.1, "warmup": 0}
_ROUNDS = {"schedule": "step", "milestones": (0.4, 0.8), "gamma": 0.1, "warmup": 0}
#: Likewise, between two rounds of a net that is penalised again: 35, 35 and 10 epochs.
_BETWEEN = {"schedule": "step", "milestones": (7 / 16, 7 / 8), "gamma": 0.1, "warmup": 0}
_OF_ROUNDS = {"recipe": {}, "early": _EARLY, "rounds": _ROUNDS, "between": _BETWEEN}


def retraining(epochs: int, lr: float, schedule: str) -> Train:
    """A training behind filters that were removed, as in OrthoReg's public code.

    Args:
        epochs: 0: the recipe's.
        lr: a factor of the recipe's learning rate.
        schedule: "recipe", "early", "rounds" or "between".

    Raises:
        ValueError: another schedule.
    """
    if schedule not in _OF_ROUNDS:
        raise ValueError(f"schedule is recipe, early or rounds, not {schedule!r:.40}")
    return Train(epochs=epochs, lr=lr, recipe=_OF_ROUNDS[schedule])


def fine_tuning(epochs: int, lr: float, schedule: str) -> Train:
    """The training after pruning.

    Args:
        epochs: 0: the recipe's.
        lr: a factor of the recipe's learning rate.
        schedule: "recipe", or "wang" for that of Wang et al.

    Raises:
        ValueError: another schedule.
    """
    if schedule not in ("recipe", "wang"):
        raise ValueError(f"schedule is recipe or wang, not {schedule!r:.40}")
    return Train(epochs=epochs, lr=lr, recipe=_WANG if schedule == "wang" else {})
