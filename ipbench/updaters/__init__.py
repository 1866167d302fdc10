"""What a training does beside its steps: changes masks, penalises, projects, decays. Importing this needs no torch."""

from ipbench.updaters.updater import Own, Steps, Update, Updater

__all__ = ["Own", "Steps", "Update", "Updater"]
