"""Fine-tuning of what is left of a trained net, as methods on filters share it."""

from __future__ import annotations

from ipbench.methods._stages import Train

#: Fine-tuning of Wang et al. (ICLR 2021, arXiv:2012.09243, and arXiv:2301.05219) on ImageNet: 90 epochs at 1e-2, 1e-3
#: from 30, 1e-4 from 60 and 1e-5 from 75, where the training began at 0.1.
_WANG = {"schedule": "step", "milestones": (1 / 3, 2 / 3, 5 / 6), "gamma": 0.1, "warmup": 0}


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
