"""Tasks: what a net is trained for. A task owns the loss, the metrics, and what it takes of a batch."""

from __future__ import annotations

from ipbench.data.catalog import dataset
from ipbench.tasks.classification import Classification
from ipbench.tasks.detection import Detection
from ipbench.tasks.task import Measured, Metrics, Task

__all__ = ["TASKS", "Measured", "Metrics", "Task", "task_of"]

TASKS: dict[str, Task] = {task.name: task for task in (Classification(), Detection())}


def task_of(data: str) -> Task:
    """The task of a data set, by its name."""
    return TASKS[dataset(data).task]
